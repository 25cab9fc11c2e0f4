"""Opening the file of the embedded store: locking, format, damage.

In this order: a format newer than ours, and a database of something else, are refused before
anything is touched; a file that
SQLite calls damaged is set aside under a new name and a fresh one begun, with a report for
status; what is merely unavailable (locked, no permission, disk full) is an error and changes
nothing. A new format is one entry in `_STEPS`.
"""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote

from weft.model.errors import NotReady, Unsupported

FORMAT = 1
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
)


def open_file(path: str) -> tuple[sqlite3.Connection, str]:
    """An exclusive connection to a file of the current format, and what there is to report."""
    _refuse_untouched(path)
    try:
        return _open(path), ""
    except sqlite3.Error as error:
        if not is_damage(error):
            raise unavailable(path, error) from error
        damage = str(error)
    aside = _set_aside(path)
    report = (
        f"{path} was damaged ({damage}); it was kept as {aside} and a new, empty store was begun: "
        "apply your manifests again"
    )
    try:
        return _open(path), report
    except sqlite3.Error as error:
        raise unavailable(path, error) from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file's content is broken, not that it is out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _DAMAGED


def unavailable(path: str, error: sqlite3.Error) -> NotReady:
    """SQLite's error for whoever uses the store."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    hint = "; another process holds it" if "BUSY" in name or "LOCKED" in name else ""
    return NotReady(f"the store {path}: {error} ({name}){hint}", reason="store-unavailable")


def _refuse_untouched(path: str) -> None:
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
        finally:
            database.close()
    except sqlite3.Error:
        return  # not there yet, or damaged, or the log is needed: opening for good will tell
    if found is not None and isinstance(found[0], int):
        _refuse_newer(path, found[0])


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
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection, path: str) -> None:
    tables = _tables(database)
    found = 0
    if "format" in tables:
        row = database.execute("SELECT version FROM format").fetchone()
        if row is None or not isinstance(row[0], int):
            raise _damage("the table `format` does not hold a number")
        found = row[0]
    elif tables:
        raise _damage("the table `format` is missing")
    _refuse_newer(path, found)
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
        database.execute("SELECT key, value, revision FROM entries LIMIT 1").fetchall()
        database.execute("SELECT revision, position, key, value FROM history LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise _damage(str(error)) from error
        raise
    if len(rows) != 1:
        raise _damage("the table `state` does not hold one row")


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


def _set_aside(path: str) -> str:
    """Rename the file and its log out of the way; returns the new name."""
    number = 1
    while os.path.exists(f"{path}.damaged-{number}"):
        number += 1
    aside = f"{path}.damaged-{number}"
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside
