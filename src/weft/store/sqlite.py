"""The embedded store: one SQLite file, one connection, one process.

SQLite's calls take 0.02 to 0.2 ms, so they run on the loop; what may take tens of milliseconds is
the disk, so SQLite is told not to wait for it (`synchronous=NORMAL`) and each commit waits itself,
in a worker, until the write-ahead log is on the disk. The file is locked for this process as long
as it is open (`locking_mode=EXCLUSIVE`): a second connection to a WAL file is what the corruption
bug of SQLite 3.7 to 3.51 needs, and what two agents would need to tread on each other. Opening,
formats and damaged files: `sqlite_file.py`; the contract: `contract.py`.

The file may vanish or break under the open store: `missing` looks at it, `trouble` says what the
last write met, and `renew` puts a whole new file in its place. A write that the disk did not
confirm is one of those troubles: Linux reports it once and forgets it, so that asking again would
say that all is well (fsync(2), "fsyncgate").
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from weft.kernel import files
from weft.model.errors import Conflict, NotReady
from weft.store.contract import (
    HELD,
    Change,
    Entry,
    Event,
    Listing,
    Watch,
    check_changes,
    compacted,
    conflict,
    holds,
)
from weft.store.held import Held
from weft.store.sqlite_file import (
    build,
    checksum,
    is_damage,
    open_file,
    remove,
    set_aside,
    unavailable,
)
from weft.store.watchers import QUEUE_LIMIT, Watchers, under

HISTORY_LIMIT = 10_000


class SqliteStore:
    """A `Store` in one file. `report` says what was found when it was opened, or is empty;
    `is_new` that nothing was ever committed, also by who began it and was ended before that."""

    def __init__(
        self, path: str, *, history: int = HISTORY_LIMIT, queue: int = QUEUE_LIMIT
    ) -> None:
        """Open or create; raises `Unsupported` for a newer format, `NotReady` if it cannot."""
        self.path = path
        self._database, self.report, self.is_new, self.salvaged = open_file(path)
        self.trouble = ""  # what the last write met, for a person; "" while all is well
        self.is_suspect = False  # the content is in doubt: only `renew` mends that
        self._watchers = Watchers(queue)
        self._held = Held(self.commit)
        self._history_limit = history
        self._closed = False
        self._log: int | None = None
        with self._transaction(write=False) as database:
            row = database.execute(
                "SELECT revision, compacted, (SELECT count(*) FROM history) FROM state"
            ).fetchone()
        self._revision: int = row[0]
        self.is_new = self.is_new or self._revision == 0
        self._compacted: int = row[1]
        self._history_events: int = row[2]
        self._drop_former()
        self._stand = self._look()

    async def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none."""
        with self._transaction(write=False) as database:
            row = database.execute(
                "SELECT value, revision FROM entries WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Entry(key=key, value=row[0], revision=row[1])

    async def list(self, prefix: str) -> Listing:
        """All entries whose key begins with `prefix`, by key."""
        with self._transaction(write=False) as database:
            rows = database.execute(
                "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, _after(prefix)),
            ).fetchall()
        items = tuple(Entry(key=key, value=value, revision=rev) for key, value, rev in rows)
        return Listing(items=items, revision=self._revision)

    async def commit(self, changes: Sequence[Change]) -> int:
        """Make all changes or none; returns the store's revision afterwards."""
        check_changes(changes)
        with self._transaction(write=True) as database:
            effective = []
            for change in changes:
                row = database.execute(
                    "SELECT revision FROM entries WHERE key = ?", (change.key,)
                ).fetchone()
                found = None if row is None else row[0]
                if not holds(change.expected, found):
                    raise conflict(change, found)
                if change.value is not None or found is not None:
                    effective.append(change)
            if not effective:
                return self._revision
            revision = self._revision + 1
            oldest = self._write(database, effective, revision)
        # from here on the commit stands, whatever becomes of those who watch
        self._revision = revision
        self._history_events += len(effective)
        if oldest is not None:
            self._compacted, self._history_events = oldest
        self._watchers.publish(
            [Event(key=each.key, value=each.value, revision=revision) for each in effective]
        )
        await self._reach_disk()
        return revision

    def watch(self, prefix: str, after: int) -> Watch:
        """Every change under `prefix` later than the revision `after`, from this call on."""
        with self._transaction(write=False) as database:
            if not self._compacted <= after <= self._revision:
                return self._watchers.refuse(prefix, compacted(after, self._compacted))
            rows = database.execute(
                "SELECT revision, key, value FROM history WHERE revision > ? "
                "ORDER BY revision, position",
                (after,),
            ).fetchall()
        backlog: list[Event] = []
        for revision, group in groupby(rows, key=lambda row: row[0]):
            events = [Event(key=key, value=value, revision=revision) for _, key, value in group]
            backlog.extend(under(prefix, events))
        return self._watchers.subscribe(prefix, backlog)

    async def hold(self, key: str, value: bytes, seconds: float) -> None:
        """Write an entry that goes by itself unless it is held again within that time."""
        await self._held.hold(key, value, seconds)

    async def close(self) -> None:
        """End all watches and close the file, its write-ahead log merged. Idempotent."""
        if not self._closed:
            self._closed = True
            self._held.close()
            self._watchers.close()
            self._database.close()
            if self._log is not None:
                os.close(self._log)
                self._log = None

    async def _reach_disk(self) -> None:
        """Wait until what was committed is on the disk; a recovery after a power loss reads the
        log up to its last whole transaction. Locks are on the other files, not on this one."""
        try:
            if self._log is None:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                self._log = os.open(f"{self.path}-wal", flags)
            await asyncio.to_thread(os.fsync, self._log)
        except OSError as error:
            self.is_suspect = True
            self.trouble = (
                f"{self.path}: what was written may not be on the disk ({error.strerror})"
            )
            raise NotReady(self.trouble, reason="store-unavailable") from error

    # -- a file that vanishes or breaks

    def missing(self) -> str | None:
        """What has become of the file since it was opened; None where it is in its place."""
        now = self._look()
        for before, found in zip(self._stand, now, strict=True):
            if before is not None and found is None:
                return f"{self.path} was deleted while it was in use"
            if before is not None and found is not None:
                if before[:2] != found[:2]:
                    return f"{self.path} was replaced while it was in use"
                if found[2] < before[2]:
                    return f"{self.path} was cut short while it was in use"
        self._stand = now
        return None

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stat, (self.path, f"{self.path}-wal")))

    def probe(self) -> None:
        """Write something that means nothing; raises NotReady while nothing can be written."""
        with self._transaction(write=True) as database:
            database.execute("UPDATE state SET revision = revision")

    def renew(self, entries: Mapping[str, bytes]) -> str:
        """Put a new file with these entries in place, and the old one, if any, aside; the name
        that it was given. The revision goes on rising, and all watchers list again.

        Raises NotReady, and everything is as before, where the file cannot be written.
        """
        fresh, revision = f"{self.path}.new", self._revision + 1
        try:
            # it may have been replaced, too, and by one that others can write
            files.make_directory(Path(self.path).parent)
            build(fresh, entries, revision)
            with suppress(sqlite3.Error):
                self._database.close()
            aside = set_aside(self.path) if os.path.lexists(self.path) else ""
            remove(self.path)  # a log that was left alone would be replayed into the new file
            os.rename(fresh, self.path)
            self._database = open_file(self.path).database
        except sqlite3.Error as error:
            raise unavailable(self.path, error) from error
        except (OSError, Conflict) as error:
            words = error.message if isinstance(error, Conflict) else error.strerror
            raise NotReady(f"the store {self.path}: {words}", reason="store-unavailable") from error
        if self._log is not None:
            os.close(self._log)
            self._log = None
        self._revision = self._compacted = revision
        self._history_events = 0
        self._stand = self._look()
        self.trouble, self.is_suspect = "", False
        self._watchers.fail(compacted(revision - 1, revision))
        return aside

    def _drop_former(self) -> None:
        """What was held is gone with the process that held it."""
        with self._transaction(write=True) as database:
            rows = database.execute(
                "SELECT key FROM entries WHERE key >= ? AND key < ?", (HELD, _after(HELD))
            ).fetchall()
            if rows:
                changes = [Change(key=key, value=None) for (key,) in rows]
                self._write(database, changes, self._revision + 1)
        if rows:
            self._revision += 1
            self._history_events += len(rows)

    def _write(
        self, database: sqlite3.Connection, changes: Sequence[Change], revision: int
    ) -> tuple[int, int] | None:
        """Entries, history and revision; returns (compacted, events left) if it compacted."""
        for position, change in enumerate(changes):
            if change.value is None:
                database.execute("DELETE FROM entries WHERE key = ?", (change.key,))
            else:
                database.execute(
                    "INSERT INTO entries (key, value, revision, sum) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
                    "revision = excluded.revision, sum = excluded.sum",
                    (
                        change.key,
                        change.value,
                        revision,
                        checksum(change.key, change.value, revision),
                    ),
                )
            database.execute(
                "INSERT INTO history (revision, position, key, value) VALUES (?, ?, ?, ?)",
                (revision, position, change.key, change.value),
            )
        database.execute("UPDATE state SET revision = ?", (revision,))
        count = self._history_events + len(changes)
        # a tenth more than the limit may gather, so that few commits pay for the deletion
        if count <= self._history_limit + self._history_limit // 10:
            return None
        oldest = database.execute(
            "SELECT revision FROM history ORDER BY revision DESC, position DESC LIMIT 1 OFFSET ?",
            (self._history_limit,),
        ).fetchone()[0]
        deleted = database.execute("DELETE FROM history WHERE revision <= ?", (oldest,)).rowcount
        database.execute("UPDATE state SET compacted = ?", (oldest,))
        return oldest, count - deleted

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """Begin, then commit or roll back; SQLite's errors become `NotReady`."""
        if self._closed:
            raise NotReady("the store is closed", reason="store-unavailable")
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield database
            except BaseException:
                _roll_back(database)
                raise
            database.execute("COMMIT")
            if write and self.trouble and not self.is_suspect:
                self.trouble = ""
        except sqlite3.Error as error:
            _roll_back(database)  # a COMMIT that failed, e.g. on a full disk
            self.is_suspect = self.is_suspect or is_damage(error)
            refusal = unavailable(self.path, error)
            self.trouble = refusal.message
            raise refusal from error


def _roll_back(database: sqlite3.Connection) -> None:
    """End a transaction, if SQLite has not ended it by itself; of a file that could not be opened
    again there is none."""
    with suppress(sqlite3.Error):
        if database.in_transaction:
            database.execute("ROLLBACK")


def _stat(name: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(name, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size


def _after(prefix: str) -> str:
    """The first text that is behind everything that begins with `prefix`."""
    return prefix + "\U0010ffff"
