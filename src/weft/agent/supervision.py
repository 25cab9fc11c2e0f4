"""What a service manager gives the agent, and what the agent tells it.

The environment of systemd's protocols, which deploy/weft-supervise speaks too: a datagram socket
for what the service has to say (sd_notify(3)), a watchdog that wants to be fed
(sd_watchdog_enabled(3)), and a listening socket that outlives the agent (sd_listen_fds(3)): who
connects while the agent is started again waits, instead of being refused.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from weft.agent.events import Log
from weft.model.errors import WeftError

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
MOST_DESCRIPTORS = 64
SOCKET_NAME = "agent"  # FileDescriptorName= in deploy/weft.socket


class Supervision:
    """Taken out of an environment once; nothing is left there for others to take as theirs."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self.watchdog = _patience(environment)
        """Seconds within which the supervisor wants to be fed; 0: it does not watch."""
        self._passed = _descriptors(environment)

    @property
    def is_there(self) -> bool:
        """Whether somebody wants to be told."""
        return bool(self._address)

    @property
    def passes_sockets(self) -> bool:
        """Whether somebody listens for the agent."""
        return bool(self._passed)

    def notify(self, *lines: str) -> None:
        """Tell the supervisor; never waits, and a supervisor that cannot hear is no failure."""
        if not self._address:
            return
        with suppress(OSError):  # it sees the process itself
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode(), self._address)

    def close(self) -> None:
        """Nothing more to tell."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def listening(self, path: Path, log: Log) -> socket.socket | None:
        """The listening socket that was passed for this path; None where none was passed.

        Raises WeftError where what was passed is something else: the agent must not listen where
        no launcher looks, nor where others than root can connect.
        """
        passed, self._passed = self._passed, ()
        found: socket.socket | None = None
        for descriptor, name in passed:
            os.set_inheritable(descriptor, False)
            # systemd names a socket after its unit where the unit says nothing
            if name in (SOCKET_NAME, "weft.socket", "unknown", "") and found is None:
                found = _checked(descriptor, path)
            else:
                log.line("warning", "a socket was passed that nobody asked for", name=name)
                os.close(descriptor)
        return found


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _patience(environment: MutableMapping[str, str]) -> float:
    micros = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", "")
    if not micros.isascii() or not micros.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(micros) / 1_000_000


def _descriptors(environment: MutableMapping[str, str]) -> tuple[tuple[int, str], ...]:
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return ()
    numbers = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + min(int(count), MOST_DESCRIPTORS))
    names += [""] * (len(numbers) - len(names))
    return tuple(zip(numbers, names, strict=False))


def _checked(descriptor: int, path: Path) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _refused(f"descriptor {descriptor} is no socket ({error.strerror})") from error
    try:
        _check(sock, path)
    except WeftError:
        sock.close()
        raise
    return sock


def _check(sock: socket.socket, path: Path) -> None:
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise _refused("it is not a stream socket of the unix family")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _refused("it does not listen")
    where = sock.getsockname()
    if where != str(path):
        shown = where if isinstance(where, str) else repr(where)
        raise _refused(f"it listens on {shown or 'no path'}, and paths.socket is {path}")
    try:
        found = path.lstat()
    except OSError as error:
        raise _refused(f"{path} cannot be looked at ({error.strerror})") from error
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o077:
        raise _refused(f"{path} must be root's alone: SocketMode=0600, SocketUser=root")


def _refused(why: str) -> WeftError:
    return WeftError(
        f"the service manager passed a socket that the agent cannot use: {why}; correct "
        "weft.socket or the settings",
        reason="invalid-settings",
    )
