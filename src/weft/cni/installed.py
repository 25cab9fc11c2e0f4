"""What `weft install` has done to this machine, on disk before it is done.

    /var/lib/weft/installed.json

Paths are the machine's, also where they were written below another root: the record of an image
holds on the machine that boots it. `weft uninstall` reads it backwards. Whoever installs or
uninstalls holds the lock of this directory, as `weft upgrade` does.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from weft.kernel import files, records
from weft.kernel.records import Reading
from weft.model.errors import Conflict, NotFound

FORMAT = 1
STATE = "/var/lib/weft"
NAME = "installed.json"
_READING = Reading(
    format=FORMAT,
    largest=1 << 20,
    reason="install-refused",
    unread="it lists what `weft install` made: look at it, then move it away and install again",
)
_NEWER = "use that release's `weft install` or `weft uninstall`"


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration of somebody else's at `path`, and the name that it has meanwhile."""

    path: str
    kept: str


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that may have been made. `made`: directories, parents first."""

    format: int = FORMAT
    made: tuple[str, ...] = ()
    launchers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    aside: tuple[Aside, ...] = ()

    def and_also(self, other: Installed) -> Installed:
        """Both, each thing once and in the order in which it came."""
        return Installed(
            made=tuple(dict.fromkeys(self.made + other.made)),
            launchers=tuple(dict.fromkeys(self.launchers + other.launchers)),
            networks=tuple(dict.fromkeys(self.networks + other.networks)),
            aside=tuple(dict.fromkeys(self.aside + other.aside)),
        )


class Record:
    """The file, in the state directory `state` as this process sees it."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / NAME

    @contextmanager
    def held(self, *, make: bool) -> Iterator[None]:
        """Nobody else installs, uninstalls or upgrades meanwhile; Conflict where somebody does.
        Where there is no state directory and none is made, nothing is held; one that was made and
        is empty at the end goes again."""
        was_there = self._state.exists()
        try:
            if make:
                files.make_directory(self._state)
            files.check_directory(self._state)
        except NotFound:
            yield
            return
        descriptor = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "another `weft install`, `uninstall` or `upgrade` is at work on this node; "
                    "wait until it has ended",
                    reason="install-refused",
                ) from None
            yield
        finally:
            os.close(descriptor)
            if not was_there:
                with suppress(OSError):
                    self._state.rmdir()

    def read(self) -> Installed | None:
        """What is on record; None where nothing is."""
        return records.read(self._file, Installed, _READING, lambda _: _NEWER)

    def write(self, installed: Installed) -> None:
        """On disk when it returns."""
        files.replace(self._file, msgspec.json.encode(installed), 0o600, durable=True)

    def end(self) -> None:
        """Forget it, and its directory where nothing else is in it."""
        self._file.unlink(missing_ok=True)
        files.clear_unfinished(self._file)
        with suppress(OSError):
            self._state.rmdir()
