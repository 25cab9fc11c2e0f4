"""Who reaches whom: one probe a protocol, without any program inside the namespaces.

Both ends are sockets of this process, opened in their namespaces, so a probe knows what left,
what arrived, from which address, and what came back. UDP and ICMP go at full size with
fragmenting forbidden: a path whose MTU is promised wrongly fails.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import closing
from pathlib import Path

import msgspec

from weft.lab import entering, frames

_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_DO_NOT_FRAGMENT = 2
_HEADERS = {4: 28, 6: 48}


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """`arrived`: seen at the receiver, as from `source`; `answered`: and seen to come back."""

    arrived: bool = False
    answered: bool = False
    source: str = ""
    why: str = ""


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def _af(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _waits(sock: socket.socket, deadline: float) -> bool:
    return bool(select.select([sock], [], [], max(0.0, deadline - time.monotonic()))[0])


def udp(
    origin: str | Path,
    goal: str | Path,
    address: str,
    *,
    size: int = 64,
    patience: float = 2.0,
    mark: bytes | None = None,
) -> Heard:
    """A datagram of `size` bytes with its headers, and its echo; repeated until answered.

    `mark`: at most 16 bytes with which the datagram begins, for who listens elsewhere.
    """
    family = family_of(address)
    mark = mark or os.urandom(16)
    payload = mark.ljust(max(16, size - _HEADERS[family]), b"u")
    with (
        closing(entering.socket_in(goal, _af(address), socket.SOCK_DGRAM)) as server,
        closing(entering.socket_in(origin, _af(address), socket.SOCK_DGRAM)) as client,
    ):
        server.bind(("", 0))
        client.setsockopt(*_MTU_DISCOVER[family], _DO_NOT_FRAGMENT)
        deadline = time.monotonic() + patience
        heard = Heard(why="nothing arrived")
        while time.monotonic() < deadline:
            try:
                client.sendto(payload, (address, server.getsockname()[1]))
            except OSError as refused:
                heard = Heard(why=refused.strerror or str(refused))
                time.sleep(0.02)
                continue
            turn = min(deadline, time.monotonic() + 0.2)
            if not _waits(server, turn):
                continue
            got, sender = server.recvfrom(1 << 16)
            if got != payload:
                continue
            heard = Heard(arrived=True, source=sender[0], why="the answer did not come back")
            server.sendto(payload, sender)
            if _waits(client, turn) and client.recv(1 << 16) == payload:
                return Heard(arrived=True, answered=True, source=sender[0])
        return heard


def tcp(
    origin: str | Path,
    goal: str | Path,
    address: str,
    *,
    size: int = 1 << 16,
    patience: float = 2.0,
) -> Heard:
    """A connection that carries `size` bytes there and back."""
    with (
        closing(entering.socket_in(goal, _af(address), socket.SOCK_STREAM)) as server,
        closing(entering.socket_in(origin, _af(address), socket.SOCK_STREAM)) as client,
    ):
        server.bind(("", 0))
        server.listen(1)
        client.setblocking(False)
        deadline = time.monotonic() + patience
        client.connect_ex((address, server.getsockname()[1]))
        if not _waits(server, deadline):
            error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return Heard(why=os.strerror(error) if error else "nothing arrived")
        peer, sender = server.accept()
        with closing(peer):
            peer.setblocking(False)
            for one, other in ((client, peer), (peer, client)):
                if not _carry(one, other, size, deadline):
                    return Heard(arrived=True, source=sender[0], why="the data stalled")
        return Heard(arrived=True, answered=True, source=sender[0])


def _carry(one: socket.socket, other: socket.socket, size: int, deadline: float) -> bool:
    data = memoryview(os.urandom(size))
    sent, got = 0, bytearray()
    while len(got) < size and time.monotonic() < deadline:
        wanting = [one] if sent < size else []
        readable, writable, _ = select.select([other], wanting, [], 0.1)
        if writable:
            sent += one.send(data[sent:])
        if readable:
            piece = other.recv(1 << 16)
            if not piece:
                return False
            got += piece
    return bytes(got) == bytes(data)


def icmp(
    origin: str | Path,
    address: str,
    *,
    size: int = 64,
    patience: float = 2.0,
    mark: bytes | None = None,
) -> Heard:
    """An echo request of `size` bytes with its headers; the kernel at the goal answers."""
    family = family_of(address)
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    request, reply = (8, 0) if family == 4 else (128, 129)
    mark = mark or os.urandom(16)
    body = struct.pack("!HH", 0x7766, 1) + mark.ljust(max(16, size - _HEADERS[family]), b"i")
    bare = struct.pack("!BBH", request, 0, 0) + body
    # the kernel fills in the checksum of ICMPv6, which covers addresses, but not that of ICMP
    message = bare[:2] + struct.pack("!H", frames.checksum(bare)) + body
    with closing(entering.socket_in(origin, _af(address), socket.SOCK_RAW, protocol)) as sock:
        sock.setsockopt(*_MTU_DISCOVER[family], _DO_NOT_FRAGMENT)
        deadline = time.monotonic() + patience
        why = "no answer"
        while time.monotonic() < deadline:
            try:
                sock.sendto(message, (address, 0))
            except OSError as refused:
                why = refused.strerror or str(refused)
                time.sleep(0.02)
                continue
            turn = min(deadline, time.monotonic() + 0.2)
            while _waits(sock, turn):
                got = sock.recv(1 << 16)
                if family == 4:
                    got = got[(got[0] & 15) * 4 :]
                if got[0] == reply and got[4:] == body:
                    return Heard(arrived=True, answered=True)
        return Heard(why=why)
