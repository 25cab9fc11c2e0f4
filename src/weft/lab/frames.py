"""Frames built by hand, honest ones and forged ones, for sending through AF_PACKET.

Bytes in, bytes out. Only what the lab's probes need: Ethernet, ARP, IPv4 with fragments, IPv6,
UDP, and the ICMPv6 messages with which one host can mislead others (RFC 4861). Addresses are
strings as people write them.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
UDP, FRAGMENT, ICMPV6 = 17, 44, 58
BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "ff02::1"
ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT, REDIRECT = 134, 136, 137


def mac(text: str) -> bytes:
    """Six bytes of a hardware address."""
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def ipv4(
    source: str, destination: str, payload: bytes, *, fragment: int = 0, ident: int = 0x7766
) -> bytes:
    """An IPv4 packet with UDP inside. `fragment`: flags and offset as they are in the header."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45, 0, 20 + len(payload), ident, fragment, 64, UDP, 0,
        ip_address(source).packed, ip_address(destination).packed,
    )  # fmt: skip
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    source: str, destination: str, payload: bytes, *, following: int = UDP, hops: int = 255
) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), following, hops)
    return head + ip_address(source).packed + ip_address(destination).packed + payload


def fragment(source: str, destination: str, payload: bytes, place: int, ident: int) -> bytes:
    """A piece of a UDP datagram. `place`: flags and offset as in the IPv4 header."""
    if ":" not in source:
        return ipv4(source, destination, payload, fragment=place, ident=ident)
    offset, more = place & 0x1FFF, bool(place & 0x2000)
    head = struct.pack("!BBHI", UDP, 0, offset << 3 | more, ident)
    return ipv6(source, destination, head + payload, following=FRAGMENT)


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = ip_address(source).packed + ip_address(destination).packed
    if ":" in source:
        return ends + struct.pack("!II", length, protocol)
    return ends + struct.pack("!BBH", 0, protocol, length)


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP datagram; `ports` are source and destination."""
    length = 8 + len(payload)
    bare = struct.pack("!HHHH", *ports, length, 0) + payload
    total = checksum(_pseudo(source, destination, UDP, length) + bare) or 0xFFFF
    return bare[:6] + struct.pack("!H", total) + payload


def packet(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """An IP packet of either family with a UDP datagram inside."""
    inside = udp(source, destination, ports, payload)
    build = ipv6 if ":" in source else ipv4
    return build(source, destination, inside)


def kind_of(address: str) -> int:
    """The Ethernet type that carries an address of this family."""
    return IPV6 if ":" in address else IPV4


def icmp6(source: str, destination: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message in its packet, with hop limit 255 as neighbour discovery asks."""
    bare = struct.pack("!BBH", kind, 0, 0) + body
    total = checksum(_pseudo(source, destination, ICMPV6, len(bare)) + bare)
    return ipv6(source, destination, bare[:2] + struct.pack("!H", total) + body, following=ICMPV6)


def option(nonce: bytes) -> bytes:
    """An option of an experimental type (RFC 4727) that carries a nonce of up to 14 bytes."""
    return struct.pack("!BB", 253, 2) + nonce.ljust(14, b"\0")


def router_advertisement(source: str, hardware: str, prefix: str, nonce: bytes) -> bytes:
    """Announces the sender as default router and `prefix`/64 for autoconfiguration."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    body += struct.pack("!BB", 1, 1) + mac(hardware)
    body += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 7200, 7200, 0) + ip_address(prefix).packed
    return icmp6(source, ALL_NODES, ROUTER_ADVERTISEMENT, body + option(nonce))


def neighbour_advertisement(
    source: str, destination: str, target: str, hardware: str, nonce: bytes
) -> bytes:
    """Claims, with the override flag, that `target` is at `hardware`."""
    body = struct.pack("!I", 0xA0000000) + ip_address(target).packed
    body += struct.pack("!BB", 2, 1) + mac(hardware)
    return icmp6(source, destination, NEIGHBOUR_ADVERTISEMENT, body + option(nonce))


def redirect(source: str, destination: str, target: str, subject: str, nonce: bytes) -> bytes:
    """Tells `destination` to reach `subject` by way of `target`."""
    body = bytes(4) + ip_address(target).packed + ip_address(subject).packed
    return icmp6(source, destination, REDIRECT, body + option(nonce))


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str], nonce: bytes) -> bytes:
    """An ARP message; `sender` and `target` are (MAC, IPv4). The nonce is in the padding."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    for hardware, address in (sender, target):
        body += mac(hardware) + ip_address(address).packed
    return body + nonce.ljust(18, b"\0")
