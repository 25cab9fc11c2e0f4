"""Nothing that a container may not say passes its port of a bridge, whosesoever the bridge is.

         attacker                  victim
          eth0 (raw socket)         eth0 (tap)
            |                         |
          wf... or veth-theirs      veth-victim, not guarded
        +---------------- br0 ----------------+
        | ours: -300 prerouting               |
        +-------------------------------------+

The bridge floods what it has not learnt, so whatever our rules let through comes out at the victim.
Each rule is then taken away alone, and something must come through.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Iterator

import frames as f
import guard_cases
import msgspec
import pytest
from guard_cases import STRANGER4, STRANGER6, STRANGER_MAC, Case
from guarded_node import (
    ALL_NODES,
    ALL_NODES_MAC,
    BROADCAST,
    MARKER,
    PLAN,
    Pod,
    promise,
    run,
    tap,
    write,
)
from namespace_fixture import new_namespace, on_a_node

from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.kernel.namespaces import entered
from weft.model.attachment import HOST_MAC, LIVE_GROUP
from weft.render import bridge_guards
from weft.render.ruleset import node_rows
from weft.rows.base import Row
from weft.rows.rules import Chain, Family, Table, Verdict

# as on somebody else's bridge: its containers' addresses are none of ours
THEIRS = msgspec.structs.replace(PLAN, pools=(), blocks=())
GATEWAY4 = bytes((10, 244, 7, 1))
SHARED = (
    guard_cases.spoofed,
    guard_cases.unspecified,
    guard_cases.martian,
    guard_cases.options,
    guard_cases.routers,
    guard_cases.dhcp,
    guard_cases.fragments,
)
SHARED_OTHERS = ("options that never end", "UDP from", "TCP from", "something unknown from")

# the last rule of a chain refuses the same, under a reason that says less
BEHIND_OTHERS = {
    ("unlisted", "unspecified"),
    ("unlisted", "spoofed"),
    ("icmp6", "advertisements"),
    ("icmp6", "redirects"),
}


class Segment:
    """A bridge with a guarded port and one that is not."""

    def __init__(self, port: str = "veth-theirs", *, netfilter: bool = True) -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.rules = RulesTransport()
        self.engine = Engine(Host(self.rules), all_drivers(self.rules))
        self.engine.apply("node", node_rows(THEIRS))
        for name in ("iptables", "ip6tables", "arptables"):
            write([f"net/bridge/bridge-nf-call-{name}={netfilter:d}"])
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._up("br0")
        self.port = port
        self.victim = self._join("victim", 6, "veth-victim")
        self.attacker = self._join("attacker", 5, port)
        self.guard(True)

    def guard(self, on: bool) -> None:
        """List the attacker, or nobody."""
        me = self.attacker
        rows = bridge_guards.elements(self.port, me.mac, [me.ip4, me.ip6], me.local)
        self.engine.apply("attacker", rows if on else ())

    def _join(self, name: str, number: int, port: str) -> Pod:
        fd = new_namespace()
        promised = promise(name, number)
        where = f"/proc/{os.getpid()}/fd/{fd}"
        run("ip", "link", "add", port, "address", HOST_MAC.hex(":"), "type", "veth", "peer",
            "name", "eth0", "address", promised.mac.hex(":"), "netns", where)  # fmt: skip
        run("ip", "link", "set", port, "master", "br0")
        self._up(port)
        with entered(fd):
            self._up("eth0")
        return Pod(attachment=promised, fd=fd, raw=tap(fd, "eth0"))

    def _up(self, link: str) -> None:
        """Without a word of its own kernel's."""
        write([f"net/ipv6/conf/{link}/disable_ipv6=1"])
        run("ip", "link", "set", link, "up")

    def packet(self, packet: bytes, *, mac: bytes | None = None, to: bytes = HOST_MAC) -> bytes:
        """An IP packet as a frame of the attacker's, for the victim where it is for nobody."""
        kind = f.IPV4 if packet[0] >> 4 == 4 else f.IPV6
        to = self.victim.mac if to == HOST_MAC else to
        return f.ether(to, mac if mac is not None else self.attacker.mac, kind, packet)

    def seen(self, wanted: Iterable[bytes]) -> tuple[list[bytes], dict[str, int]]:
        """Send frames; those that came out at the victim, and what was dropped, by reason."""
        while select.select([self.victim.raw], [], [], 0)[0]:
            self.victim.raw.recv(65_536)
        before = self.rules.counters("weft")
        me, to = self.attacker, self.victim
        marker = f.ipv4(me.ip4, to.ip4, f.UDP, f.udp(me.ip4, to.ip4, (9, 9), MARKER))
        for frame in (*wanted, self.packet(marker)):
            me.raw.send(frame)
        found: list[bytes] = []
        while not found or MARKER not in found[-1]:
            assert select.select([to.raw], [], [], 10)[0], "honest traffic is stopped"
            frame, (_, _, kind, _, _) = to.raw.recvfrom(65_536)
            if kind != socket.PACKET_OUTGOING:
                found.append(frame)
        dropped = {
            name.removeprefix("drop-"): figures[0] - before[name][0]
            for name, figures in self.rules.counters("weft").items()
        }
        return found[:-1], {reason: count for reason, count in dropped.items() if count}


