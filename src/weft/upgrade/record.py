"""Where an upgrade stands, on disk before its first effect.

    /var/lib/weft/upgrade/record.json    from which release to which, and what was where
    /var/lib/weft/upgrade/launcher-N     the launchers that were there
    /var/lib/weft/upgrade/way-back.json  the older release to which the agent gives way

Whoever finds it knows that an upgrade was cut short, and the way back. It is removed when an
upgrade is finished or undone. The directory is locked for as long as one is at work.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from weft.agent.lowering import WayBack, way_back
from weft.kernel import files, records
from weft.kernel.records import Reading
from weft.model.errors import Conflict, NotFound

FORMAT = 1
_LARGEST = 16 << 20
_READING = Reading(
    format=FORMAT,
    largest=_LARGEST,
    reason="upgrade-refused",
    unread="look which release /usr/local/bin/weft leads to, remove the file and upgrade again",
)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A launcher that was there, and the copy from which it can be put back."""

    path: str
    copy: str
    mode: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """`origin` and `goal`: where the link led and where it shall lead, as it is written in it."""

    format: int = FORMAT
    link: str
    origin: str
    origin_version: str = ""  # as its agent said; empty where none answered
    journal: int = 1  # the formats that the origin reads
    store: int = 1
    goal: str
    goal_version: str
    launchers: tuple[Kept, ...] = ()


def _newer(found: Standing) -> str:
    return f"run the `weft upgrade` of {found.goal}"


class Record:
    """The directory. Everything in it is ours."""

    def __init__(self, state: Path) -> None:
        self.directory = state / "upgrade"
        self._file = self.directory / "record.json"
        self._way_back = way_back(state)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else upgrades this node meanwhile; Conflict where somebody does."""
        try:
            files.check_directory(self.directory.parent)
        except NotFound:
            raise NotFound(
                f"there is no {self.directory.parent}: no weft has run on this node, so there is "
                "nothing to upgrade; docs/install.md says how to begin",
                reason="upgrade-refused",
            ) from None
        descriptor = os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "another `weft upgrade` or `weft install` is at work on this node; wait until "
                    "it has ended",
                    reason="upgrade-refused",
                ) from None
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Standing | None:
        """The upgrade that was cut short; None where none was."""
        return records.read(self._file, Standing, _READING, _newer)

    def begin(self, standing: Standing, launchers: Sequence[Path]) -> Standing:
        """Copies first, then the record that names them; the record with the copies in it."""
        files.make_directory(self.directory)
        kept = []
        for number, path in enumerate(launchers):
            copy = self.directory / f"launcher-{number}"
            content = files.glance(path, _LARGEST)
            if content is None:
                raise NotFound(f"{path} is gone; begin again", reason="upgrade-refused")
            files.replace(copy, content, 0o600, durable=True)
            mode = path.stat().st_mode & 0o7777
            kept.append(Kept(path=str(path), copy=str(copy), mode=mode))
        standing = msgspec.structs.replace(standing, launchers=tuple(kept))
        self.write(standing)
        return standing

    def write(self, standing: Standing) -> None:
        """On disk when it returns."""
        files.replace(self._file, msgspec.json.encode(standing), 0o600, durable=True)

    def lead_back(self, way: WayBack) -> None:
        """From when this returns, every agent that starts and knows of it gives way."""
        files.replace(self._way_back, msgspec.json.encode(way), 0o600, durable=True)

    @property
    def leads_back(self) -> bool:
        """Whether agents that start give way to an older release."""
        return self._way_back.exists()

    def lead_on(self) -> None:
        """No agent gives way any more; on disk when it returns."""
        if not self.leads_back:
            return
        self._way_back.unlink()
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def end(self) -> None:
        """Forget it: the record before the copies, so that no record names copies that are gone,
        and the way back first: it would hold for the next upgrade."""
        self.lead_on()
        self._file.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            for left in self.directory.iterdir():
                left.unlink()
            self.directory.rmdir()
