"""What an attacker may try, one case each, and which of our rules has to stop it.

A case's frames are right in every respect but one. `eye` is where its frames would come out if
the rule were not there (see `guarded_node`).
"""

from __future__ import annotations

from collections.abc import Iterator

import frames as f
import msgspec
from guarded_node import (
    ALL_NODES,
    ALL_NODES_MAC,
    BROADCAST,
    GATEWAY6,
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    UNROUTED4,
    UNROUTED6,
    GuardedNode,
)

from weft.model.attachment import HOST_MAC

STRANGER4 = bytes((203, 0, 113, 9))
STRANGER6 = bytes.fromhex("20010db8bad0") + bytes(9) + b"\x01"
STRANGER_LOCAL = b"\xfe\x80" + bytes(13) + b"\x66"
STRANGER_MAC = bytes.fromhex("0aeeeeeeeeee")
MAPPED = bytes(10) + b"\xff\xff"
PREFIX = bytes.fromhex("20010db8bad1") + bytes(10)
NOWHERE4, NOWHERE6 = bytes((10, 244, 7, 60)), bytes.fromhex("fd0000010000000700000000000000fe")
ALL_ROUTERS = bytes.fromhex("ff02") + bytes(13) + b"\x02"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`kernel`: Linux drops these itself, before any hook; our rule stands behind it."""

    name: str
    reason: str
    frames: tuple[bytes, ...]
    eye: str = "passed"
    kernel: bool = False


def cases(node: GuardedNode) -> list[Case]:
    """All of them, for the attacker of this node."""
    groups = (
        spoofed(node),
        unspecified(node),
        martian(node),
        options(node),
        routers(node),
        neighbours(node),
        dhcp(node),
        fragments(node),
        others(node),
        arp(node),
        forwarded(node),
        invalid(node),
    )
    return [case for group in groups for case in group]


def _udp4(source: bytes, target: bytes, ports: tuple[int, int] = (7, 7), **more: object) -> bytes:
    return f.ipv4(source, target, f.UDP, f.udp(source, target, ports), **more)  # type: ignore[arg-type]


def _udp6(source: bytes, target: bytes, ports: tuple[int, int] = (7, 7)) -> bytes:
    return f.ipv6(source, target, f.UDP, f.udp(source, target, ports))


def spoofed(node: GuardedNode) -> Iterator[Case]:
    me, victim = node.attacker, node.victim

    def case(name: str, *wanted: bytes, kernel: bool = False) -> Case:
        return Case(name=name, reason="spoofed", frames=wanted, kernel=kernel)

    for name, source, target in (
        ("a stranger's IPv4 address", STRANGER4, victim.ip4),
        ("the other pod's IPv4 address", victim.ip4, OUTSIDE4),
        ("the other pod's IPv4 address to itself", victim.ip4, victim.ip4),
        ("the node's IPv4 address", NODE4, victim.ip4),
        ("an IPv4 loopback address", bytes((127, 0, 0, 1)), NODE4),
        ("an IPv4 multicast address", bytes((224, 0, 0, 1)), victim.ip4),
        ("the IPv4 broadcast address", b"\xff" * 4, NODE4),
        ("the IPv4 gateway", bytes((169, 254, 1, 1)), victim.ip4),
    ):
        yield case(name, node.packet(_udp4(source, target)))
    for name, source, target in (
        ("a stranger's IPv6 address", STRANGER6, victim.ip6),
        ("the other pod's IPv6 address", victim.ip6, OUTSIDE6),
        ("the node's IPv6 address", NODE6, victim.ip6),
        ("the IPv6 gateway", GATEWAY6, NODE6),
        ("the other pod's link-local address", victim.local, GATEWAY6),
        ("a stranger's link-local address", STRANGER_LOCAL, GATEWAY6),
        ("an IPv4-mapped address of its own", MAPPED + me.ip4, victim.ip6),
    ):
        yield case(name, node.packet(_udp6(source, target)))
    for name, source in (
        ("the IPv6 loopback address", bytes(15) + b"\x01"),
        ("an IPv6 multicast address", ALL_NODES),
    ):
        yield case(name, node.packet(_udp6(source, victim.ip6)), kernel=True)
    honest4, honest6 = _udp4(me.ip4, victim.ip4), _udp6(me.ip6, victim.ip6)
    yield case("another hardware address, IPv4", node.packet(honest4, mac=STRANGER_MAC))
    yield case("another hardware address, IPv6", node.packet(honest6, mac=STRANGER_MAC))
    yield case("the victim's hardware address", node.packet(honest4, mac=victim.mac))
    yield case("the node's hardware address", node.packet(honest4, mac=HOST_MAC))
    for offset, name in ((0x2000, "first"), (0x2001, "middle"), (0x0002, "last")):
        packet = f.ipv4(STRANGER4, victim.ip4, f.UDP, bytes(16), fragment=offset)
        yield case(f"the {name} IPv4 fragment of a stranger", node.packet(packet))
    whole = f.udp(STRANGER6, victim.ip6, (7, 7), bytes(24))
    for offset, piece in f.pieces(whole, (16,)):
        packet = f.ipv6(
            STRANGER6, victim.ip6, f.FRAGMENT, f.fragment6(f.UDP, offset, offset == 0, piece)
        )
        yield case(f"the IPv6 fragment at {offset} of a stranger", node.packet(packet))
    yield case(
        "a stranger with a priority tag", f.tagged(node.packet(_udp4(STRANGER4, victim.ip4)), 0)
    )
    yield case("a TCP handshake of a stranger", *_syns(node))


def _syns(node: GuardedNode) -> Iterator[bytes]:
    for source, target in ((STRANGER4, node.victim.ip4), (STRANGER6, node.victim.ip6)):
        body = f.tcp_syn(source, target, (1, 80))
        make = f.ipv4 if len(source) == 4 else f.ipv6
        yield node.packet(make(source, target, f.TCP, body))


def unspecified(node: GuardedNode) -> Iterator[Case]:
    discover = _udp4(bytes(4), b"\xff" * 4, (68, 67))
    probe = f.solicitation(bytes(16), ALL_NODES, node.victim.ip6, node.attacker.mac)
    for name, packet, to in (
        ("a DHCP client", discover, BROADCAST),
        ("a duplicate address probe", f.ipv6(bytes(16), ALL_NODES, f.ICMP6, probe), ALL_NODES_MAC),
    ):
        yield Case(name=name, reason="unspecified", frames=(node.packet(packet, to=to),))


def martian(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    for target in (bytes((127, 0, 0, 1)), bytes((127, 77, 1, 2)), bytes(4)):
        yield Case(
            name=f"sent to {'.'.join(map(str, target))}",
            reason="martian",
            frames=(node.packet(_udp4(me.ip4, target)),),
        )
    for name, target, kernel in (
        ("sent to an IPv4-mapped address", MAPPED + NODE4, False),
        ("sent to ::", bytes(16), False),
        ("sent to ::1", bytes(15) + b"\x01", True),
    ):
        syn = f.ipv6(me.ip6, target, f.TCP, f.tcp_syn(me.ip6, target, (1, 80)))
        for by, packet in (("UDP", _udp6(me.ip6, target)), ("TCP", syn)):
            frames = (node.packet(packet),)
            yield Case(name=f"{by} {name}", reason="martian", frames=frames, kernel=kernel)


def options(node: GuardedNode) -> Iterator[Case]:
    me, victim = node.attacker, node.victim
    via4 = bytes((131, 7, 4)) + victim.ip4
    for name, option in (
        ("loose source route", via4),
        ("strict source route", b"\x89" + via4[1:]),
        ("record route", b"\x07" + via4[1:]),
        ("timestamp", bytes((68, 8, 5, 0)) + bytes(4)),
        ("no operation", b"\x01\x01\x01\x01"),
        ("router alert before a source route", b"\x94\x04\0\0" + via4),
    ):
        packet = _udp4(me.ip4, NODE4, options=option)
        yield Case(name=name, reason="options", frames=(node.packet(packet),))
    inner = f.udp(me.ip6, victim.ip6, (7, 7))
    plain = f.routing(f.UDP, victim.ip6) + inner
    for name, following, payload in (
        ("routing header", f.ROUTING, plain),
        ("segment routing header", f.ROUTING, f.routing(f.UDP, victim.ip6, 4) + inner),
        ("routing header after options", f.OPTIONS, f.extension(f.ROUTING) + plain),
        ("routing header after hop-by-hop", f.HOP, f.extension(f.ROUTING) + plain),
    ):
        packet = f.ipv6(me.ip6, NODE6, following, payload)
        yield Case(name=name, reason="options", frames=(node.packet(packet),))


def routers(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    plain = f.advertisement(me.local, ALL_NODES, me.mac, PREFIX)
    direct = f.advertisement(me.local, GATEWAY6, me.mac, PREFIX)
    both = f.extension(f.OPTIONS) + f.extension(f.ICMP6)
    for name, target, following, payload in (
        ("router advertisement", ALL_NODES, f.ICMP6, plain),
        ("router advertisement to the node alone", GATEWAY6, f.ICMP6, direct),
        ("router advertisement behind hop-by-hop", ALL_NODES, f.HOP, f.extension(f.ICMP6) + plain),
        ("router advertisement behind options", ALL_NODES, f.OPTIONS, f.extension(f.ICMP6) + plain),
        ("router advertisement behind both", ALL_NODES, f.HOP, both + plain),
        ("router advertisement behind many", ALL_NODES, f.OPTIONS, _many(plain)),
        (
            "router solicitation",
            ALL_ROUTERS,
            f.ICMP6,
            f.icmp6(me.local, ALL_ROUTERS, 133, bytes(4)),
        ),
    ):
        packet = f.ipv6(me.local, target, following, payload)
        to = HOST_MAC if target == GATEWAY6 else ALL_NODES_MAC
        yield Case(name=name, reason="advertisements", frames=(node.packet(packet, to=to),))
    tagged = f.tagged(node.packet(f.ipv6(me.local, GATEWAY6, f.ICMP6, direct)), 0)
    yield Case(name="router advertisement, tagged", reason="advertisements", frames=(tagged,))
    for kind in (9, 10):
        packet = f.ipv4(me.ip4, NODE4, f.ICMP, f.icmp(kind, 0, b"\x01\x02\x07\x08" + me.ip4))
        yield Case(
            name=f"ICMP router discovery {kind}",
            reason="advertisements",
            frames=(node.packet(packet),),
        )
    old = f.ipv4(NODE4, OUTSIDE4, f.UDP, bytes(8))
    packet = f.ipv4(me.ip4, NODE4, f.ICMP, f.icmp(5, 1, me.ip4 + old))
    yield Case(name="ICMP redirect", reason="redirects", frames=(node.packet(packet),))
    for source in (me.local, me.ip6):
        body = f.redirect6(source, NODE6, me.local, OUTSIDE6)
        packet = f.ipv6(source, NODE6, f.ICMP6, body)
        yield Case(
            name=f"ICMPv6 redirect from {source.hex()[:4]}",
            reason="redirects",
            frames=(node.packet(packet),),
        )
    for kind in (0, 100, 127, 130, 138, 139, 140, 141, 142, 144, 148, 151, 153, 155, 200, 255):
        packet = f.ipv6(me.local, ALL_NODES, f.ICMP6, f.icmp6(me.local, ALL_NODES, kind, bytes(20)))
        yield Case(
            name=f"ICMPv6 of type {kind}",
            reason="icmp6",
            frames=(node.packet(packet, to=ALL_NODES_MAC),),
        )


def _many(payload: bytes) -> bytes:
    return f.extension(f.OPTIONS) * 6 + f.extension(f.ICMP6) + payload


def neighbours(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    for name, source, about in (
        ("the gateway", me.local, GATEWAY6),
        ("the other pod", me.local, node.victim.ip6),
        ("the node", me.ip6, NODE6),
        ("a stranger", me.ip6, STRANGER6),
        ("its own address at another hardware address", me.ip6, me.ip6),
    ):
        for target, to in ((GATEWAY6, HOST_MAC), (ALL_NODES, ALL_NODES_MAC)):
            body = f.neighbour(source, target, about, STRANGER_MAC)
            packet = node.packet(f.ipv6(source, target, f.ICMP6, body), to=to)
            yield Case(
                name=f"advertises {name} to {target.hex()[:4]}",
                reason="neighbours",
                frames=(packet,),
            )


def dhcp(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    for name, target, to in (
        ("the node", NODE4, HOST_MAC),
        ("the other pod", node.victim.ip4, HOST_MAC),
        ("everybody", b"\xff" * 4, BROADCAST),
    ):
        packet = node.packet(_udp4(me.ip4, target, (67, 68)), to=to)
        yield Case(name=f"DHCP offer to {name}", reason="dhcp", frames=(packet,))
        piece = f.udp(me.ip4, target, (67, 68), bytes(24))[:16]
        first = f.ipv4(me.ip4, target, f.UDP, piece, fragment=0x2000)
        yield Case(
            name=f"DHCP offer in fragments to {name}",
            reason="dhcp",
            frames=(node.packet(first, to=to),),
        )
    for target in (NODE6, node.victim.ip6):
        packet = node.packet(_udp6(me.ip6, target, (547, 546)))
        yield Case(name=f"DHCPv6 to {target.hex()}", reason="dhcp", frames=(packet,))


def fragments(node: GuardedNode) -> Iterator[Case]:
    me, victim = node.attacker, node.victim

    def case(name: str, source: bytes, target: bytes, *wanted: bytes) -> Case:
        to = ALL_NODES_MAC if target[0] == 0xFF else HOST_MAC
        packets = (node.packet(f.ipv6(source, target, f.FRAGMENT, each), to=to) for each in wanted)
        return Case(name=name, reason="fragments", frames=tuple(packets))

    for kind in (f.HOP, f.ROUTING, f.FRAGMENT, f.AUTHENTICATION, f.OPTIONS):
        later = f.fragment6(kind, 8, False, bytes(8))
        yield case(f"a later fragment that goes on with {kind}", me.ip6, victim.ip6, later)
    for name, source, target in (
        ("from a link-local address", me.local, NODE6),
        ("to a link-local address", me.ip6, GATEWAY6),
        ("to a multicast address", me.ip6, ALL_NODES),
    ):
        yield case(f"a fragment {name}", source, target, f.fragment6(f.UDP, 8, False, bytes(8)))
    # the header of the advertisement comes with the second piece, behind options in the first
    plain = f.advertisement(me.local, ALL_NODES, me.mac, PREFIX)
    hidden = [
        f.fragment6(f.OPTIONS, offset, offset == 0, piece)
        for offset, piece in f.pieces(f.extension(f.ICMP6) + plain, (8,))
    ]
    yield case("an advertisement whose header is in the second", me.local, ALL_NODES, *hidden)
    whole = [
        f.fragment6(f.ICMP6, offset, offset == 0, piece) for offset, piece in f.pieces(plain, (16,))
    ]
    yield case("an advertisement in two", me.local, ALL_NODES, *whole)
    yield case(
        "an advertisement in one", me.local, ALL_NODES, f.fragment6(f.ICMP6, 0, False, plain)
    )
    for name, body in (
        ("neighbour advertisement", f.neighbour(me.ip6, NODE6, GATEWAY6, STRANGER_MAC)),
        ("solicitation", f.solicitation(me.ip6, NODE6, NODE6, me.mac)),
        ("error", f.icmp6(me.ip6, NODE6, 1, bytes(28))),
    ):
        yield case(
            f"a first fragment with a {name}",
            me.ip6,
            NODE6,
            f.fragment6(f.ICMP6, 0, True, body[:24]),
        )
    short = f.fragment6(f.UDP, 0, True, bytes((0, 7, 0, 7)))
    yield case("a first fragment without the whole upper header", me.ip6, victim.ip6, short)


def others(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    endless = bytes((f.OPTIONS, 200)) + bytes(30)  # options of 1,608 octets in a packet of 32
    packet = f.ipv6(me.ip6, node.victim.ip6, f.OPTIONS, endless)
    yield Case(name="options that never end", reason="malformed", frames=(node.packet(packet),))
    for name, protocol, body in (
        ("UDP", f.UDP, f.udp(me.local, GATEWAY6, (7, 7))),
        ("TCP", f.TCP, f.tcp_syn(me.local, GATEWAY6, (7, 80))),
        ("something unknown", 253, bytes(16)),
    ):
        packet = f.ipv6(me.local, GATEWAY6, protocol, body)
        yield Case(
            name=f"{name} from a link-local address",
            reason="link-local",
            frames=(node.packet(packet),),
        )
    inner4 = _udp4(STRANGER4, NODE4)
    inner6 = _udp6(STRANGER6, NODE6)
    for name, protocol, inner in (
        ("IPv4", f.IPIP, inner4),
        ("IPv6", f.SIT, inner6),
        ("GRE", f.GRE, b"\0\0\x08\0" + inner4),
    ):
        wanted = (
            f.ipv4(me.ip4, NODE4, protocol, inner),
            f.ipv6(me.ip6, NODE6, protocol, inner),
        )
        yield Case(
            name=f"{name} in a tunnel to the node",
            reason="tunnels",
            frames=tuple(map(node.packet, wanted)),
            eye="input",
        )


def arp(node: GuardedNode) -> Iterator[Case]:
    me, victim = node.attacker, node.victim
    for name, operation, sender, target in (
        ("asks for the gateway", 1, me.ip4, bytes((169, 254, 1, 1))),
        ("asks as the other pod", 1, victim.ip4, NODE4),
        ("announces the other pod", 1, victim.ip4, victim.ip4),
        ("claims the node's address", 2, NODE4, NODE4),
        ("answers for the outside", 2, OUTSIDE4, NODE4),
    ):
        body = f.arp(operation, me.mac, sender, bytes(6), target)
        for to in (BROADCAST, HOST_MAC):
            frame = f.ether(to, me.mac, f.ARP, body)
            yield Case(name=f"{name} ({to.hex()})", reason="arp", frames=(frame,), eye="arp")


def forwarded(node: GuardedNode) -> Iterator[Case]:
    me = node.attacker
    for version, unrouted, nowhere in ((4, UNROUTED4, NOWHERE4), (6, UNROUTED6, NOWHERE6)):
        make, source = (_udp4, me.ip4) if version == 4 else (_udp6, me.ip6)
        for reason, target in (("unknown", unrouted), ("gone", nowhere)):
            yield Case(
                name=f"IPv{version} for an address that is {reason}",
                reason=reason,
                frames=(node.packet(make(source, target)),),
                eye="forwarded",
            )


def invalid(node: GuardedNode) -> Iterator[Case]:
    """What no connection is made of is not translated, and must not leave under the pod's name."""
    me = node.attacker

    def case(name: str, source: bytes, protocol: int, body: bytes) -> Case:
        target = OUTSIDE4 if len(source) == 4 else OUTSIDE6
        make = f.ipv4 if len(source) == 4 else f.ipv6
        packet = node.packet(make(source, target, protocol, body))
        return Case(name=name, reason="invalid", frames=(packet,), eye="outside")

    for source, target in ((me.ip4, OUTSIDE4), (me.ip6, OUTSIDE6)):
        version = 4 if len(source) == 4 else 6
        for name, flags in (("no flags", 0), ("SYN and FIN", 3), ("RST", 4), ("SYN and ACK", 18)):
            segment = f.tcp(source, target, (5, 80), flags)
            yield case(f"TCP with {name}, IPv{version}", source, f.TCP, segment)
        wrong = f.udp(source, target, (7, 7))[:6] + b"\x12\x34weft"
        yield case(f"UDP with a wrong checksum, IPv{version}", source, f.UDP, wrong)
    yield case("ICMP echo reply that nobody asked for", me.ip4, f.ICMP, f.icmp(0, 0, bytes(8)))
    reply = f.icmp6(me.ip6, OUTSIDE6, 129, bytes(4))
    yield case("ICMPv6 echo reply that nobody asked for", me.ip6, f.ICMP6, reply)
