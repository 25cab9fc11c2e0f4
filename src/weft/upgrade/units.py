"""systemd's units of weft, which change with the release.

Each release has its own in `units/`; 0.1.0 had them outside the package, so what lay on the node is
kept when it is replaced, by the version that used it, and put back on the way to that version:

    /var/lib/weft/units/0.1.0/weft.service

A unit that somebody edited is left as it is, and said: changes belong into drop-ins, which are
never touched. A unit that was not installed is placed only where another needs it. A release
without weft.socket cannot serve beside it, for it listens itself: then a drop-in has systemd close
the socket in the very step in which the service is started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from weft.kernel import files
from weft.upgrade.release import Release

SERVICE, SOCKET = "weft.service", "weft.socket"
APART = "weft.service.d/without-socket.conf"
NAMES = ("weft-boot.service", SOCKET, SERVICE, APART)
PLACES = (Path("/etc/systemd/system"), Path("/usr/local/lib/systemd/system"))
"""Where units are the administrator's. Those of a distribution's package are the package's."""
_ALONE = b"""# The release of weft in use listens itself. `weft upgrade` wrote this and removes it.
[Unit]
Conflicts=weft.socket
After=weft.socket
"""
_LARGEST = 1 << 20
_REQUIRES = re.compile(rb"^Requires=(.*)$", re.MULTILINE)

Units = Mapping[str, bytes | None]
"""Contents by name; None: something lies there that is no plain file."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """`content` None: the unit goes."""

    name: str
    content: bytes | None


def read(directory: Path) -> dict[str, bytes | None]:
    """What lies there of ours; absent ones are absent."""
    found: dict[str, bytes | None] = {}
    for name in NAMES:
        path = directory / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            found[name] = None
        elif path.exists():
            found[name] = files.glance(path, _LARGEST)
    return found


def changes(
    installed: Units, wanted: Units, known: Sequence[Units] | None
) -> tuple[list[Change], list[str]]:
    """What is to be done, and the names that are left to who edited them. Pure.

    `known`: the units of the releases in question, by which an edited one is told; None where the
    release in use cannot say, and every plain file may be replaced.
    """

    def ours(name: str) -> bool:
        content = installed.get(name)
        if content is None:
            return False
        return known is None or name == APART or any(content == each.get(name) for each in known)

    todo: list[Change] = []
    left: list[str] = []
    service = wanted.get(SERVICE)
    if installed.get(SERVICE) != service and not ours(SERVICE):
        service = installed.get(SERVICE)  # it stays, and with it what it needs
    needed = _required(service)
    for name in NAMES:
        target = wanted.get(name)
        if name not in installed:
            if target is not None and (name in needed or name == APART):
                todo.append(Change(name=name, content=target))
        elif installed[name] != target:
            if not ours(name):
                left.append(name)
            elif target is not None or name not in needed:
                todo.append(Change(name=name, content=target))
    return todo, left


def _required(service: bytes | None) -> set[str]:
    lines = _REQUIRES.findall(service or b"")
    return {os.fsdecode(word) for line in lines for word in line.split()}


class Shelf:
    """The units of releases: their own, or those kept in the state directory."""

    def __init__(self, state: Path) -> None:
        self._kept = state / "units"

    def of(self, release: Release) -> dict[str, bytes | None] | None:
        """A release's units; None where nobody knows them."""
        for directory in (Path(release.units or "/nonexistent"), self._kept / release.version):
            if found := read(directory):
                if SERVICE in found and SOCKET not in found:
                    found[APART] = _ALONE
                return found
        return None

    def keep(self, version: str, installed: Units) -> None:
        """Before the first of them is replaced. What is kept already is not touched: an upgrade
        that was killed may have replaced some since."""
        place = self._kept / version
        if place.exists():
            return
        unfinished = self._kept / f".{version}.tmp"
        files.make_directory(unfinished)
        for name, content in installed.items():
            if content is not None and name != APART:
                files.replace(unfinished / name, content, 0o600, durable=True)
        unfinished.rename(place)

    def forget(self, version: str) -> None:
        """They are in use again."""
        place = self._kept / version
        if not version or not place.is_dir():
            return
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        if not any(self._kept.iterdir()):
            self._kept.rmdir()


def perform(directory: Path, todo: Sequence[Change]) -> None:
    """Each by a rename; the sockets come before the service that needs them."""
    for each in todo:
        path = directory / each.name
        if each.content is not None:
            files.make_directory(path.parent, 0o755)
            files.replace(path, each.content, 0o644, durable=True)
            continue
        path.unlink(missing_ok=True)
        if path.parent != directory and not any(path.parent.iterdir()):
            path.parent.rmdir()