def forged(segment: Segment) -> Iterator[Case]:
    """What must not pass."""
    for group in SHARED:
        for case in group(segment):  # type: ignore[arg-type]  # what it asks of a node is here
            if "tagged" in case.name or "tag" in case.name.split():
                yield msgspec.structs.replace(case, reason="frames")
            else:
                yield case
    for case in guard_cases.others(segment):  # type: ignore[arg-type]
        if case.name.startswith(SHARED_OTHERS):
            yield case
    yield from forged_arp(segment)
    yield from forged_neighbours(segment)
    me = segment.attacker
    # a bridge asks no packet for its length, as the IP layer does before any rule
    syn = f.ipv6(me.ip6, segment.victim.ip6, f.TCP, f.tcp_syn(me.ip6, segment.victim.ip6, (7, 80)))
    longer = segment.packet(syn[:4] + b"\x05\xdc" + syn[6:])
    yield Case(name="TCP longer than its packet", reason="malformed", frames=(longer,))
    for kind in (0x88CC, 0x8847, 0x8863, 0x0027, 0x9000):
        frame = f.ether(segment.victim.mac, me.mac, kind, bytes(46))
        yield Case(name=f"a frame of type {kind:#x}", reason="frames", frames=(frame,))
    honest = f.ipv4(me.ip4, segment.victim.ip4, f.UDP, f.udp(me.ip4, segment.victim.ip4, (7, 7)))
    frame = f.tagged(segment.packet(honest), 7)
    yield Case(name="its own packet in a VLAN", reason="frames", frames=(frame,))


def forged_arp(segment: Segment) -> Iterator[Case]:
    me, victim = segment.attacker, segment.victim
    for name, outer, told, source, target in (
        ("claims the victim's address", me.mac, me.mac, victim.ip4, GATEWAY4),
        ("claims the gateway's address", me.mac, me.mac, GATEWAY4, victim.ip4),
        ("announces a stranger", me.mac, me.mac, STRANGER4, STRANGER4),
        ("tells another hardware address", me.mac, STRANGER_MAC, me.ip4, victim.ip4),
        ("tells the victim's hardware address", me.mac, victim.mac, me.ip4, victim.ip4),
        ("from another hardware address", STRANGER_MAC, me.mac, me.ip4, victim.ip4),
        ("probes for the victim's address", me.mac, me.mac, bytes(4), victim.ip4),
        ("probes as somebody else", me.mac, STRANGER_MAC, bytes(4), me.ip4),
    ):
        for operation in (1, 2):
            body = f.arp(operation, told, source, bytes(6), target)
            frame = f.ether(BROADCAST, outer, f.ARP, body)
            yield Case(name=f"ARP {operation} {name}", reason="arp", frames=(frame,))
    right = f.arp(1, me.mac, me.ip4, bytes(6), victim.ip4)
    for name, body in (
        ("operation 3", f.arp(3, me.mac, me.ip4, bytes(6), victim.ip4)),
        ("operation 9", f.arp(9, me.mac, me.ip4, bytes(6), victim.ip4)),
        ("another link type", b"\0\6" + right[2:]),
        ("another protocol", right[:2] + b"\x86\xdd" + right[4:]),
        ("long hardware addresses", right[:4] + b"\x08" + right[5:]),
        ("long protocol addresses", right[:5] + b"\x10" + right[6:]),
    ):
        frame = f.ether(BROADCAST, me.mac, f.ARP, body)
        yield Case(name=f"ARP with {name}", reason="arp", frames=(frame,))


