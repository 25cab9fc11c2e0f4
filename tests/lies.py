"""Forged frames of a pod, and the places where one that got through would be heard.

Each frame carries a mark, so that every ear tells what it heard. The honest frame is made the
same way: where it arrives, silence about the others means a guard and not a broken path, and as
frames keep their order, everything sent before it would have arrived before it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address

import msgspec

from acceptance import Host
from weft.lab import entering, frames, truth
from weft.lab.ears import Ear, nonce
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses

HOST_MAC = "0a:77:65:66:74:00"
ALL_NODES_MAC = "33:33:00:00:00:01"
STRANGE_MAC = "02:00:00:66:66:66"
STRANGERS = ("203.0.113.9", "2001:db8:bad::9")
PORTS = (40001, 40002)
NODE4, NODE6 = node_addresses(0)
FIRST, LAST = 0x2000, 0x0008  # more to come at offset 0, and the rest at offset 64


class Liar(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that forges: its name, hardware address and own addresses."""

    name: str
    mac: str
    ip4: str
    ip6: str


Lie = tuple[str, bytes, bytes]  # what is claimed, the mark, the frame


def _packet(source: str, goal: str, mark: bytes, mac: str) -> bytes:
    packet = frames.packet(source, goal, PORTS, mark)
    return frames.ethernet(HOST_MAC, mac, frames.kind_of(source), packet)


def honest(me: Liar, goal: str, mark: bytes) -> bytes:
    """A frame against which nothing can be said."""
    return _packet(me.ip6 if ":" in goal else me.ip4, goal, mark, me.mac)


def lies(me: Liar, victim: Liar) -> Iterator[Lie]:
    """Everything a pod can say of itself, of another pod and of the node that is not so."""
    yield from _addresses(me, victim)
    yield from _hardware(me, victim)
    yield from _fragments(me, victim)
    yield from _arp(me, victim)
    yield from _discovery(me, victim)
    yield from _dhcp(me, victim)


def _addresses(me: Liar, victim: Liar) -> Iterator[Lie]:
    four = (victim.ip4, NODE4, OUTSIDE_V4, STRANGERS[0], "127.0.0.1", "0.0.0.0", "169.254.1.1")
    six = (victim.ip6, NODE6, OUTSIDE_V6, STRANGERS[1], "::1", "::", "fe80::1", "fe80::bad")
    for goals, sources in (
        ((victim.ip4, OUTSIDE_V4, NODE4), four),
        ((victim.ip6, OUTSIDE_V6, NODE6), six),
    ):
        for goal in goals:
            for source in sources:
                if source != goal:
                    mark = nonce()
                    yield f"{source} to {goal}", mark, _packet(source, goal, mark, me.mac)


def _hardware(me: Liar, victim: Liar) -> Iterator[Lie]:
    for mac in (victim.mac, HOST_MAC, STRANGE_MAC):
        for goal in (victim.ip4, victim.ip6, OUTSIDE_V4, OUTSIDE_V6):
            mark = nonce()
            own = me.ip6 if ":" in goal else me.ip4
            yield f"MAC {mac} to {goal}", mark, _packet(own, goal, mark, mac)


def _fragments(me: Liar, victim: Liar) -> Iterator[Lie]:
    for source, goal in (
        (STRANGERS[0], victim.ip4),
        (NODE4, victim.ip4),
        (victim.ip4, OUTSIDE_V4),
        (STRANGERS[1], victim.ip6),
        (NODE6, victim.ip6),
        (victim.ip6, OUTSIDE_V6),
    ):
        for name, parts in (("both", (FIRST, LAST)), ("first", (FIRST,)), ("last", (LAST,))):
            mark = nonce()
            whole = frames.udp(source, goal, PORTS, mark.ljust(56, b"f") + mark.ljust(64, b"f"))
            for part in parts:
                body = whole[:64] if part == FIRST else whole[64:]
                ident = int.from_bytes(mark[-2:], "big")
                packet = frames.fragment(source, goal, body, part, ident)
                kind = frames.kind_of(source)
                yield (
                    f"fragments ({name}) from {source}",
                    mark,
                    frames.ethernet(HOST_MAC, me.mac, kind, packet),
                )


def _arp(me: Liar, victim: Liar) -> Iterator[Lie]:
    for claimed in (victim.ip4, NODE4, OUTSIDE_V4, "169.254.1.1"):
        for operation, hop in ((1, frames.BROADCAST), (2, HOST_MAC), (2, victim.mac)):
            mark = nonce()
            body = frames.arp(operation, (me.mac, claimed), (victim.mac, victim.ip4), mark)
            yield f"ARP {claimed}", mark, frames.ethernet(hop, me.mac, frames.ARP, body)


