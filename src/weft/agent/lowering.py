"""Giving way to the release before: journal and store go back to the formats that it reads.

An older release refuses a newer format untouched. So `weft upgrade`, on the way to an older one,
first writes down where it goes, beside its record, and only then ends the agent. Whoever is started
next is of this release still, for the link has not moved: it lowers both files before it opens
them, and becomes the older release's agent in the same process. So there is no moment, whoever is
killed in it, at which an agent of the older release finds files that it cannot read. The link
follows when the older agent serves, or while nobody of this release can have the files open.

Only forms are given up that the older release does not know: checksums, and what was seen of the
store; host ports end with the older agent's start, which knows no rules for them. Limits of
bandwidth go on; an ifb that an older agent's DEL leaves goes with the next start of this release.
What was imported is forgotten, and can be imported again.
What cannot be lowered stays whole, and this release goes on serving; so it does while containers
have egress lists, which the older one would take for leftovers, or are on bridges, from which it
would take them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.engines import relay
from weft.kernel import files, loopback_hook
from weft.model.errors import NotFound, NotReady, WeftError
from weft.model.settings import PathSettings
from weft.render.sets import TABLE
from weft.rows.rules import Family, Table

PUBLISHING = 3
"""The first format of a journal whose agent knows published ports."""
LOWEST = 1
"""The oldest format of either file that is still written."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY = 0xFF  # SQLite's extended result codes carry the primary one in the low byte
_BACK: dict[str, dict[int, tuple[str, ...]]] = {
    "journal": {
        # ports, bandwidth and the names of egress lists stay in the records, where an older reader
        # passes over them
        3: (
            "DROP TABLE IF EXISTS former",
            "DROP TABLE IF EXISTS egress",
            "UPDATE meta SET value = '2' WHERE name = 'format'",
            "PRAGMA user_version = 2",
        ),
        2: (
            "ALTER TABLE attachment DROP COLUMN sum",
            "ALTER TABLE cooling DROP COLUMN sum",
            "ALTER TABLE given DROP COLUMN sum",
            "DROP TABLE seen",
            "UPDATE meta SET value = '1' WHERE name = 'format'",
            "PRAGMA user_version = 0",
        ),
    },
    "store": {
        2: (
            "ALTER TABLE entries DROP COLUMN sum",
            "UPDATE format SET version = 1",
            "PRAGMA user_version = 0",
        )
    },
}
"""_BACK[file][n] brings a file of format n to n - 1."""


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """Who is to serve next, and the newest format of each file that it reads."""

    program: str
    journal: int
    store: int


class _OnBridge(msgspec.Struct, frozen=True):
    """What of an attachment's record says that it is on a bridge."""

    bridged: object = None


_BRIDGED = msgspec.msgpack.Decoder(_OnBridge)


def way_back(state: Path) -> Path:
    """Where an agent finds that it is to give way; `state`: the directory of the store."""
    return state / "upgrade" / "way-back.json"


def give_way(paths: PathSettings, arguments: Sequence[str]) -> None:
    """Become the agent of the older release if that is asked; else return, for life the only ones
    who may raise a format. `arguments`: those of `weft agent`.

    Raises NotReady where another process holds the files: who keeps the agent tries again.
    """
    _hold(Path(paths.journal).parent, fcntl.LOCK_SH)  # before the look; until this process ends
    asked = _asked(way_back(Path(paths.store).parent))
    if asked is None or _home(asked.program) == _home(sys.executable):
        return
    try:
        if asked.journal < PUBLISHING and (why := _opened(Path(paths.journal))):
            _say(f"{asked.program} {why}; end them first, this release serves on")
            return
        lower_both(paths, asked)
        _say(f"giving way to {asked.program}, as weft upgrade asked")
        argv = [asked.program, "agent", *arguments]
        os.execv(asked.program, argv)  # noqa: S606 - the same process, for its keeper
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY in _BUSY:
            raise NotReady(
                f"another process holds {paths.journal} or {paths.store}; end it",
                reason="store-unavailable",
            ) from error
        _say(f"the files cannot be left to {asked.program} ({error}); this release serves on")
    except OSError as error:
        _say(f"{asked.program} cannot be started ({error}); this release serves on")


@contextmanager
def alone(paths: PathSettings) -> Iterator[None]:
    """While no agent that knows of giving way runs: who starts now waits, and looks afterwards.
    Raises BlockingIOError while one runs."""
    descriptor = _hold(Path(paths.journal).parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(descriptor)


def lower_both(paths: PathSettings, asked: WayBack) -> None:
    """Both files; raises sqlite3.Error and OSError, also for a file that somebody holds."""
    lower("store", Path(paths.store), asked.store)
    lower("journal", Path(paths.journal), asked.journal)
    if asked.journal < PUBLISHING:
        loopback_hook.remove()  # it would lead ::1 to addresses that others get
        relay.end_all(Path(paths.socket).parent)
        _leave_bridges()


def _leave_bridges() -> None:
    """Remove the table of the bridge family, which an older release neither keeps true nor takes
    away. Without one, this is nothing."""
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    try:
        engine.adopt("bridges", [Table(family=Family.BRIDGE, name=TABLE)])
        engine.withdraw("bridges")
    except WeftError as error:
        _say(f"the rules of bridges stay: {error}")
    finally:
        engine.host.close()
        rules.close()


def lower(name: str, path: Path, wanted: int) -> None:
    """Bring a file that nobody holds to a format of at most `wanted`, in one transaction, and
    merge its log: the older release judges a format by the main file alone."""
    if not path.is_file():
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as database:
        database.execute("BEGIN EXCLUSIVE")
        found = database.execute("PRAGMA user_version").fetchone()[0]
        steps = [_BACK[name][n] for n in range(found, wanted, -1) if n in _BACK[name]]
        for statement in (each for step in steps for each in step):
            database.execute(statement)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _opened(journal: Path) -> str:
    """Why an older release would open containers, or cut them off; "": it would not."""
    if not journal.is_file():
        return ""
    with closing(sqlite3.connect(journal, isolation_level=None, timeout=0)) as database:

        def rows(table: str, column: str) -> list[tuple[object]]:
            there = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,))
            said = f"SELECT {column} FROM {table}"  # noqa: S608 - both are below
            return database.execute(said).fetchall() if any(there) else []

        if lists := len(rows("egress", "digest")):
            return f"knows no egress lists and would open the containers that have one of {lists}"
        if many := sum(map(_is_bridged, rows("attachment", "record"))):
            return f"knows no bridges and would cut off {many} containers that are on some"
    return ""


def _is_bridged(row: tuple[object]) -> bool:
    try:
        return isinstance(row[0], bytes) and _BRIDGED.decode(row[0]).bridged is not None
    except msgspec.MsgspecError:
        return False  # damaged: the older release sets it aside, too


def _hold(directory: Path, how: int) -> int:
    if not directory.is_dir():
        files.make_directory(directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _asked(path: Path) -> WayBack | None:
    try:
        return msgspec.json.decode(files.read(path, 4096), type=WayBack)
    except NotFound:
        return None
    except (WeftError, msgspec.MsgspecError) as error:
        _say(f"{path} is not followed: {error}")
        return None


def _home(program: str) -> str:
    return os.path.realpath(os.path.dirname(program))


def _say(text: str) -> None:
    sys.stderr.write(f"weft agent: {text}\n")
    sys.stderr.flush()