def forged_neighbours(segment: Segment) -> Iterator[Case]:
    me, victim = segment.attacker, segment.victim
    flags = b"\x20\0\0\0"
    own, other = b"\x02\x01" + me.mac, b"\x02\x01" + STRANGER_MAC
    nonce = b"\x0e\x01" + bytes(6)

    def case(name: str, source: bytes, kind: int, rest: bytes, mac: bytes = me.mac) -> Case:
        packet = f.ipv6(source, ALL_NODES, f.ICMP6, f.icmp6(source, ALL_NODES, kind, rest))
        frame = segment.packet(packet, mac=mac, to=ALL_NODES_MAC)
        return Case(name=name, reason="neighbours", frames=(frame,))

    for name, about in (("the victim", victim.ip6), ("a stranger", STRANGER6)):
        yield case(f"advertises {name}", me.ip6, 136, flags + about + own)
        yield case(f"advertises {name} without option", me.local, 136, flags + about)
        yield case(f"advertises {name} elsewhere", me.ip6, 136, flags + about + other)
    yield case("advertises its own, elsewhere", me.ip6, 136, flags + me.ip6 + other)
    yield case("advertises its own, with a nonce", me.ip6, 136, flags + me.ip6 + nonce + other)
    source = b"\x01\x01" + STRANGER_MAC
    yield case("solicits as of elsewhere", me.ip6, 135, bytes(4) + victim.ip6 + source)
    yield case("solicits behind a nonce", me.ip6, 135, bytes(4) + victim.ip6 + nonce + source)
    yield case("probes and tells", bytes(16), 135, bytes(4) + me.ip6 + b"\x01\x01" + me.mac)


def honest(segment: Segment) -> Iterator[tuple[str, bytes]]:
    """What must pass."""
    me, victim = segment.attacker, segment.victim
    yield (
        "IPv4",
        segment.packet(f.ipv4(me.ip4, victim.ip4, f.UDP, f.udp(me.ip4, victim.ip4, (7, 7)))),
    )
    group, group_mac = bytes((239, 1, 2, 3)), bytes.fromhex("01005e010203")
    for to, mac in ((b"\xff" * 4, BROADCAST), (group, group_mac)):
        packet = f.ipv4(me.ip4, to, f.UDP, f.udp(me.ip4, to, (7, 7)))
        yield f"IPv4 to {to.hex()}", segment.packet(packet, to=mac)
    for name, source, to in (("IPv6", me.ip6, victim.ip6), ("link-local", me.local, victim.local)):
        body = f.icmp6(source, to, 128, bytes(8))
        yield name, segment.packet(f.ipv6(source, to, f.ICMP6, body))
    for name, operation, source, target in (
        ("asks", 1, me.ip4, victim.ip4),
        ("answers", 2, me.ip4, victim.ip4),
        ("announces", 1, me.ip4, me.ip4),
        ("probes", 1, bytes(4), me.ip4),
    ):
        body = f.arp(operation, me.mac, source, bytes(6), target)
        yield f"ARP {name}", f.ether(BROADCAST, me.mac, f.ARP, body)
    flags = b"\x20\0\0\0"
    for name, source, kind, rest in (
        ("solicits", me.ip6, 135, bytes(4) + victim.ip6 + b"\x01\x01" + me.mac),
        ("solicits without option", me.local, 135, bytes(4) + victim.local),
        ("probes", bytes(16), 135, bytes(4) + me.ip6),
        ("probes with a nonce", bytes(16), 135, bytes(4) + me.local + b"\x0e\x01" + bytes(6)),
        ("advertises", me.ip6, 136, flags + me.ip6 + b"\x02\x01" + me.mac),
        ("advertises without option", me.ip6, 136, flags + me.ip6),
        ("advertises its link-local", me.local, 136, flags + me.local + b"\x02\x01" + me.mac),
        ("joins a group", me.local, 143, bytes(24)),
    ):
        packet = f.ipv6(source, ALL_NODES, f.ICMP6, f.icmp6(source, ALL_NODES, kind, rest))
        yield name, segment.packet(packet, to=ALL_NODES_MAC)


