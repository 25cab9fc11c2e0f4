"""Opening the file of the embedded store: locking, format, damage.

In this order: a format newer than ours, and a database of something else, are refused before
anything is touched; a file that SQLite, or a checksum of ours, calls damaged is set aside under a
new name and a fresh one begun, with a report for status and everything that is still sound; what
is merely unavailable (locked, no permission, disk full) is an error and changes nothing.

SQLite has no checksums of its own, so every entry carries a CRC-32 (format 2). Since then the
format's number is also in the header (`user_version`): a newer one is believed only where both
agree, so that a flipped bit is damage and no refusal. A new format is one entry in `_STEPS`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import NamedTuple
from urllib.parse import quote

from weft.model.errors import NotReady, Unsupported

FORMAT = 2
KEPT = 3
"""Damaged files that are kept for a person to look at: they must not fill the disk."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TABLES = {"format", "state", "entries", "history"}
_PRIMARY = 0xFF  # SQLite's extended result codes carry the primary one in the low byte

# _STEPS[n] brings a file of format n to n + 1
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE format (version INTEGER NOT NULL)",
        "INSERT INTO format VALUES (0)",
        "CREATE TABLE state (revision INTEGER NOT NULL, compacted INTEGER NOT NULL)",
        "INSERT INTO state VALUES (0, 0)",
        "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, "
        "revision INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE history (revision INTEGER NOT NULL, position INTEGER NOT NULL, "
        "key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, position)) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE entries ADD COLUMN sum INTEGER NOT NULL DEFAULT 0",
        "UPDATE entries SET sum = checksum(key, value, revision)",
        "PRAGMA user_version = 2",
    ),
)


_ENTRIES = "SELECT key, value, revision, sum FROM entries"
_ENTRIES_UNSUMMED = "SELECT key, value, revision, checksum(key, value, revision) FROM entries"


class Opened(NamedTuple):
    """A connection, what there is to report (or ""), whether the file is new, and what could be
    read of one that was set aside."""

    database: sqlite3.Connection
    report: str = ""
    is_new: bool = False
    salvaged: Mapping[str, bytes] = {}


def checksum(key: str, value: bytes, revision: int) -> int:
    """CRC-32 of an entry."""
    return zlib.crc32(f"{key}\0{revision}\0".encode(errors="replace"), zlib.crc32(bytes(value)))


def open_file(path: str) -> Opened:
    """An exclusive connection to a file of the current format."""
    refuse_untouched(path)
    clear_aside(path, KEPT)
    is_new = not os.path.lexists(path)
    try:
        return Opened(_open(path), is_new=is_new)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise unavailable(path, error) from error
        damage = str(error)
    try:
        aside = set_aside(path)
    except OSError as error:
        raise NotReady(
            f"the store {path} is damaged ({damage}) and cannot be set aside ({error.strerror})",
            reason="store-unavailable",
        ) from error
    report = f"{path} was damaged ({damage}); it was kept as {aside} and a new store was begun"
    try:
        return Opened(_open(path), report, True, salvage(aside))
    except sqlite3.Error as error:
        raise unavailable(path, error) from error


def build(path: str, entries: Mapping[str, bytes], revision: int) -> None:
    """A whole new file at `path`, closed and on the disk, whose entries are all of `revision`.

    Raises sqlite3.Error and OSError; then nothing is left at `path`.
    """
    remove(path)
    try:
        database = _open(path)
        with closing(database):
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO entries (key, value, revision, sum) VALUES (?, ?, ?, ?)",
                [(k, v, revision, checksum(k, v, revision)) for k, v in sorted(entries.items())],
            )
            database.execute("UPDATE state SET revision = ?, compacted = ?", (revision, revision))
            database.execute("COMMIT")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except BaseException:
        with suppress(OSError):
            remove(path)
        raise


def remove(path: str) -> None:
    """Remove a file and SQLite's companions of it; absent ones are fine."""
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def salvage(path: str) -> dict[str, bytes]:
    """The entries of a damaged file that can still be read and whose checksum is right; of a file
    without checksums those that can be read."""
    found: dict[str, bytes] = {}
    try:
        # a copy of ours, under its new name: to write its log back into it does no harm
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            _prepare(database)
            columns = {row[1] for row in database.execute("PRAGMA table_info(entries)")}
            rows = database.execute(_ENTRIES if "sum" in columns else _ENTRIES_UNSUMMED)
            for key, value, revision, expected in rows:
                if isinstance(value, bytes) and checksum(key, value, revision) == expected:
                    found[key] = value
    except (sqlite3.Error, TypeError):
        return found  # what came before the broken page
    return found


def _prepare(database: sqlite3.Connection) -> None:
    database.create_function("checksum", 3, checksum, deterministic=True)
    # what is no UTF-8 any more fails its entry's checksum, not the whole reading
    database.text_factory = _text


def _text(octets: bytes) -> str:
    return octets.decode(errors="replace")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file's content is broken, not that it is out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _DAMAGED


