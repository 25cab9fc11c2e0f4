"""Leaving journal and store in the formats of the release before, for going back to it.

An older release refuses a newer format untouched. So `weft upgrade`, on the way to an older one,
asks the agent (a file beside its record), and the agent lowers both files as the last thing of a
graceful stop: nobody holds them then, and there is no moment at which an agent of the older release
would find them unread. An agent of this release that starts again simply raises them again.
Only forms are given up that the older one does not know: checksums, and what was seen of the store.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from weft.agent.events import Log
from weft.kernel import files
from weft.model.errors import WeftError

LOWEST = 1
"""The oldest format of either file that is still written."""
_BACK: dict[str, dict[int, tuple[str, ...]]] = {
    "journal": {
        2: (
            "ALTER TABLE attachment DROP COLUMN sum",
            "ALTER TABLE cooling DROP COLUMN sum",
            "ALTER TABLE given DROP COLUMN sum",
            "DROP TABLE seen",
            "UPDATE meta SET value = '1' WHERE name = 'format'",
            "PRAGMA user_version = 0",
        )
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


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The newest format of each file that may be left behind."""

    journal: int
    store: int


def request(store: Path) -> Path:
    """Where an agent is asked."""
    return store.parent / "upgrade" / "formats.json"


def lower_if_asked(journal: Path, store: Path, log: Log) -> None:
    """Does it, if it was asked; a file that cannot be lowered stays whole, and the log says so."""
    try:
        asked = msgspec.json.decode(files.read(request(store), 4096), type=Asked)
    except (WeftError, OSError, msgspec.MsgspecError):
        return
    for name, path, wanted in (
        ("journal", journal, asked.journal),
        ("store", store, asked.store),
    ):
        try:
            lower(name, path, wanted)
        except (sqlite3.Error, OSError) as error:
            log.event("error", "NotLowered", name, f"{path}: {error}")
        else:
            log.event("info", "Lowered", name, f"{path} has format {wanted} or an older one now")


def lower(name: str, path: Path, wanted: int) -> None:
    """Bring a file that nobody holds to a format of at most `wanted`, in one transaction."""
    if not path.is_file():
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as database:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        steps = [_BACK[name][n] for n in range(found, wanted, -1) if n in _BACK[name]]
        if not steps:
            return
        database.execute("BEGIN EXCLUSIVE")
        for statement in (each for step in steps for each in step):
            database.execute(statement)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
