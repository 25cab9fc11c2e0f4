"""Frames, octet by octet: what a pod with a raw socket can put on its link.

Only for tests. Addresses are packed; every function returns bytes, so wrong frames are made as
easily as right ones.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

IPV4, IPV6, ARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
TCP, UDP, ICMP, ICMP6, IPIP, SIT, GRE = 6, 17, 1, 58, 4, 41, 47
HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60


def ether(target: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return target + source + struct.pack(">H", kind) + payload


def tagged(frame: bytes, tag: int) -> bytes:
    """The frame with an 802.1Q tag."""
    return frame[:12] + struct.pack(">HH", VLAN, tag) + frame[12:]


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: bytes,
    target: bytes,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    ident: int = 0x4242,
) -> bytes:
    """`fragment` is the whole field: 0x2000 more fragments, 0x1FFF offset in 8 octets."""
    options += b"\0" * (-len(options) & 3)
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | words,
        0,
        words * 4 + len(payload),
        ident,
        fragment,
        64,
        protocol,
        0,
        source,
        target,
    )
    whole = head + options
    return whole[:10] + struct.pack(">H", checksum(whole)) + whole[12:] + payload


def ipv6(source: bytes, target: bytes, following: int, payload: bytes, *, hops: int = 255) -> bytes:
    return (
        struct.pack(">IHBB", 0x60000000, len(payload), following, hops) + source + target + payload
    )


def pseudo(source: bytes, target: bytes, protocol: int, size: int) -> bytes:
    if len(source) == 4:
        return source + target + struct.pack(">BBH", 0, protocol, size)
    return source + target + struct.pack(">II", size, protocol)


def udp(source: bytes, target: bytes, ports: tuple[int, int], payload: bytes = b"weft") -> bytes:
    head = struct.pack(">HHHH", *ports, 8 + len(payload), 0)
    data = pseudo(source, target, UDP, 8 + len(payload)) + head + payload
    return head[:6] + struct.pack(">H", checksum(data) or 0xFFFF) + payload


def tcp_syn(source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
    return tcp(source, target, ports, 2)


def tcp(source: bytes, target: bytes, ports: tuple[int, int], flags: int) -> bytes:
    head = struct.pack(">HHIIBBHHH", *ports, 7, 0, 0x50, flags, 1024, 0, 0)
    data = pseudo(source, target, TCP, len(head)) + head
    return head[:16] + struct.pack(">H", checksum(data)) + head[18:]


def icmp(kind: int, code: int, rest: bytes) -> bytes:
    head = struct.pack(">BBH", kind, code, 0) + rest
    return head[:2] + struct.pack(">H", checksum(head)) + head[4:]


def icmp6(source: bytes, target: bytes, kind: int, rest: bytes) -> bytes:
    head = struct.pack(">BBH", kind, 0, 0) + rest
    data = pseudo(source, target, ICMP6, len(head)) + head
    return head[:2] + struct.pack(">H", checksum(data)) + head[4:]


def advertisement(source: bytes, target: bytes, mac: bytes, prefix: bytes) -> bytes:
    """A router advertisement for a default route and an on-link, autonomous /64."""
    rest = struct.pack(">BBHII", 64, 0, 1800, 0, 0)
    rest += bytes((1, 1)) + mac
    rest += struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + prefix
    return icmp6(source, target, 134, rest)


def neighbour(source: bytes, target: bytes, about: bytes, mac: bytes) -> bytes:
    """A neighbour advertisement with the override flag: `about` is at `mac`."""
    return icmp6(source, target, 136, struct.pack(">I", 0x20000000) + about + bytes((2, 1)) + mac)


def solicitation(source: bytes, target: bytes, about: bytes, mac: bytes) -> bytes:
    return icmp6(source, target, 135, bytes(4) + about + bytes((1, 1)) + mac)


def redirect6(source: bytes, target: bytes, gateway: bytes, about: bytes) -> bytes:
    return icmp6(source, target, 137, bytes(4) + gateway + about)


def extension(following: int, kind: int = OPTIONS, size: int = 8) -> bytes:
    """A hop-by-hop or destination options header full of padding."""
    _ = kind
    return bytes((following, size // 8 - 1, 1, size - 4)) + bytes(size - 4)


def routing(following: int, via: bytes, kind: int = 0, left: int = 1) -> bytes:
    """A routing header with one segment."""
    return struct.pack(">BBBBI", following, 2, kind, left, 0) + via


def fragment6(following: int, offset: int, more: bool, payload: bytes, ident: int = 7) -> bytes:
    """A fragment header and its piece; `offset` in octets."""
    return struct.pack(">BBHI", following, 0, offset | int(more), ident) + payload


def arp(operation: int, mac: bytes, ip: bytes, target_mac: bytes, target_ip: bytes) -> bytes:
    return struct.pack(">HHBBH", 1, IPV4, 6, 4, operation) + mac + ip + target_mac + target_ip


def pieces(payload: bytes, sizes: Sequence[int]) -> list[tuple[int, bytes]]:
    """The payload cut after these sizes: (offset, piece)."""
    cut = []
    offset = 0
    for size in (*sizes, len(payload)):
        piece = payload[offset : offset + size]
        if piece:
            cut.append((offset, piece))
        offset += len(piece)
    return cut
