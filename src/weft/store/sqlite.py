"""The embedded store: one SQLite file, one connection, one process.

SQLite's calls take 0.02 to 0.2 ms, so they run on the loop; what may take tens of milliseconds is
the disk, so SQLite is told not to wait for it (`synchronous=NORMAL`) and each commit waits itself,
in a worker, until the write-ahead log is on the disk. The file is locked for this process as long
as it is open (`locking_mode=EXCLUSIVE`): a second connection to a WAL file is what the corruption
bug of SQLite 3.7 to 3.51 needs, and what two agents would need to tread on each other. Opening,
formats and damaged files: `sqlite_file.py`; the contract: `contract.py`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from weft.model.errors import NotReady
from weft.store.contract import (
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
from weft.store.sqlite_file import open_file, unavailable
from weft.store.watchers import QUEUE_LIMIT, Watchers, under

HISTORY_LIMIT = 10_000


class SqliteStore:
    """A `Store` in one file. `report` says what was found when it was opened, or is empty."""

    def __init__(
        self, path: str, *, history: int = HISTORY_LIMIT, queue: int = QUEUE_LIMIT
    ) -> None:
        """Open or create; raises `Unsupported` for a newer format, `NotReady` if it cannot."""
        self.path = path
        self._database, self.report = open_file(path)
        self._watchers = Watchers(queue)
        self._history_limit = history
        self._closed = False
        self._log: int | None = None
        with self._transaction(write=False) as database:
            row = database.execute(
                "SELECT revision, compacted, (SELECT count(*) FROM history) FROM state"
            ).fetchone()
        self._revision: int = row[0]
        self._compacted: int = row[1]
        self._history_events: int = row[2]

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

    async def close(self) -> None:
        """End all watches and close the file, its write-ahead log merged. Idempotent."""
        if not self._closed:
            self._closed = True
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
            raise NotReady(
                f"{self.path}: what was written may not be on the disk ({error.strerror})",
                reason="store-unavailable",
            ) from error

    def _write(
        self, database: sqlite3.Connection, changes: Sequence[Change], revision: int
    ) -> tuple[int, int] | None:
        """Entries, history and revision; returns (compacted, events left) if it compacted."""
        for position, change in enumerate(changes):
            if change.value is None:
                database.execute("DELETE FROM entries WHERE key = ?", (change.key,))
            else:
                database.execute(
                    "INSERT INTO entries (key, value, revision) VALUES (?, ?, ?) ON CONFLICT (key) "
                    "DO UPDATE SET value = excluded.value, revision = excluded.revision",
                    (change.key, change.value, revision),
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
                if database.in_transaction:  # SQLite ends it by itself on some errors
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:  # a COMMIT that failed, e.g. on a full disk
                database.execute("ROLLBACK")
            raise unavailable(self.path, error) from error


def _after(prefix: str) -> str:
    """The first text that is behind everything that begins with `prefix`."""
    return prefix + "\U0010ffff"
