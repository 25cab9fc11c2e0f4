"""How fast octets arrive: one stream between two network namespaces, TCP or UDP.

A sender in one namespace gives more than the rate that is expected, a receiver in the other counts
for a while, after a moment that lets a token bucket run empty. Kernels
count, because a program in Python would be the slowest of all: TCP what the connection has received
in order (TCP_INFO), UDP the datagrams that find the receiver's socket full, which nobody reads.
Nothing else may speak to the receiver meanwhile.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from weft.lab import entering
from weft.model.errors import WeftError

HEADERS = {("tcp", 4): 52, ("tcp", 6): 72, ("udp", 4): 28, ("udp", 6): 48}
"""Octets of headers in each packet from IP's on, TCP's with timestamps."""
PATIENCE = 10.0
_CHUNK = 1 << 16
_SOL_UDP, _UDP_SEGMENT = 17, 103
_MOST_SEGMENTS = 40
_RECEIVED_AT = 128  # struct tcp_info, include/uapi/linux/tcp.h
_TICK = 0.001


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """From whom to whom: namespaces, the receiver's address, and `tcp` or `udp`."""

    origin: str
    goal: str
    address: str
    protocol: str
    mtu: int = 1500

    @property
    def payload(self) -> int:
        """Octets that a full packet has for the program."""
        return self.mtu - HEADERS[self.protocol, 6 if ":" in self.address else 4]


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """Bits a second: of IP packets, and of what programs have of them."""

    packets: float
    payload: float


def measure(stream: Stream, expected: int, *, seconds: float, warm: float = 0.5) -> Arrived:
    """Send for `warm` seconds and then count for `seconds`. `expected`: bits a second; of UDP half
    as much again is sent, TCP finds its rate by itself. Raises WeftError where nothing arrives."""
    kind = socket.SOCK_STREAM if stream.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in stream.address else socket.AF_INET
    with ExitStack() as stack:
        server = stack.enter_context(entering.socket_in(stream.goal, family, kind))
        client = stack.enter_context(entering.socket_in(stream.origin, family, kind))
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        server.bind((stream.address, 0))
        stop = threading.Event()
        stack.callback(stop.set)
        try:
            if stream.protocol == "tcp":
                return _of_tcp(stream, server, client, stop, (warm, seconds))
            return _of_udp(stream, server, client, stop, (expected, warm, seconds))
        except OSError as error:
            raise WeftError(f"a {stream.protocol} stream to {stream.address}: {error}") from error


def _of_tcp(
    stream: Stream,
    server: socket.socket,
    client: socket.socket,
    stop: threading.Event,
    times: tuple[float, float],
) -> Arrived:
    warm, seconds = times
    server.listen(1)
    client.connect(server.getsockname())
    peer, _ = server.accept()
    with peer, _running(lambda: _push(client, stop), client):
        peer.settimeout(PATIENCE)
        buffer = bytearray(1 << 20)

        def read_for(span: float) -> tuple[int, float]:
            deadline = time.monotonic() + span
            while time.monotonic() < deadline:
                peer.recv_into(buffer)
            return _received(peer), time.monotonic()

        before, begun = read_for(warm)
        after, now = read_for(seconds)
        stop.set()
    rate = (after - before) * 8 / (now - begun)
    return Arrived(packets=rate * stream.mtu / stream.payload, payload=rate)


def _received(peer: socket.socket) -> int:
    """Octets that a TCP connection has received in order (tcpi_bytes_received, Linux 4.1)."""
    said = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
    return int.from_bytes(said[_RECEIVED_AT:], sys.byteorder)


def _of_udp(
    stream: Stream,
    server: socket.socket,
    client: socket.socket,
    stop: threading.Event,
    times: tuple[int, float, float],
) -> Arrived:
    expected, warm, seconds = times
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # as little as the kernel allows
    client.connect(server.getsockname())
    with _running(lambda: _pour(client, stream.payload, expected * 1.5, stop), client):
        time.sleep(warm)
        before, begun = _counted(stream), time.monotonic()
        time.sleep(seconds)
        after, now = _counted(stream), time.monotonic()
        stop.set()
    if after <= before:
        raise WeftError(f"nothing of a udp stream to {stream.address} arrived")
    datagrams = (after - before) * 8 / (now - begun)
    return Arrived(packets=datagrams * stream.mtu, payload=datagrams * stream.payload)


class _running:
    """A sender in a thread, for the length of a `with` block; its socket is closed at the end, so
    that it ends however full its buffers are."""

    def __init__(self, send: Callable[[], None], client: socket.socket) -> None:
        self._thread = threading.Thread(target=send, daemon=True)
        self._client = client

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it has ended by itself
            self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)


def _push(client: socket.socket, stop: threading.Event) -> None:
    data = bytes(_CHUNK)
    try:
        while not stop.is_set():
            client.sendall(data)
    except OSError:
        return  # shut down by who counts


def _pour(client: socket.socket, size: int, rate: float, stop: threading.Event) -> None:
    """Datagrams at about `rate` bits a second; as many in one call as come in a tick."""
    segments = max(1, min(_MOST_SEGMENTS, int(rate * _TICK / 8 / size)))
    if segments > 1:
        client.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
    data = bytes(size * segments)
    begun, sent = time.monotonic(), 0.0
    while not stop.is_set():
        due = (time.monotonic() - begun) * rate
        while sent < due and not stop.is_set():
            try:
                client.send(data)
            except OSError:
                return
            sent += len(data) * 8
        time.sleep(_TICK)


def _counted(stream: Stream) -> int:
    """Datagrams for which the receiver's full socket had no room, in the stream's family: each
    of them, also where the kernel has received many as one."""
    with entering.network(stream.goal):
        if ":" in stream.address:
            text = Path("/proc/thread-self/net/snmp6").read_text()
            return next(int(line.split()[1]) for line in text.splitlines() if "Udp6InErr" in line)
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, figures = (line.split() for line in lines if line.startswith("Udp:"))
    return int(figures[names.index("InErrors")])
