"""TCP: each connection that is accepted gets one to the container, and octets go both ways.

Octets stay in the kernel until the other side takes them: they are looked at (MSG_PEEK), sent, and
only what was sent is taken away (MSG_TRUNC, tcp(7)). So nothing is held here, a side that does not
read stops the one that sends, and a stream costs two sockets. A side that has ended is told to the
other one (half-close); one that broke breaks the other (RST), and so does the end of this process,
however it comes: nobody takes half of an answer for the whole.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress

from weft.relay.polling import BROKEN, IN, OUT, Poll

CHUNK = 1 << 18
"""Octets that are moved at once."""
CONNECT = 5.0
"""Seconds within which a container must accept."""
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_ABRUPT = struct.pack("=ii", 1, 0)  # struct linger: close(2) sends RST
_GENTLE = struct.pack("=ii", 0, 0)
_SHARE = 2  # one port may have one in so many of all streams
_BURST = 64  # connections that are accepted in one go

Address = tuple[str, int]


class _End:
    """One side of a stream."""

    __slots__ = ("ended", "mask", "reading", "sock", "writing")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reading = True
        self.writing = False
        self.ended = False
        self.mask: int | None = 0


class Stream:
    """A client's connection, and the one to the container."""

    __slots__ = ("client", "deadline", "door", "pod")

    def __init__(self, door: Door, client: socket.socket, pod: socket.socket) -> None:
        self.door = door
        self.client = _End(client)
        self.pod = _End(pod)
        self.deadline = time.monotonic() + CONNECT


class Door:
    """A listening socket, where it leads, and the streams that came by it."""

    def __init__(self, sock: socket.socket, goal: Address) -> None:
        self.sock = sock
        self.goal = goal
        self.streams: set[Stream] = set()


class Streams:
    """All streams; `most` at a time."""

    def __init__(self, poll: Poll, most: int) -> None:
        self._poll = poll
        self._most = most
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._connecting: dict[Stream, None] = {}  # oldest first
        self._resting: list[Door] = []
        self.count = 0
        self.turned_away = 0

    @property
    def is_waiting(self) -> bool:
        """Whether `tick` has anything to do."""
        return bool(self._connecting or self._resting)

    def open(self, sock: socket.socket, goal: Address) -> Door:
        """Accept what comes to a listening socket."""
        door = Door(sock, goal)
        self._poll.add(sock, IN, lambda _: self._accept(door))
        return door

    def close(self, door: Door) -> None:
        """Accept nothing more, and break what goes on."""
        self._poll.close(door.sock)
        for stream in tuple(door.streams):
            self._end(stream, abrupt=True)

    def tick(self) -> None:
        """Once a second: who waits for a container too long waits no more."""
        now = time.monotonic()
        for stream in [each for each in self._connecting if each.deadline <= now]:
            self._end(stream, abrupt=True)
        for door in self._resting:
            if door.sock.fileno() >= 0:  # else it was closed meanwhile
                self._poll.change(door.sock, IN)
        self._resting.clear()

    def _accept(self, door: Door) -> None:
        for _ in range(_BURST):
            try:
                client, _ = door.sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no descriptors, no memory: they wait in the queue meanwhile
                self._poll.change(door.sock, 0)
                self._resting.append(door)
                return
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
            if self.count >= self._most or len(door.streams) >= self._most // _SHARE:
                self.turned_away += 1
                self._poll.close(client)
            else:
                self._begin(door, client)

    def _begin(self, door: Door, client: socket.socket) -> None:
        pod: socket.socket | None = None
        try:
            pod = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            pod.setblocking(False)
            pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
            for each in (client, pod):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEP_ALIVE:
                    each.setsockopt(socket.IPPROTO_TCP, option, value)
            with suppress(BlockingIOError):
                pod.connect(door.goal)
        except OSError:  # no way to the container any more
            for sock in (client, pod):
                if sock is not None:
                    self._poll.close(sock)
            return
        stream = Stream(door, client, pod)
        door.streams.add(stream)
        self._connecting[stream] = None
        self.count += 1
        self._poll.add(pod, OUT, lambda _: self._connected(stream))

    def _connected(self, stream: Stream) -> None:
        pod, client = stream.pod, stream.client
        if stream not in self._connecting:
            return
        if pod.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(stream, abrupt=True)
            return
        del self._connecting[stream]
        client.mask = pod.mask = IN
        self._poll.tell(pod.sock, IN, lambda events: self._happened(stream, pod, client, events))
        self._poll.add(client.sock, IN, lambda events: self._happened(stream, client, pod, events))

    def _happened(self, stream: Stream, here: _End, there: _End, events: int) -> None:
        if stream not in stream.door.streams:
            return
        try:
            if events & BROKEN and here.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(stream, abrupt=True)
                return
            if events & OUT and here.writing:
                here.writing = False
                there.reading = True
                self._move(there, here)
            if events & (IN | BROKEN) and here.reading and not here.ended:
                self._move(here, there)
        except OSError:
            self._end(stream, abrupt=True)
            return
        if here.ended and there.ended:
            self._end(stream, abrupt=False)
            return
        self._await(here)
        self._await(there)

    def _move(self, source: _End, goal: _End) -> None:
        """From one side to the other; raises OSError where one of them is broken."""
        try:
            count = source.sock.recv_into(self._buffer, CHUNK, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if not count:
            source.ended = True
            goal.sock.shutdown(socket.SHUT_WR)
            return
        try:
            sent = goal.sock.send(self._view[:count])
        except BlockingIOError:
            sent = 0
        if sent:
            source.sock.recv_into(self._buffer, sent, socket.MSG_TRUNC)
        if sent < count:
            source.reading = False
            goal.writing = True

    def _await(self, end: _End) -> None:
        mask: int | None = (IN if end.reading and not end.ended else 0) | (
            OUT if end.writing else 0
        )
        if not mask and not end.ended:
            # that it has ended, behind octets that wait, would be told without end (EPOLLHUP)
            mask = None
        if mask != end.mask:
            end.mask = mask
            self._poll.change(end.sock, mask)

    def _end(self, stream: Stream, *, abrupt: bool) -> None:
        stream.door.streams.discard(stream)
        self._connecting.pop(stream, None)
        self.count -= 1
        for end in (stream.client, stream.pod):
            if not abrupt:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GENTLE)
            self._poll.close(end.sock)
