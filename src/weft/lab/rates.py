"""How fast octets arrive: one stream between two network namespaces, TCP or UDP.

A sender in one namespace gives more than the rate that is expected, a receiver in the other counts
for a while, after a moment that lets a token bucket run empty. Of TCP the octets that the program
gets count; of UDP what the receiver's interface counts, without its Ethernet headers, because a
program in Python would be the slowest of all.
"""

from __future__ import annotations

import socket
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
_ETHERNET = 14
_TICK = 0.002


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """From whom to whom: namespaces, the receiver's address and interface, `tcp` or `udp`."""

    origin: str
    goal: str
    address: str
    interface: str
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
        deadline = time.monotonic() + warm
        while time.monotonic() < deadline:
            peer.recv_into(buffer)
        begun = now = time.monotonic()
        count = 0
        while now < begun + seconds:
            count += peer.recv_into(buffer)
            now = time.monotonic()
        stop.set()
    rate = count * 8 / (now - begun)
    return Arrived(packets=rate * stream.mtu / stream.payload, payload=rate)


def _of_udp(
    stream: Stream,
    server: socket.socket,
    client: socket.socket,
    stop: threading.Event,
    times: tuple[int, float, float],
) -> Arrived:
    expected, warm, seconds = times
    client.connect(server.getsockname())
    with _running(lambda: _pour(client, stream.payload, expected * 1.5, stop), client):
        time.sleep(warm)
        before, begun = _counted(stream), time.monotonic()
        time.sleep(seconds)
        after, now = _counted(stream), time.monotonic()
        stop.set()
    packets = after[1] - before[1]
    octets = after[0] - before[0] - packets * _ETHERNET
    if packets <= 0:
        raise WeftError(f"nothing of a udp stream to {stream.address} arrived")
    rate = octets * 8 / (now - begun)
    return Arrived(packets=rate, payload=rate * stream.payload / stream.mtu)


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
    """Datagrams at about `rate` bits a second, a few at a time."""
    data = bytes(size)
    begun, sent = time.monotonic(), 0.0
    while not stop.is_set():
        due = (time.monotonic() - begun) * rate
        while sent < due and not stop.is_set():
            try:
                client.send(data)
            except OSError:
                return
            sent += size * 8
        time.sleep(_TICK)


def _counted(stream: Stream) -> tuple[int, int]:
    """Octets and packets that the receiver's interface has received."""
    with entering.network(stream.goal):
        text = Path("/proc/thread-self/net/dev").read_text()
    for line in text.splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == stream.interface:
            octets, packets = figures.split()[:2]
            return int(octets), int(packets)
    raise WeftError(f"{stream.goal} has no interface {stream.interface}")
