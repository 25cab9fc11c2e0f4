"""UDP: each sender's datagrams of a port go out of a socket of its own, so that answers find back.

A flow is forgotten a minute after its last datagram, and the one that is silent longest as soon as
there are too many. Datagrams that cannot be sent at once are lost, as they are on any other way.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from typing import Any

from weft.relay.polling import IN, Poll

IDLE = 60.0
"""Seconds without a datagram after which a flow is forgotten."""
_LARGEST = 1 << 16
_BURST = 32  # datagrams that are moved in one go

Address = tuple[str, int]


class Door:
    """A socket for datagrams, where it leads, and the flows that came by it."""

    def __init__(self, sock: socket.socket, goal: Address) -> None:
        self.sock = sock
        self.goal = goal


class Flow:
    """One sender of one port. `seen`: when there was a datagram last."""

    __slots__ = ("client", "door", "seen", "sock")

    def __init__(self, door: Door, client: Any, sock: socket.socket) -> None:
        self.door = door
        self.client = client
        self.sock = sock
        self.seen = time.monotonic()


class Datagrams:
    """All flows; `most` at a time."""

    def __init__(self, poll: Poll, most: int) -> None:
        self._poll = poll
        self._most = most
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        self._flows: OrderedDict[tuple[Door, Any], Flow] = OrderedDict()  # longest silent first
        self.turned_away = 0

    @property
    def count(self) -> int:
        """Flows that are remembered."""
        return len(self._flows)

    def open(self, sock: socket.socket, goal: Address) -> Door:
        """Carry what comes to a socket."""
        door = Door(sock, goal)
        self._poll.add(sock, IN, lambda _: self._carry(door))
        return door

    def close(self, door: Door) -> None:
        """Carry nothing more."""
        self._poll.close(door.sock)
        for flow in [each for each in self._flows.values() if each.door is door]:
            self._forget(flow)

    def tick(self) -> None:
        """Once a second: what was silent too long is forgotten."""
        late = time.monotonic() - IDLE
        while self._flows:
            flow = next(iter(self._flows.values()))
            if flow.seen > late:
                return
            self._forget(flow)

    def _carry(self, door: Door) -> None:
        for _ in range(_BURST):
            try:
                count, client = door.sock.recvfrom_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                continue
            flow = self._flows.get((door, client)) or self._begin(door, client)
            if flow is None:
                self.turned_away += 1
                continue
            self._seen(flow)
            try:
                flow.sock.send(self._view[:count])
            except BlockingIOError:
                continue
            except OSError:  # nobody is there, or the container is gone
                self._forget(flow)

    def _answer(self, flow: Flow) -> None:
        if self._flows.get((flow.door, flow.client)) is not flow:
            return
        for _ in range(_BURST):
            try:
                count = flow.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                self._forget(flow)
                return
            self._seen(flow)
            try:
                flow.door.sock.sendto(self._view[:count], flow.client)
            except OSError:
                continue

    def _seen(self, flow: Flow) -> None:
        flow.seen = time.monotonic()
        self._flows.move_to_end((flow.door, flow.client))

    def _begin(self, door: Door, client: Any) -> Flow | None:
        if len(self._flows) >= self._most:
            self._forget(next(iter(self._flows.values())))
        sock: socket.socket | None = None
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(door.goal)
        except OSError:
            if sock is not None:
                sock.close()
            return None
        flow = Flow(door, client, sock)
        self._flows[door, client] = flow
        self._poll.add(sock, IN, lambda _: self._answer(flow))
        return flow

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow.door, flow.client]
        self._poll.close(flow.sock)