def _discovery(me: Liar, victim: Liar) -> Iterator[Lie]:
    def six(hop: str, packet: bytes) -> bytes:
        return frames.ethernet(hop, me.mac, frames.IPV6, packet)

    for claimed in (victim.ip6, NODE6, OUTSIDE_V6, "fe80::1"):
        for goal, hop in ((frames.ALL_NODES, ALL_NODES_MAC), (victim.ip6, HOST_MAC)):
            mark = nonce()
            packet = frames.neighbour_advertisement(claimed, goal, claimed, me.mac, mark)
            yield f"NA of {claimed}", mark, six(hop, packet)
    for source in ("fe80::bad", "fe80::1", me.ip6):
        mark = nonce()
        packet = frames.router_advertisement(source, me.mac, "2001:db8:bad::", mark)
        yield f"RA from {source}", mark, six(ALL_NODES_MAC, packet)
        mark = nonce()
        packet = frames.redirect(source, victim.ip6, me.ip6, OUTSIDE_V6, mark)
        yield f"redirect from {source}", mark, six(HOST_MAC, packet)


def _dhcp(me: Liar, victim: Liar) -> Iterator[Lie]:
    for goal, hop in (("255.255.255.255", frames.BROADCAST), (victim.ip4, HOST_MAC)):
        mark = nonce()
        packet = frames.packet(me.ip4, goal, (67, 68), mark.rjust(300, b"\2"))
        yield "DHCP", mark, frames.ethernet(hop, me.mac, frames.IPV4, packet)
    mark = nonce()
    packet = frames.packet(me.ip6, frames.ALL_NODES, (547, 546), b"\2" + mark)
    yield "DHCPv6", mark, frames.ethernet(ALL_NODES_MAC, me.mac, frames.IPV6, packet)


def random_lie(me: Liar, victim: Liar, dice: random.Random) -> Lie:
    """A frame with at least one thing in it that is not the pod's."""
    mark = nonce()
    six = dice.random() < 0.5
    source = str(IPv6Address(dice.getrandbits(128))) if six else _any4(dice)
    if dice.random() < 0.3:
        source = victim.ip6 if six else victim.ip4
    goal = dice.choice((victim.ip6, OUTSIDE_V6, NODE6) if six else (victim.ip4, OUTSIDE_V4, NODE4))
    own = f"02{dice.getrandbits(40):010x}"
    mac = me.mac if dice.random() < 0.7 else ":".join(own[n : n + 2] for n in range(0, 12, 2))
    frame = bytearray(_packet(source, goal, mark, mac))
    if dice.random() < 0.2:
        frame[12:14] = dice.randbytes(2)
    if dice.random() < 0.2:
        frame[14 + dice.randrange(8)] = dice.randrange(256)
    if dice.random() < 0.1:
        frame[0:6] = b"\xff" * 6
    return f"random frame from {source}, {mac}", mark, bytes(frame)


def _any4(dice: random.Random) -> str:
    return ".".join(str(dice.randrange(256)) for _ in range(4))


class Ears:
    """Ears in every other pod, at the outside host, and on the node's uplink as frames leave."""

    def __init__(self, host: Host, listeners: Collection[Liar]) -> None:
        self._stack = ExitStack()
        self.ears = {
            liar.name: self._stack.enter_context(Ear(host.network(liar.name))) for liar in listeners
        }
        self.ears["outside"] = self._stack.enter_context(Ear(host.wires.outside.network))
        self.ears["uplink"] = self._stack.enter_context(
            Ear(host.node.network, "eth0", outgoing=True)
        )

    def __enter__(self) -> Ears:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def drain(self, marks: Collection[bytes], deaf: Collection[str] = ()) -> set[tuple[str, bytes]]:
        """What was heard of the marks, and where; what was heard is then forgotten."""
        found = set()
        for name, ear in self.ears.items():
            if name not in deaf:
                found |= {(name, mark) for mark in ear.heard(marks)}
            ear.kept.clear()
        return found


def tables(host: Host) -> set[str]:
    """What a lie could change on the node: routes, permanent and learned neighbours, addresses."""
    seen = set()
    for (dev, address), mac in truth.neighbours(host.node.network).items():
        if dev.startswith("wf"):
            seen.add(f"{address} on {dev} at {mac}")
    for family in (4, 6):
        for route in truth.routes(host.node.network, family):
            seen.add(f"route {route['dst']} {route.get('gateway')} {route['dev']}")
    addresses = entering.output(host.node.network, ["ip", "-br", "addr", "show"])
    return seen | {line for line in addresses.splitlines() if not line.startswith("wf")}
