"""The file of the journal: opening it, its formats, damage, and what its rows are made of.

Order of opening: a newer format is refused before a byte is written (`refuse_newer`); what the
disk keeps from us (full, read-only, failing) is an error and changes nothing; what SQLite or a
checksum calls damaged is set aside. SQLite has no checksums of its own in this mode, and a flipped
bit in an address would be issued twice, so every row carries a CRC-32 of its content.

From format 2 on the number is kept in two places, the header and the table `meta`: a newer one is
believed only where both agree, so that a flipped bit is damage and not a refusal to start. Format 1
had neither checksums nor `seen`; it is read whole and written again in one transaction. Format 3
knows ports, bandwidth and egress lists, which a reader of format 2 would leave out, and has a table
of the attachments that other plugins made. A list is kept once, however many attachments have it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from weft.model.attachment import Attachment, AttachmentKey
from weft.model.egress import EgressList
from weft.model.errors import Unsupported, WeftError

FORMAT = 3
FORMER = (
    "CREATE TABLE former (network TEXT NOT NULL, container TEXT NOT NULL, "
    "ifname TEXT NOT NULL, record BLOB NOT NULL, sum INTEGER NOT NULL, "
    "PRIMARY KEY (network, container, ifname)) WITHOUT ROWID"
)
"""Attachments that other plugins made, apart: an older release would take them for its own."""
SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE attachment (network TEXT NOT NULL, container TEXT NOT NULL, "
    "ifname TEXT NOT NULL, record BLOB NOT NULL, sum INTEGER NOT NULL, "
    "PRIMARY KEY (network, container, ifname)) WITHOUT ROWID",
    FORMER,
    "CREATE TABLE cooling (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL, "
    "since REAL NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE given (path TEXT PRIMARY KEY, before TEXT NOT NULL, wrote TEXT NOT NULL, "
    "sum INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE seen (key TEXT PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE egress (digest TEXT PRIMARY KEY, list BLOB NOT NULL) WITHOUT ROWID",
)
PUT = "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?, ?)"
PUT_FORMER = "INSERT OR REPLACE INTO former VALUES (?, ?, ?, ?, ?)"
COOL = "INSERT OR REPLACE INTO cooling VALUES (?, ?, ?, ?)"
GIVE = "INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?)"
SEE = "INSERT OR REPLACE INTO seen VALUES (?, ?, ?)"
LIST = "INSERT OR REPLACE INTO egress VALUES (?, ?)"
TABLES = ("meta", "attachment", "former", "cooling", "given", "seen", "egress")

_PRIMARY = 0xFF  # SQLite's extended result codes carry the primary one in the low byte
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLITE_ERROR: a table or column is not what it was. Every other code is the disk's, or another
process holds the file: it may be as good as ever, and stays in place."""
_OUT_OF_REACH = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENFILE,
    errno.EMFILE, errno.ENOMEM,
}  # fmt: skip
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on its file system",
    sqlite3.SQLITE_READONLY: "make its file system writable again",
    sqlite3.SQLITE_IOERR: "look for errors of the disk in the kernel's log",
    sqlite3.SQLITE_CANTOPEN: "free space or inodes on its file system",
    sqlite3.SQLITE_BUSY: "end the other process that holds it",
    sqlite3.SQLITE_LOCKED: "end the other process that holds it",
}

Cooling = tuple[str, int, float]
"""(address, sequence of its holding, monotonic second in which it was given back)."""
GivenValue = tuple[str, str, str]
"""(path of a sysctl, value before us, value that we wrote)."""


class Content(NamedTuple):
    """Everything that a journal holds."""

    attachments: list[Attachment]
    cooling: list[Cooling]
    given: list[GivenValue]
    seen: dict[str, bytes]
    egress: dict[str, EgressList]


_EMPTY = Content([], [], [], {}, {})
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Attachment).decode
_decode_list = msgspec.msgpack.Decoder(EgressList).decode


# -- rows


def checksum(*parts: str | int | float | bytes) -> int:
    """CRC-32 over the parts with NUL between; floats by their shortest exact form."""
    found = 0
    for part in parts:
        octets = part if isinstance(part, bytes) else str(part).encode()
        found = zlib.crc32(b"\0", zlib.crc32(octets, found))
    return found