@on_a_node
@pytest.mark.parametrize("netfilter", [True, False])
def test_nothing_forged_passes_the_port_and_each_is_counted_under_its_reason(
    netfilter: bool,
) -> None:
    segment = Segment(netfilter=netfilter)
    wrong = []
    for case in forged(segment):
        passed, dropped = segment.seen(case.frames)
        if passed or dropped != {case.reason: len(case.frames)}:
            wrong.append((case.name, len(passed), dropped))
    assert not wrong, wrong


@on_a_node
@pytest.mark.parametrize("netfilter", [True, False])
def test_what_is_a_containers_own_passes(netfilter: bool) -> None:
    segment = Segment(netfilter=netfilter)
    for name, frame in honest(segment):
        assert segment.seen([frame]) == ([frame], {}), name


def _refusing(rows: Iterable[Row]) -> Iterator[tuple[Chain, int, str]]:
    for row in rows:
        if isinstance(row, Chain) and row.family is Family.BRIDGE:
            for place, rule in enumerate(row.rules):
                last = rule[-1]
                if isinstance(last, Verdict) and (last.chain or "").startswith("drop-"):
                    yield row, place, (last.chain or "").removeprefix("drop-")


@on_a_node
def test_without_any_one_rule_something_forged_passes() -> None:
    segment = Segment(netfilter=False)  # it holds fragments back until all have come
    rows = node_rows(THEIRS)
    everything = list(forged(segment))
    behind = set()
    for chain, place, reason in _refusing(rows):
        if reason == "bridged":
            continue  # asked of other links; see below
        weaker = msgspec.structs.replace(
            chain, rules=chain.rules[:place] + chain.rules[place + 1 :]
        )
        segment.engine.apply("node", [weaker if r.key == weaker.key else r for r in rows])
        mine = [case for case in everything if case.reason == reason]
        assert any(
            segment.seen(case.frames) != ([], {reason: len(case.frames)}) for case in mine
        ), (chain.name, place, reason)
        if not any(segment.seen(case.frames)[0] for case in mine):
            behind.add((chain.name, reason))
        segment.engine.apply("node", rows)
    assert behind == BEHIND_OTHERS


@on_a_node
def test_an_unlisted_port_of_somebody_elses_bridge_is_left_alone() -> None:
    segment = Segment()
    segment.guard(False)
    frames = [frame for case in forged_arp(segment) for frame in case.frames]
    assert segment.seen(frames) == (frames, {})


@on_a_node
@pytest.mark.parametrize("named", [True, False])
def test_a_containers_routed_link_in_a_bridge_gets_nothing_through(named: bool) -> None:
    segment = Segment("wfaaaaaaaaaaaaa" if named else "renamed")
    segment.guard(False)
    frames = [frame for _, frame in honest(segment)]
    assert segment.seen(frames) == (frames, {}), "it is nobody's yet"
    run("ip", "link", "set", segment.port, "group", str(LIVE_GROUP))
    for frame in frames:
        segment.attacker.raw.send(frame)
    run("ip", "link", "set", segment.port, "group", "0")
    passed, dropped = segment.seen([])
    assert (passed, dropped) == ([], {})
    assert segment.rules.counters("weft")["drop-bridged"][0] == len(frames)


@on_a_node
def test_a_kernel_without_rules_for_bridges_gets_the_others() -> None:
    rules = RulesTransport()
    assert rules.why_no_bridge() == ""
    plan = msgspec.structs.replace(THEIRS, bridges=False)
    engine = Engine(Host(rules), all_drivers(rules))
    engine.apply("node", node_rows(plan))
    families = [row.family for row in rules.standing("weft") if isinstance(row, Table)]
    assert families == [Family.INET, Family.ARP]
