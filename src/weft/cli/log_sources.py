"""Where the agent's log is: the journal of systemd, or a file. Lines of the past, then new ones.

Neither is held in memory: of a file the last 64 MiB are read, of the journal what is asked for. A
file that is replaced or cut while it is followed (logrotate) is opened again.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from weft.engines import programs
from weft.model.errors import Invalid, NotFound, Unsupported
from weft.wire.records import Record, read_record

LOG = Path("/var/log/weft/agent.log")
UNIT = "weft"
LOOK_EVERY = 0.25  # seconds between two looks at a file that is followed
LARGEST = 64 << 20
"""Octets of a file's end that are read."""
LONGEST = 1 << 20
"""Octets of a line; the rest of a longer one is a line of its own."""
MOST = 200_000
"""Entries of the journal that are read when they are searched."""
_PRIORITIES = ("error",) * 4 + ("warning", "info", "info", "debug")


class Source(Protocol):
    """A log."""

    def past(self, since: float | None, lines: int | None) -> Iterator[Record]:
        """What is there: at least that of `since` (seconds since 1970), and at least the last
        `lines`, where they are given."""

    def coming(self) -> Iterator[Record]:
        """What is written after it; ends only with an exception."""


class LogFile:
    """A file that the agent's standard error goes to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._inode = 0
        self._rest = b""

    def past(self, since: float | None, lines: int | None) -> Iterator[Record]:
        """Everything in its last 64 MiB. Raises NotFound."""
        size = self._open().st_size
        self._at = max(0, size - LARGEST)
        found = self._written()
        if self._at and size > LARGEST:
            next(found, None)  # the end of a line that began before
        yield from found

    def coming(self) -> Iterator[Record]:
        """Looks four times a second."""
        while True:
            with suppress(NotFound):  # between the old and the new one of a rotation
                now = self._open(keep=True)
                if now.st_ino != self._inode or now.st_size < self._at:
                    self._inode, self._at, self._rest = now.st_ino, 0, b""
                yield from self._written()
            time.sleep(LOOK_EVERY)

    def _open(self, *, keep: bool = False) -> os.stat_result:
        try:
            found = os.stat(self._path)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise NotFound(f"{self._path}: {why}") from None
        if not os.path.isfile(self._path):  # a pipe would be waited for
            raise NotFound(f"{self._path} is no file")
        if not keep:
            self._inode = found.st_ino
        return found

    def _written(self) -> Iterator[Record]:
        """Whole lines from where the last look ended."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                while piece := file.readline(LONGEST):
                    self._at += len(piece)
                    self._rest += piece
                    if piece.endswith(b"\n") or len(self._rest) >= LONGEST:
                        line, self._rest = self._rest, b""
                        yield read_record(line.decode(errors="replace").rstrip("\r\n"))
        except OSError as error:
            raise NotFound(f"{self._path}: {os.strerror(error.errno or 0).lower()}") from None


class Journal:
    """The journal's entries of weft's unit."""

    def __init__(self, directory: Path | None = None) -> None:
        self._where = ("--directory", str(directory.absolute())) if directory else ()
        self._cursor = ""

    def past(self, since: float | None, lines: int | None) -> Iterator[Record]:
        """Of all boots that the journal keeps, the oldest first."""
        asked = [f"--lines={MOST if lines is None else lines}"]
        if since is not None:
            asked = [f"--since=@{since:.0f}", f"--lines={MOST}"]
        yield from self._entries(*asked)

    def coming(self) -> Iterator[Record]:
        """As journalctl hears of it."""
        asked = (
            (f"--after-cursor={self._cursor}", "--lines=all") if self._cursor else ("--lines=0",)
        )
        yield from self._entries("--follow", *asked)
        raise Unsupported("journalctl ended while it was to follow the journal")

    def _entries(self, *asked: str) -> Iterator[Record]:
        program = programs.find("journalctl")
        if program is None:
            raise Unsupported("journalctl is not installed; name the log's file: --file PATH")
        argv = [program, *self._where, f"--unit={UNIT}", "--no-pager", "--quiet", "-o", "json"]
        with subprocess.Popen(
            [*argv, *asked], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    record = self._record(line)
                    if record is not None:
                        yield record
            finally:
                running.terminate()

    def _record(self, line: bytes) -> Record | None:
        try:
            entry = json.loads(line)
            message = entry.get("MESSAGE") or ""
            moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        except (ValueError, KeyError, AttributeError):
            return None
        self._cursor = str(entry.get("__CURSOR", "")) or self._cursor
        if isinstance(message, list):  # octets that are no UTF-8, or more than 4 KiB of them
            message = bytes(message).decode(errors="replace")
        found = read_record(str(message))
        if found.level:
            return found
        if str(entry.get("_PID", "")) == "1":  # systemd, of the unit
            priority = str(entry.get("PRIORITY", "6"))
            level = _PRIORITIES[int(priority)] if priority in "01234567" else "info"
            return Record(time=moment, level=level, message=str(message), fields={"by": "systemd"})
        return Record(time=moment, message=str(message))


def find_source(named: Path | None) -> Source:
    """The log that is named - a file, or a directory of the journal's - or else where it usually
    is. Raises NotFound, Invalid."""
    if named is not None:
        if str(named) in ("", "-"):
            raise Invalid(
                "--file takes the path of a file", field="--file", reason="invalid-argument"
            )
        return Journal(named) if named.is_dir() else LogFile(named)
    if os.path.isdir("/run/systemd/system") and programs.find("journalctl"):
        journal = Journal()
        if next(journal.past(None, 1), None) is not None or not LOG.exists():
            return journal
    if LOG.exists():
        return LogFile(LOG)
    raise NotFound(
        f"neither does systemd run here nor is there {LOG}; an agent that was started by hand "
        "writes to its standard error: where that goes to a file, name it with --file"
    )