def unavailable(path: str, error: sqlite3.Error) -> NotReady:
    """SQLite's error for whoever uses the store."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    hint = "; another process holds it" if "BUSY" in name or "LOCKED" in name else ""
    return NotReady(f"the store {path}: {error} ({name}){hint}", reason="store-unavailable")


def refuse_untouched(path: str) -> None:
    """Refuse a newer format, or another program's database, without a byte written.

    No lock is taken and no log replayed: `immutable` looks at the main file only. That is
    enough, because whoever raises the format merges the log at once (`_bring_up_to_date`).
    """
    if not os.path.exists(path):
        return
    try:
        database = sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)
        try:
            tables = _tables(database)
            if tables and not tables & _TABLES:
                raise NotReady(
                    f"the store {path} is a database of something else; it was left untouched: "
                    "move it away, or set paths.store",
                    reason="store-unavailable",
                )
            found = database.execute("SELECT version FROM format").fetchone()
            header = database.execute("PRAGMA user_version").fetchone()[0]
        finally:
            database.close()
    except sqlite3.Error:
        return  # not there yet, or damaged, or the log is needed: opening for good will tell
    if found is not None and found[0] == header:
        _refuse_newer(path, header)


def _tables(database: sqlite3.Connection) -> set[str]:
    return {row[0] for row in database.execute("SELECT name FROM sqlite_master")}


def _refuse_newer(path: str, found: int) -> None:
    if found > FORMAT:
        raise Unsupported(
            f"the store {path} has format {found}, this release knows {FORMAT}; run the newer "
            "release, or move the file away to begin anew",
            reason="store-newer",
        )


def _open(path: str) -> sqlite3.Connection:
    _create_private(path)
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=True)
    try:
        _prepare(database)
        # before journal_mode: then the log's index is in our memory and no -shm file is made
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # commits wait for the disk themselves
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damage(str(verdict))
        _bring_up_to_date(database, path)
        _check_shape(database)
        _check_sums(database)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection, path: str) -> None:
    tables = _tables(database)
    found = 0
    header = database.execute("PRAGMA user_version").fetchone()[0]
    if "format" in tables:
        row = database.execute("SELECT version FROM format").fetchone()
        if row is None or not isinstance(row[0], int):
            raise _damage("the table `format` does not hold a number")
        found = row[0]
    elif tables:
        raise _damage("the table `format` is missing")
    if found == header:
        _refuse_newer(path, found)
    if header not in (found, 0) or (header == 0) != (found < 2):
        raise _damage(f"it says format {found} and {header}")
    if found == FORMAT:
        return
    database.execute("BEGIN IMMEDIATE")
    for steps in _STEPS[found:]:
        for statement in steps:
            database.execute(statement)
    database.execute("UPDATE format SET version = ?", (FORMAT,))
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _check_shape(database: sqlite3.Connection) -> None:
    """quick_check passes for a file that lost a table or a row of `state`."""
    try:
        rows = database.execute("SELECT revision, compacted FROM state").fetchall()
        database.execute("SELECT key, value, revision, sum FROM entries LIMIT 1").fetchall()
        database.execute("SELECT revision, position, key, value FROM history LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise _damage(str(error)) from error
        raise
    if len(rows) != 1:
        raise _damage("the table `state` does not hold one row")


def _check_sums(database: sqlite3.Connection) -> None:
    for key, value, revision, expected in database.execute(_ENTRIES):
        if not isinstance(value, bytes) or checksum(key, value, revision) != expected:
            raise _damage(f"the checksum of {key[:100]!a} is wrong")


def _damage(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def _create_private(path: str) -> None:
    """The log inherits the main file's mode, so that is set before SQLite sees it.

    A file that exists is not opened here: closing any descriptor of a file drops every POSIX
    lock that this process holds on it, SQLite's among them.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        if os.path.lexists(path):
            os.chmod(path, 0o600)
        else:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise NotReady(
            f"the store {path} cannot be opened: {error.strerror}", reason="store-unavailable"
        ) from error


def set_aside(path: str) -> str:
    """Rename the file and its log out of the way; returns the new name, whose number is above all
    others. Of earlier ones the newest stay, so that there are KEPT."""
    numbers = clear_aside(path, KEPT - 1)
    aside = f"{path}.damaged-{max(numbers, default=0) + 1}"
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside


def clear_aside(path: str, kept: int) -> list[int]:
    """Remove all but the newest of the damaged files that were set aside, with their logs; the
    numbers of those that stay. What cannot be removed stays, and is no error."""
    home, name = os.path.split(path)
    found: dict[int, list[str]] = {}
    with suppress(OSError):
        for each in os.listdir(home or "."):
            if ours := re.fullmatch(rf"{re.escape(name)}\.damaged-(\d+)(-wal|-shm)?", each):
                found.setdefault(int(ours[1]), []).append(os.path.join(home, each))
    newest_first = sorted(found, reverse=True)
    for number in newest_first[kept:]:
        for each in found[number]:
            with suppress(OSError):
                os.unlink(each)
    return newest_first[:kept]
