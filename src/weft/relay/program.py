"""The relay's loop, and what the agent asks of it.

    python3 -ISc "..." DESCRIPTOR        a unix socket, bound where only root reaches it

One JSON object a line, one answer each. `hello` tells the release; `lead` says which ports lead
where, all of them every time; `retire` gives up the ports, and ends with the last stream; `end`
ends. `hello`, `retire` and `end` are the same in every release. Nobody who asks: it goes on.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from weft import __version__
from weft.relay import datagrams, rights, streams
from weft.relay.polling import IN, Poll

STREAMS, FLOWS, PORTS = 2000, 1000, 1000
"""At most so many at a time; fewer where the process may have fewer descriptors."""
DRAIN = 600.0
"""Seconds after which one that was retired ends whatever goes on."""
_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_LARGEST = 1 << 20
_TICK = 1.0
_WHOLE = 2 * STREAMS + FLOWS + PORTS
_CREDENTIALS = struct.Struct("=iII")

Key = tuple[int, int]
Door = streams.Door | datagrams.Door


class Relay:
    """Ports, and what goes through them."""

    def __init__(self, listener: socket.socket, owner: int, room: int) -> None:
        """`owner`: the user who may ask, besides root; `room`: descriptors there may be."""
        self._poll = Poll()
        self._owner = owner
        self._listener = listener
        share = min(1.0, room / _WHOLE)
        self._ports = int(PORTS * share)
        self._streams = streams.Streams(self._poll, int(STREAMS * share))
        self._datagrams = datagrams.Datagrams(self._poll, int(FLOWS * share))
        self._doors: dict[Key, Door] = {}
        self._retired = 0.0
        self.ended = False
        self._poll.add(listener, IN, lambda _: self._greet())

    def run(self) -> None:
        """Until it is told to end."""
        due = time.monotonic() + _TICK
        while not self.ended:
            busy = self._streams.is_waiting or self._datagrams.count or self._retired
            self._poll.turn(max(0.0, due - time.monotonic()) if busy else -1)
            if time.monotonic() >= due:
                due = time.monotonic() + _TICK
                self._streams.tick()
                self._datagrams.tick()
                if self._retired:
                    self.ended = not self._streams.count or time.monotonic() > self._retired

    def _greet(self) -> None:
        try:
            peer, _ = self._listener.accept()
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return
        if _CREDENTIALS.unpack(raw)[1] not in (0, self._owner):
            peer.close()
            return
        peer.setblocking(False)
        said = bytearray()
        self._poll.add(peer, IN, lambda _: self._hear(peer, said))

    def _hear(self, peer: socket.socket, said: bytearray) -> None:
        try:
            piece = peer.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        said += piece
        if not piece or len(said) > _LARGEST:
            self._poll.close(peer)
            return
        line, found, rest = bytes(said).partition(b"\n")
        if not found:
            return
        said[:] = rest
        answer = json.dumps(self._answer(line)).encode() + b"\n"
        peer.setblocking(True)
        peer.settimeout(1.0)
        try:
            peer.sendall(answer)
        except OSError:
            self._poll.close(peer)
            return
        peer.setblocking(False)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            verb = _VERBS[asked["do"]]
            return verb(self, asked)
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            return {"error": f"not understood: {type(error).__name__}: {error}"}

    def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "release": __version__,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "ports": self._shown(),
            "streams": self._streams.count,
            "flows": self._datagrams.count,
            "turned_away": self._streams.turned_away + self._datagrams.turned_away,
        }

    def _lead(self, asked: dict[str, Any]) -> dict[str, Any]:
        wanted: dict[Key, tuple[streams.Address, int]] = {
            (int(protocol), _port(port)): ((_ip(ip), _port(inner)), _port(own))
            for protocol, port, ip, inner, own in asked["goals"]
        }
        for key in [k for k, door in self._doors.items() if wanted.get(k, ((), 0))[0] != door.goal]:
            self._close(key)
        refused = []
        for key, (goal, own) in wanted.items():
            if key in self._doors:
                continue
            try:
                if len(self._doors) >= self._ports:
                    raise OSError(f"at most {self._ports} ports are carried")
                self._doors[key] = self._open(key[0], goal, own)
            except OSError as error:
                refused.append([*key, error.strerror or str(error)])
        return {**self._hello({}), "refused": refused}

    def _open(self, protocol: int, goal: streams.Address, own: int) -> Door:
        kind = socket.SOCK_STREAM if protocol == _TCP else socket.SOCK_DGRAM
        sock = socket.socket(socket.AF_INET6, kind)
        try:
            try:
                sock.bind(("::1", own))
            except OSError:
                if not own:
                    raise
                sock.bind(("::1", 0))
            sock.setblocking(False)
            if protocol == _UDP:
                return self._datagrams.open(sock, goal)
            sock.listen(4096)
            return self._streams.open(sock, goal)
        except BaseException:
            sock.close()
            raise

    def _close(self, key: Key) -> None:
        door = self._doors.pop(key)
        if isinstance(door, streams.Door):
            self._streams.close(door)
        else:
            self._datagrams.close(door)

    def _shown(self) -> list[list[int]]:
        return [[*key, door.sock.getsockname()[1]] for key, door in self._doors.items()]

    def _retire(self, _: dict[str, Any]) -> dict[str, Any]:
        for door in self._doors.values():
            if isinstance(door, streams.Door):
                self._poll.close(door.sock)
            else:
                self._datagrams.close(door)
        self._doors.clear()
        self._retired = self._retired or time.monotonic() + DRAIN
        return {"streams": self._streams.count}

    def _leave(self, _: dict[str, Any]) -> dict[str, Any]:
        self.ended = True
        return {"pid": os.getpid()}


def _port(number: Any) -> int:
    if not 0 <= int(number) <= 0xFFFF:
        raise ValueError(f"{number} is no port")
    return int(number)


def _ip(text: Any) -> str:
    socket.inet_pton(socket.AF_INET6, text)  # a name would be looked up, and wait
    return str(text)


_VERBS: dict[str, Callable[[Relay, dict[str, Any]], dict[str, Any]]] = {
    "hello": Relay._hello,
    "lead": Relay._lead,
    "retire": Relay._retire,
    "end": Relay._leave,
}


def main() -> None:
    """Run the relay on the listening socket that was passed."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.setblocking(False)
    listener.listen(16)  # here, so that the kernel names this process to who connects
    owner = os.getuid()
    Relay(listener, owner, rights.give_up(_WHOLE)).run()
