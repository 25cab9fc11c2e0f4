"""The journal: what this node has promised to containers since it booted.

One SQLite file on /run with one connection. An attachment is written as `intent` before its first
effect, so that after a kill at any point the next start knows what to undo. Nothing is fsynced: an
attachment need not survive a power loss, for after a reboot no container lives; the boot-id in the
file tells the last boot's journal from this one's. Rows are MessagePack of `model.attachment`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from weft.model.attachment import Attachment, AttachmentKey
from weft.model.errors import Unsupported, WeftError

FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attachment (
    network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (network, container, ifname)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cooling
    (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given (path TEXT PRIMARY KEY, before TEXT NOT NULL, wrote TEXT NOT NULL)
    WITHOUT ROWID;
"""

_PRIMARY = 0xFF  # SQLite's extended result codes carry the primary one in the low byte
_OUT_OF_REACH = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
}
"""Another process holds the file, or no space: it may be as good as ever, and stays in place."""
_PUT = "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?)"
_DROP = "DELETE FROM attachment WHERE network = ? AND container = ? AND ifname = ?"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Attachment).decode


class Journal:
    """The open journal. Every write is one committed statement or transaction."""

    def __init__(self, path: Path, boot_id: str) -> None:
        """Open or create. A journal of another boot or with damage is set aside: `fresh` says so.

        Raises Unsupported for a journal written by a newer weft, before touching it.
        """
        self.path = path
        self.fresh = ""  # why this journal started empty, for a person; "" if it did not
        self._db = self._open(boot_id)

    def _open(self, boot_id: str) -> sqlite3.Connection:
        existed = self.path.exists()
        try:
            db = _connect(self.path)
            found = _meta(db)
            written = int(found.get("format", FORMAT))
        except (sqlite3.DatabaseError, OSError, ValueError) as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _OUT_OF_REACH:
                raise _unwritable(self.path, error) from error
            _aside(self.path)
            self.fresh = f"the journal was damaged ({error}) and was set aside"
            db, found, written = _connect(self.path), {}, FORMAT
        if written > FORMAT:
            db.close()
            raise Unsupported(
                f"the journal {self.path} has format {written}, this weft reads up to {FORMAT}; "
                "start the newer weft again, or run its `weft agent --teardown` first"
            )
        if found.get("boot") not in (None, boot_id):
            db.close()
            remove_journal(self.path)
            self.fresh = "the machine has rebooted; no container of the last boot lives"
            db = _connect(self.path)
        elif not existed:
            self.fresh = "there was no journal"
        try:
            db.executescript(_SCHEMA)
            db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (("format", str(FORMAT)), ("boot", boot_id)),
            )
        except sqlite3.Error as error:
            raise _unwritable(self.path, error) from error
        return db

    def close(self) -> None:
        """Close the file; the journal is complete at any moment anyway."""
        self._db.close()

    def put(self, attachment: Attachment) -> None:
        """Write or replace one attachment."""
        key = attachment.key
        try:
            self._db.execute(_PUT, (key.network, key.container, key.ifname, _encode(attachment)))
        except sqlite3.Error as error:
            raise _unwritable(self.path, error) from error

    def drop(
        self, key: AttachmentKey, cooling: tuple[tuple[str, int], ...] = (), since: float = 0.0
    ) -> None:
        """Forget an attachment; its addresses, each with the sequence of its holding, cool from
        `since` (monotonic seconds) on."""
        try:
            self._db.execute("BEGIN")
            self._db.execute(_DROP, (key.network, key.container, key.ifname))
            self._db.executemany(
                "INSERT OR REPLACE INTO cooling VALUES (?, ?, ?)",
                [(address, sequence, since) for address, sequence in cooling],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _unwritable(self.path, error) from error

    def attachments(self) -> Iterator[Attachment]:
        """All attachments, in the order of their keys."""
        for (record,) in self._db.execute("SELECT record FROM attachment"):
            try:
                yield _decode(record)
            except msgspec.MsgspecError:
                # one unreadable record; the alias of its link still says what it was
                self.fresh = self.fresh or "a record of the journal could not be read"

    def cooling(self) -> list[tuple[str, int, float]]:
        """(address, sequence, monotonic second) of what was given back in this boot."""
        return list(self._db.execute("SELECT address, sequence, since FROM cooling ORDER BY since"))

    def warmed(self, before: float) -> None:
        """Forget the addresses that were given back before this monotonic second."""
        self._db.execute("DELETE FROM cooling WHERE since < ?", (before,))

    def remember(self, path: str, before: str, wrote: str) -> None:
        """A global sysctl that we change: its value before, kept from the first time only."""
        self._db.execute(
            "INSERT INTO given VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET wrote = ?",
            (path, before, wrote, wrote),
        )

    def remembered(self) -> list[tuple[str, str, str]]:
        """(path, value before, value we wrote) of every global sysctl that we changed."""
        return list(self._db.execute("SELECT path, before, wrote FROM given"))


def _connect(path: Path) -> sqlite3.Connection:
    # O_NOFOLLOW and the mode first: sqlite3 itself would follow a link planted at this name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -512")
    if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
        db.close()
        raise sqlite3.DatabaseError("quick_check found damage")
    return db


def _meta(db: sqlite3.Connection) -> dict[str, str]:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return {}
    return dict(db.execute("SELECT name, value FROM meta"))


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def _aside(path: Path) -> None:
    for file in _files(path):
        if os.path.lexists(file):
            file.rename(file.with_name(file.name + ".damaged"))


def remove_journal(path: Path) -> None:
    """Remove the file with its companions; absent ones are fine."""
    for file in _files(path):
        file.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> WeftError:
    return WeftError(
        f"the journal {path} cannot be written ({error}); free space on its file system",
        reason="journal-unwritable",
    )
