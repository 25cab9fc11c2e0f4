"""Where a runtime lives: a mount namespace of its own, with its directories and its container.

Runs inside a lab node, in a process of its own that stays in the room for good. The root is an
overlay, so that every directory a runtime uses can be made and ends with the process; what the
node has on /etc, /opt, /run and /var/lib is the node's. The agent sees nothing of the room: the
launcher passes the container's namespace on, as it does out of a real runtime's container.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from weft.lab import entering, libc

_LAYERS = Path("/run/lock")
_SHARED = ("/proc", "/sys", "/dev", "/run", "/etc", "/opt", "/tmp", "/var/lib")  # noqa: S108


def move_in() -> None:
    """Give the calling process a root of its own."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("tmpfs", str(_LAYERS), "tmpfs", options="mode=700")
    root, upper, work = (_LAYERS / name for name in ("root", "upper", "work"))
    for each in (root, upper, work):
        each.mkdir()
    libc.mount("room", str(root), "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    for path in _SHARED:
        if Path(path).is_dir():
            (root / path[1:]).mkdir(parents=True, exist_ok=True)
            libc.mount(path, str(root / path[1:]), "", libc.MS_BIND | libc.MS_REC)
    host = root / "host/proc"  # where a runtime in a container sees the machine's
    host.mkdir(parents=True)
    libc.mount("/proc", str(host), "", libc.MS_BIND | libc.MS_REC)
    os.chroot(root)
    os.chdir("/")


class Room:
    """What was put into the room, and the way back."""

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._former: dict[Path, bytes] = {}
        self._mounted: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []

    def directory(self, path: Path) -> None:
        """Make a directory and what is above it."""
        for each in (*reversed(path.parents), path):
            if not each.exists():
                each.mkdir()
                self._made.append(each)

    def write(self, path: Path, data: bytes) -> None:
        """A file; one that was there comes back."""
        self.directory(path.parent)
        if path.exists():
            self._former[path] = path.read_bytes()
        else:
            self._made.append(path)
        path.write_bytes(data)

    def show(self, source: Path, target: Path) -> None:
        """A directory at another place as well."""
        self.directory(target)
        if not target.samefile(source):
            libc.mount(str(source), str(target), "", libc.MS_BIND)
            self._mounted.append(target)

    def namespace(self, path: Path) -> None:
        """An empty network namespace, held by a bind mount."""
        self.directory(path.parent)
        entering.create(path)
        self._mounted.append(path)
        self._made.append(path)

    def end_namespace(self, path: Path) -> None:
        """The bind mount gone; what is already gone is not an error."""
        if path in self._mounted:
            entering.remove(path)
            self._mounted.remove(path)
            self._made.remove(path)

    def process(self, network: Path, descriptors: Sequence[int] = ()) -> int:
        """A process in a network namespace; its id."""
        with entering.network(network):
            made = subprocess.Popen(
                ["sleep", "infinity"], stdin=subprocess.DEVNULL, pass_fds=tuple(descriptors)
            )
        self._processes.append(made)
        return made.pid

    def end_process(self, pid: int) -> None:
        """Kill it and wait for its end."""
        for each in [each for each in self._processes if each.pid == pid]:
            each.kill()
            each.wait()
            self._processes.remove(each)

    def keep(self, held: socket.socket) -> None:
        """A socket that is closed with the room."""
        self._sockets.append(held)

    def clear(self) -> None:
        """Give everything back, the last first."""
        for process in list(self._processes):
            self.end_process(process.pid)
        for held in self._sockets:
            held.close()
        for path in reversed(self._mounted):
            libc.unmount(str(path))
        for path, data in self._former.items():
            path.write_bytes(data)
        for path in reversed(self._made):
            with suppress(OSError):  # somebody else uses a directory that was made here
                path.rmdir() if path.is_dir() else path.unlink()