def attachment_row(item: Attachment) -> tuple[str, str, str, bytes, int]:
    """The row of one attachment."""
    key, record = item.key, _encode(item)
    return key.network, key.container, key.ifname, record, zlib.crc32(record)


def cooling_row(item: Cooling) -> tuple[str, int, float, int]:
    """The row of one address that cools."""
    address, sequence, since = item
    since = float(since)  # as SQLite gives it back
    return address, sequence, since, checksum(address, sequence, since)


def given_row(item: GivenValue) -> tuple[str, str, str, int]:
    """The row of one sysctl."""
    return *item, checksum(*item)


def seen_row(key: str, value: bytes) -> tuple[str, bytes, int]:
    """The row of one object of the store as it was seen last."""
    return key, value, checksum(key, value)


def list_row(item: EgressList) -> tuple[str, bytes]:
    """The row of one egress list; its digest is its checksum."""
    return item.digest, _encode(item)


def read(db: sqlite3.Connection) -> tuple[Content, int]:
    """What the file holds in the current format, and how many rows could not be believed."""
    attachments: list[Attachment] = []
    bad = 0
    for table in ("attachment", "former"):
        for *names, record, total in db.execute(f"SELECT * FROM {table}"):  # noqa: S608
            item = _attachment(record, total)
            if item is not None:
                attachments.append(item)
            # a damaged key beside a sound record would outlive the attachment
            bad += item is None or AttachmentKey(*names) != item.key
    cooling: list[Cooling] = []
    given: list[GivenValue] = []
    seen: dict[str, bytes] = {}
    for address, sequence, since, total in db.execute("SELECT * FROM cooling ORDER BY since"):
        if checksum(address, sequence, since) == total:
            cooling.append((address, sequence, since))
        else:
            bad += 1
    for path, before, wrote, total in db.execute("SELECT * FROM given"):
        if checksum(path, before, wrote) == total:
            given.append((path, before, wrote))
        else:
            bad += 1
    for key, value, total in db.execute("SELECT * FROM seen"):
        if isinstance(value, bytes) and checksum(key, value) == total:
            seen[key] = value
        else:
            bad += 1
    egress: dict[str, EgressList] = {}
    for digest, record in db.execute("SELECT * FROM egress"):
        kept = _list(record)
        if kept is not None and kept.digest == digest:
            egress[digest] = kept
        else:
            bad += 1
    return Content(attachments, cooling, given, seen, egress), bad


def _read_first(db: sqlite3.Connection) -> Content:
    """What a file of format 1 holds."""
    records = db.execute("SELECT record FROM attachment")
    found = (_attachment(record, zlib.crc32(record)) for (record,) in records)
    return Content(
        [item for item in found if item is not None],
        list(db.execute("SELECT address, sequence, since FROM cooling ORDER BY since")),
        list(db.execute("SELECT path, before, wrote FROM given")),
        {},
        {},
    )


def _raise_second(db: sqlite3.Connection) -> None:
    """A file of format 2 as one of this format: the records are read as they are."""
    db.execute("BEGIN IMMEDIATE")
    db.execute(SCHEMA[TABLES.index("egress")])
    db.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(FORMAT),))
    db.execute(FORMER)
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _attachment(record: object, total: object) -> Attachment | None:
    if not isinstance(record, bytes) or zlib.crc32(record) != total:
        return None
    try:
        return _decode(record)
    except msgspec.MsgspecError:
        return None


def _list(record: object) -> EgressList | None:
    try:
        return _decode_list(record) if isinstance(record, bytes) else None
    except msgspec.MsgspecError:
        return None


