"""The relay for ::1, from outside: starting, asking and ending the process of `weft.relay`.

It listens where only root can connect, on a socket that is made here and passed to it, because it
may open no file. It outlives who started it, so that streams do; the next agent finds it by the
socket. One that gives way to another release keeps its streams, under another name, until they
end. Everything here waits: for a worker.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

import weft
from weft.kernel.loopback_hook import Goal, Port
from weft.model.errors import NotFound, PeerFault

NAME = "relay.sock"
PATIENCE = 2.0
"""Seconds for an answer."""
MOST = 2000
"""Ports that it is asked to lead at once: more than it does, and far from the longest question."""
START = 10.0
"""Seconds until it must be ready."""
_LARGEST = 1 << 20
_AGAIN = 0.02
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); from weft.relay.program import main; main()"
)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the relay says of itself; `pid` is what the kernel says, as signals go there. `ports`:
    protocol, published port and the relay's own port on ::1; `refused`: protocol, port and why it
    is not carried."""

    release: str
    pid: int
    uid: int = 0
    ports: tuple[tuple[int, int, int], ...] = ()
    streams: int = 0
    flows: int = 0
    turned_away: int = 0
    refused: tuple[tuple[int, int, str], ...] = ()


def start(path: Path) -> subprocess.Popen[bytes]:
    """Start a relay, and wait until it can be asked at `path`. Raises OSError, and PeerFault where
    it does not come to that."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        number = listener.fileno()
        home = str(Path(weft.__file__).parent.parent)
        process = subprocess.Popen(
            [sys.executable, "-ISc", _PROGRAM, home, str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(number,),
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,  # a signal to the agent's terminal is not for it
        )
    handle = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + START
        while _peer(path) != process.pid:  # it listens itself, so that the kernel names it
            if _ended(handle, _AGAIN):
                raise PeerFault(f"it ended with status {process.wait()}")
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise PeerFault(f"it was not ready within {START:g} s")
    finally:
        os.close(handle)
    return process


def hello(path: Path) -> Said:
    """What the relay there says. Raises NotFound where none is, PeerFault where it fails."""
    return _said(*_ask(path, {"do": "hello"}))


def lead(path: Path, goals: Mapping[Port, Goal], own: Mapping[Port, int]) -> Said:
    """Have it lead exactly these ports there; of too many the first. `own`: the relay's ports that
    packet rules may know already. Raises as `hello`."""
    asked = [
        [port.protocol, port.number, _text(goal.ip), goal.number, own.get(port, 0)]
        for port, goal in islice(goals.items(), MOST)
    ]
    said = _said(*_ask(path, {"do": "lead", "goals": asked}))
    beyond = [(*port, "there are too many") for port in islice(goals, MOST, None)]
    return msgspec.structs.replace(said, refused=(*said.refused, *beyond)) if beyond else said


def retire(path: Path) -> None:
    """Have it give up its ports and end with its last stream, under another name."""
    with suppress(NotFound, PeerFault):
        said = hello(path)
        path.rename(path.with_name(f"relay-{said.pid}.sock"))
        _ask(path.with_name(f"relay-{said.pid}.sock"), {"do": "retire"})


def clear(directory: Path) -> None:
    """Forget the names of those that have ended."""
    for path in directory.glob("relay-*.sock"):
        try:
            hello(path)
        except NotFound:
            path.unlink(missing_ok=True)
        except PeerFault:
            kill(path)


def end(path: Path) -> None:
    """End it at once, whatever it does; none is fine."""
    pid = _peer(path)
    if pid:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if not (_agrees(path) and _ended(handle, PATIENCE)):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _ended(handle, PATIENCE)
            finally:
                os.close(handle)
    path.unlink(missing_ok=True)


def _agrees(path: Path) -> bool:
    try:
        _ask(path, {"do": "end"})
    except (NotFound, PeerFault):
        return False
    return True


def kill(path: Path) -> None:
    """End one that does not do what it should, without asking; none is fine."""
    pid = _peer(path)
    path.unlink(missing_ok=True)
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, signal.SIGKILL)


def end_all(directory: Path) -> None:
    """End every relay that was started there."""
    for path in (directory / NAME, *directory.glob("relay-*.sock")):
        end(path)


def _ended(handle: int, patience: float) -> bool:
    """Whether the process behind a pidfd ends within so many seconds."""
    return bool(select.select([handle], [], [], patience)[0])


def _peer(path: Path) -> int:
    """The process that listens there, as the kernel tells (SO_PEERCRED); 0: none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(str(path))
            return _pid(probe)
        except OSError:
            return 0


def _pid(peer: socket.socket) -> int:
    return int.from_bytes(
        peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder
    )


def _ask(path: Path, asked: dict[str, Any]) -> tuple[int, bytes]:
    """One question: who answers, as the kernel tells, and the answer."""
    said = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PATIENCE)
        try:
            peer.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotFound(f"no relay listens on {path}") from None
        except OSError as error:
            raise PeerFault(f"the relay cannot be reached: {error}") from error
        pid = _pid(peer)
        try:
            peer.sendall(msgspec.json.encode(asked) + b"\n")
            while not said.endswith(b"\n"):
                piece = peer.recv(1 << 16)
                if not piece or len(said) > _LARGEST:
                    raise PeerFault("the relay does not answer")
                said += piece
        except OSError as error:
            raise PeerFault(f"the relay does not answer: {error}") from error
    return pid, bytes(said)


def _said(pid: int, raw: bytes) -> Said:
    try:
        return msgspec.structs.replace(msgspec.json.decode(raw, type=Said), pid=pid)
    except msgspec.MsgspecError as error:
        raise PeerFault(f"the relay says {raw[:200]!r}: {error}") from error


def _text(ip: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(ip) == 16 else socket.AF_INET, ip)
