"""What the present release has left on the node for the next one to read. Only reads.

The agent may be at work meanwhile and holds its files locked: the journal is read from a copy, of
the store only the main file is looked at, as its opening does. What cannot be read has no format
that could be judged; the agent sets such a thing aside and says so.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from weft.cni.queue import SUFFIX
from weft.model.settings import PathSettings
from weft.upgrade.release import Formats, Release
from weft.wire.local import MAGIC

LINKS = Path("/sys/class/net")
_ALIAS = re.compile(r"weft:([0-9]{1,9}) ")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Formats by what has them. None: there is nothing; `unread`: what has no format to judge."""

    journal: int | None = None
    store: int | None = None
    aliases: dict[int, int] = {}  # how many links of each
    queued: dict[int, int] = {}  # how many deletions of each
    unread: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For a person."""
        kinds = [f"journal {self.journal}"] if self.journal is not None else []
        kinds += [f"store {self.store}"] if self.store is not None else []
        kinds += [f"{count} links {version}" for version, count in sorted(self.aliases.items())]
        kinds += [f"{count} queued {version}" for version, count in sorted(self.queued.items())]
        return ", ".join(kinds) or "nothing kept yet"


def look(paths: PathSettings, links: Path = LINKS) -> Found:
    """Everything of the present release that the next one would have to read."""
    unread: list[str] = []
    journal = store = None
    try:
        journal = _journal_format(Path(paths.journal))
    except (sqlite3.Error, OSError, ValueError) as error:
        unread.append(f"the journal {paths.journal}: {error}")
    try:
        store = _store_format(Path(paths.store))
    except (sqlite3.Error, OSError, ValueError) as error:
        unread.append(f"the store {paths.store}: {error}")
    return Found(
        journal=journal,
        store=store,
        aliases=_counted(_alias_versions(links)),
        queued=_counted(_queued_versions(Path(paths.queue))),
        unread=tuple(unread),
    )


def obstacles(found: Found, release: Release, lowest: int | None = None) -> list[str]:
    """Why the release could not go on from what lies there, one line each. Pure.

    `lowest`: the agent that runs can leave journal and store in formats as old as this one.
    """
    reads: Formats = release.formats
    lines = []
    for name, format_, newest in (
        ("journal", found.journal, reads.journal),
        ("store", found.store, reads.store),
    ):
        lowered = lowest is not None and lowest <= newest
        if format_ is not None and format_ > newest and not lowered:
            lines.append(f"the {name} has format {format_}, weft {release.version} reads {newest}")
    for version, count in sorted(found.aliases.items()):
        if version > reads.alias:
            lines.append(
                f"{count} links bear records of format {version}, weft {release.version} reads "
                f"{reads.alias}"
            )
    for version, count in sorted(found.queued.items()):
        if not reads.oldest_protocol <= version <= reads.protocol:
            lines.append(
                f"{count} queued deletions are of protocol {version}, weft {release.version} reads "
                f"{reads.oldest_protocol} to {reads.protocol}"
            )
    return lines


def _journal_format(path: Path) -> int | None:
    """From a copy with its log: the agent holds the file for itself and writes it meanwhile."""
    if not path.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="weft-upgrade-") as work:
        copy = Path(work, "journal.db")
        shutil.copyfile(path, copy)
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        with closing(sqlite3.connect(copy)) as database:
            row = database.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    return int(row[0]) if row is not None else None


def _store_format(path: Path) -> int | None:
    """The main file alone: who raises a format merges the log at once (store.sqlite_file)."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    address = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        if "format" not in names:  # all is in the log yet, which only a new store has
            return None
        row = database.execute("SELECT version FROM format").fetchone()
    return int(row[0]) if row is not None else None


def _alias_versions(links: Path) -> Iterator[int]:
    for link in sorted(links.glob("*/ifalias")):
        with suppress(OSError):  # just gone
            if (match := _ALIAS.match(link.read_text(errors="replace"))) is not None:
                yield int(match[1])


def _queued_versions(directory: Path) -> Iterator[int]:
    """The protocol of every deletion that waits: octets 4 and 5 of its frame."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    head = file.read(6)
                if head[:4] == MAGIC and len(head) == 6:
                    yield int.from_bytes(head[4:], "little")


def _counted(versions: Iterator[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for version in versions:
        found[version] = found.get(version, 0) + 1
    return found