def write(db: sqlite3.Connection, content: Content, boot_id: str) -> None:
    """Make the file hold exactly this, in one transaction, whatever it held."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for table in TABLES:
            db.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in SCHEMA:
            db.execute(statement)
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)", (("format", str(FORMAT)), ("boot", boot_id))
        )
        for former, statement in ((False, PUT), (True, PUT_FORMER)):
            chosen = (each for each in content.attachments if (each.former is not None) is former)
            db.executemany(statement, map(attachment_row, chosen))
        db.executemany(COOL, map(cooling_row, content.cooling))
        db.executemany(GIVE, map(given_row, content.given))
        db.executemany(SEE, (seen_row(*item) for item in content.seen.items()))
        db.executemany(LIST, map(list_row, content.egress.values()))
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # the error that counts is the first one
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


# -- opening


def open_file(path: Path, boot_id: str) -> tuple[sqlite3.Connection, str]:
    """A connection to a file of the current format, and why it started empty or lost something,
    for a person. Raises Unsupported for a newer format, before touching it."""
    refuse_newer(path)
    existed = os.path.lexists(path)
    fresh = "" if existed else "there was no journal"
    try:
        db = connect(path)
        try:
            found = _bring_up_to_date(db, path, boot_id)
        except BaseException:
            db.close()
            raise
        return db, fresh or found
    except (sqlite3.DatabaseError, OSError, ValueError) as error:
        if not is_damage(error):
            raise unwritable(path, error) from error
        fresh = f"the journal was damaged ({error}) and was set aside"
    try:
        set_aside(path)
        db = connect(path)
        write(db, _EMPTY, boot_id)
    except (sqlite3.Error, OSError) as error:
        raise unwritable(path, error) from error
    return db, fresh


def _bring_up_to_date(db: sqlite3.Connection, path: Path, boot_id: str) -> str:
    """The file in the current format and of this boot; what there is to say about it."""
    tables = _tables(db)
    if not tables:
        write(db, _EMPTY, boot_id)
        return ""
    meta = dict(db.execute("SELECT name, value FROM meta"))
    written, header = int(str(meta.get("format"))), db.execute("PRAGMA user_version").fetchone()[0]
    if written > FORMAT and header == written:
        raise _newer(path, written)
    if (written, header) not in ((1, 0), (2, 2), (FORMAT, FORMAT)):
        raise ValueError(f"it says format {written} and {header}")
    if meta.get("boot") != boot_id:
        write(db, _EMPTY, boot_id)
        return "the machine has rebooted; no container of the last boot lives"
    if written == 1:
        write(db, _read_first(db), boot_id)
    elif written == 2 and tables.issuperset(set(TABLES) - {"former", "egress"}):
        _raise_second(db)
    elif not tables.issuperset(TABLES):
        raise ValueError(f"the table {min(set(TABLES) - tables)} is missing")
    return ""


def connect(path: Path) -> sqlite3.Connection:
    """An exclusive connection to a whole file. Raises sqlite3.Error and OSError."""
    # O_NOFOLLOW and the mode first: sqlite3 itself would follow a link planted at this name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    # what is no UTF-8 any more fails its row's checksum, not the whole reading
    db.text_factory = _text
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -512")
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damage(str(verdict))
    except BaseException:
        db.close()
        raise
    return db


def _text(octets: bytes) -> str:
    return octets.decode(errors="replace")


def refuse_newer(path: Path) -> None:
    """Raise Unsupported for a journal that a newer weft wrote; not a byte is written, no lock
    taken. Whoever raises the format merges the write-ahead log at once."""
    if not path.is_file():
        return
    try:
        place = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as db:
            row = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
            header = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error:
        return  # damaged, or the log is needed: opening for good will tell
    if row is not None and str(row[0]) == str(header) and header > FORMAT:
        raise _newer(path, header)


def _newer(path: Path, found: int) -> Unsupported:
    return Unsupported(
        f"the journal {path} has format {found}, this weft reads up to {FORMAT}; "
        "start the newer weft again, or run its `weft agent --teardown` first",
        reason="state-newer",
    )


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _damage(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_damage(error: Exception) -> bool:
    """Whether the content is broken, not the way to it."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code & _PRIMARY in _DAMAGED
    if isinstance(error, OSError):
        return error.errno not in _OUT_OF_REACH
    return True


# -- files


def files(path: Path) -> Iterator[Path]:
    """The file and SQLite's companions of it."""
    return (path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))


def set_aside(path: Path) -> None:
    """Rename what is there to `.damaged`, for a person to look at; the latest one is kept."""
    for file in files(path):
        if os.path.lexists(file):
            file.rename(file.with_name(file.name + ".damaged"))


def remove_journal(path: Path) -> None:
    """Remove the file with its companions; absent ones are fine."""
    for file in files(path):
        file.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> WeftError:
    """The error for whoever wants to write, with the cause and what to do about it."""
    cause, advice = str(error), "free space on its file system, or make it writable"
    if isinstance(error, OSError):
        cause = error.strerror or cause
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
        advice = _ADVICE.get(code, advice)
    return WeftError(
        f"the journal {path} cannot be written ({cause}); {advice}", reason="journal-unwritable"
    )
