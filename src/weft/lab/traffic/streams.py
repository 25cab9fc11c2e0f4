"""A TCP connection that carries a pattern there and back for as long as the traffic lasts."""

from __future__ import annotations

import errno
import socket
import struct
import time

from weft.lab import entering
from weft.lab.traffic.actors import Stage
from weft.lab.traffic.reports import StreamReport
from weft.lab.traffic.wanted import Flow
from weft.model.errors import NotReady

CHUNK = 1024
_WORD = struct.Struct("!Q")
_AT_ONCE = 1 << 16


class Stream:
    """Both ends of a connection. The far one sends back what it gets."""

    def __init__(self, flow: Flow, interval: float, stage: Stage, patience: float) -> None:
        self.flow = flow
        self.interval = interval
        self._stage = stage
        self._client, self._server = _connected(flow, patience)
        self._out, self._back = bytearray(), bytearray()  # not handed to the kernel yet
        self._expected = bytearray()  # handed to the kernel, or about to be, and not back yet
        self._sent = self._echoed = 0
        self._broken, self._corrupt, self._number = "", False, 0
        self._progress, self._longest = time.monotonic(), 0.0
        stage.listen(self._client, self._hear)
        stage.listen(self._server, self._serve)

    def speak(self) -> None:
        """One more chunk, and what the kernel did not take before."""
        if self._broken:
            return
        now = time.monotonic()
        if not self._expected:
            self._progress = now
        chunk = _WORD.pack(self._number) * (CHUNK // _WORD.size)
        self._number += 1
        self._out += chunk
        self._expected += chunk
        self._sent += CHUNK
        self.push()

    def push(self) -> None:
        """Hand the kernel what it did not take before."""
        self._write(self._client, self._out)
        self._write(self._server, self._back)

    def _write(self, sock: socket.socket, data: bytearray) -> None:
        try:
            while data and not self._broken:
                del data[: sock.send(data)]
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)

    def _read(self, sock: socket.socket) -> bytes:
        try:
            data = sock.recv(_AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._break(error)
            return b""
        if not data:
            self._end("closed by the other side")
        return data

    def _serve(self) -> None:
        self._back += self._read(self._server)
        self._write(self._server, self._back)

    def _hear(self) -> None:
        data = self._read(self._client)
        if not data:
            return
        now = time.monotonic()
        self._longest = max(self._longest, now - self._progress)
        self._progress = now
        self._corrupt |= self._expected[: len(data)] != data
        del self._expected[: len(data)]
        self._echoed += len(data)

    def _break(self, error: OSError) -> None:
        self._end(errno.errorcode.get(error.errno or 0, str(error)))

    def _end(self, why: str) -> None:
        self._broken = self._broken or why
        for sock in (self._client, self._server):
            self._stage.ignore(sock)

    @property
    def is_settled(self) -> bool:
        """Whether everything is back, or nothing more can come."""
        return bool(self._broken) or not self._expected

    def report(self) -> StreamReport:
        stalled = time.monotonic() - self._progress if self._expected else 0.0
        return StreamReport(
            name=self.flow.name,
            sent=self._sent,
            echoed=self._echoed,
            broken=self._broken,
            corrupt=self._corrupt,
            longest_stall=max(self._longest, stalled),
        )


def _connected(flow: Flow, patience: float) -> tuple[socket.socket, socket.socket]:
    """Raises NotReady where no connection comes about in time."""
    family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
    with entering.socket_in(flow.goal, family, socket.SOCK_STREAM) as listener:
        listener.bind(("", 0))
        listener.listen(1)
        listener.settimeout(patience)
        client = entering.socket_in(flow.origin, family, socket.SOCK_STREAM)
        client.settimeout(patience)
        try:
            client.connect((flow.address, listener.getsockname()[1]))
            server, _ = listener.accept()
        except OSError as error:
            client.close()
            raise NotReady(f"{flow.name}: no connection: {error}") from error
    for each in (client, server):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server
