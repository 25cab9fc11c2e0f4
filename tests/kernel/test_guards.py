"""Nothing that a pod may not say comes out of its link, from the first moment on (T15, T29).

Proven where a packet would arrive: at the other pod's link, beyond the uplink, at the node's own
hooks behind ours, and by a node whose routes, addresses and neighbours stay what they were. Each
rule is then taken away alone, and something must come through: so the proof can fail.
"""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Iterable, Iterator

import frames as f
import msgspec
import pytest
from guard_cases import Case, cases
from guarded_node import (
    ALL_NODES,
    ALL_NODES_MAC,
    GATEWAY6,
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    UNROUTED4,
    GuardedNode,
    eyes,
    promise,
    rows_of,
    run,
    tap,
)
from namespace_fixture import new_namespace, on_a_node

from weft.drivers.links import renames_live
from weft.drivers.removal import delete_links
from weft.lab.haste import Hasty
from weft.model.attachment import HOST_MAC
from weft.render.ruleset import DROPS, node_rows
from weft.render.sets import LOCALNET, OUT
from weft.rows.base import Row
from weft.rows.rules import Chain, Family, Lookup, Verdict

NOTHING = {"passed": 0, "input": 0, "forwarded": 0, "arp": 0, "victim": 0, "outside": 0}

# Rules whose absence lets nothing through. The first stands behind a check that Linux makes before
# any hook; the others only give a reason of its own to what the last rule of their chain refuses.
ELSEWHERE = {"closed", "frames", "bridged"}  # at boot, and in the bridge family
BEHIND_OTHERS = {
    ("martian6", "martian"),
    ("unlisted", "unspecified"),
    ("icmp6", "neighbours"),
    ("icmp6", "advertisements"),
    ("icmp6", "redirects"),
}


def expected(case: Case) -> dict[str, int]:
    """What the eyes may see of a case: a hook before the one that drops it sees it pass."""
    count = len(case.frames)
    before = {"input": ("passed",), "forwarded": ("passed",), "outside": ("passed",)}
    before = before.get(case.eye, ())
    return {**NOTHING, **dict.fromkeys(before, count)}


def faults(node: GuardedNode, tried: Iterable[Case]) -> list[tuple[str, int, dict[str, int]]]:
    """Cases that were not stopped where and as they should be: name, drops counted, what passed."""
    found = []
    for case in tried:
        seen = node.watch(case.frames)
        counted = node.drops[case.reason]
        if seen != expected(case) or counted != (0 if case.kernel else len(case.frames)):
            found.append((case.name, counted, seen))
    return found


@on_a_node
def test_nothing_forbidden_passes_and_each_is_counted_under_its_reason() -> None:
    node = GuardedNode()
    state = node.state()
    wrong = faults(node, cases(node))
    assert not wrong, wrong
    assert node.state() == state


@on_a_node
def test_a_link_that_another_plugin_made_is_guarded_as_ours_are() -> None:
    node = GuardedNode(adopting=True)
    state = node.state()
    # its maker's end of the link has an address, for which it may ask
    wrong = faults(node, [each for each in cases(node) if "asks for the gateway" not in each.name])
    assert not wrong, wrong
    assert node.state() == state


@on_a_node
def test_without_the_rules_of_adopted_links_their_pods_are_not_guarded() -> None:
    node = GuardedNode(adopting=True)
    for name, first, last, reason in (("forward", 5, 7, "invalid"), ("from-pods", 1, 4, "spoofed")):
        weaker = _without(node, name, first, last)
        node.mutate(
            lambda rows, weaker=weaker: [weaker if row.key == weaker.key else row for row in rows]
        )
        assert faults(node, [case for case in cases(node) if case.reason == reason])
        node.mutate(lambda rows: rows)


def _without(node: GuardedNode, name: str, first: int, last: int) -> Chain:
    for row in node_rows(node.plan):
        if isinstance(row, Chain) and row.name == name:
            return msgspec.structs.replace(row, rules=row.rules[:first] + row.rules[last:])
    raise AssertionError(f"there is no chain {name}")


@on_a_node
def test_there_is_a_case_for_every_reason() -> None:
    node = GuardedNode()
    assert {case.reason for case in cases(node)} == set(DROPS) - ELSEWHERE


def refusing_rules(rows: Iterable[Row]) -> Iterator[tuple[Chain, int, str]]:
    """Every rule that leads to a drop: its chain, its place, the reason."""
    for row in rows:
        if not isinstance(row, Chain) or row.family is Family.BRIDGE:  # see test_bridge_guards
            continue
        for place, rule in enumerate(row.rules):
            last = rule[-1]
            if isinstance(last, Verdict) and (last.chain or "").startswith("drop-"):
                yield row, place, (last.chain or "").removeprefix("drop-")


@on_a_node
def test_without_any_one_rule_the_matching_case_fails() -> None:
    node = GuardedNode()
    everything = cases(node)
    unnoticed, stopped = [], set()
    for chain, place, reason in refusing_rules(node_rows(node.plan)):
        asked = {word.set for word in chain.rules[place] if isinstance(word, Lookup)}
        if not asked.isdisjoint((LOCALNET, *OUT.values())):
            continue  # about pods of adopted links: the next test
        rules = chain.rules[:place] + chain.rules[place + 1 :]
        weaker = msgspec.structs.replace(chain, rules=rules)
        node.mutate(
            lambda rows, weaker=weaker: [weaker if row.key == weaker.key else row for row in rows]
        )
        eyes = {case.name: case.eye for case in everything}
        wrong = faults(node, [case for case in everything if case.reason == reason])
        if not wrong:
            unnoticed.append((chain.name, place, reason))
        if not any(seen[eyes[name]] for name, _, seen in wrong):
            stopped.add((chain.name, reason))
        node.mutate(lambda rows: rows)
    assert unnoticed == [("martian6", 0, "martian")]
    assert stopped == BEHIND_OTHERS


@on_a_node
def test_without_the_rule_an_advertisement_would_teach_the_node_a_route() -> None:
    node = GuardedNode()
    state = node.state()
    (plain,) = (case for case in cases(node) if case.name == "router advertisement")
    node.watch(plain.frames)
    assert node.state() == state
    node.mutate(lambda rows: (_without_drop(row, "advertisements") for row in rows))
    node.watch(plain.frames)
    assert "default via " + _text(node.attacker.local) in node.state()


def _without_drop(row: Row, reason: str) -> Row:
    if isinstance(row, Chain) and row.name == f"drop-{reason}":
        return msgspec.structs.replace(row, rules=((Verdict(verdict="accept"),),))
    return row


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)


# -- random frames


class Dice:
    """Random frames, each of which breaks at least one rule; the same seed, the same frames."""

    def __init__(self, node: GuardedNode, seed: int) -> None:
        self.node = node
        self.random = random.Random(seed)

    def frame(self) -> bytes:
        roll = self.random.random()
        if roll < 0.1:
            return self._other_type()
        if roll < 0.2:
            return f.ether(self._target(), self._mac(), f.ARP, self._arp())
        return self._spoofed() if roll < 0.75 else self._forbidden()

    def octets(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def _mac(self) -> bytes:
        me = self.node.attacker.mac
        return self.random.choice((me, self.octets(6), self.node.victim.mac, HOST_MAC))

    def _target(self) -> bytes:
        return self.random.choice((HOST_MAC, b"\xff" * 6, ALL_NODES_MAC, self.octets(6)))

    def _other_type(self) -> bytes:
        kind = self.random.choice((0x8847, 0x88CC, 0x8863, 0x8864, self.random.randrange(0xA000)))
        kind = kind if kind not in (f.IPV4, f.IPV6, f.ARP, f.VLAN) else 0x9000
        return f.ether(
            self._target(), self._mac(), kind, self.octets(self.random.randrange(46, 200))
        )

    def _arp(self) -> bytes:
        return f.arp(
            self.random.randrange(1, 10),
            self._mac(),
            self.random.choice((self.octets(4), NODE4, self.node.victim.ip4)),
            self.octets(6),
            self.random.choice((self.octets(4), NODE4, self.node.attacker.ip4)),
        )

    def _spoofed(self) -> bytes:
        """A wrong IP source, a wrong hardware address, or both, and whatever else."""
        me, victim = self.node.attacker, self.node.victim
        four = self.random.random() < 0.5
        own = (me.ip4,) if four else (me.ip6, me.local)
        wrong = (
            (victim.ip4, NODE4, OUTSIDE4, self.octets(4), self.octets(4))
            if four
            else (victim.ip6, NODE6, victim.local, self.octets(16), b"\xfe\x80" + self.octets(14))
        )
        mac = self._mac()
        source = self.random.choice(wrong if mac == me.mac else (*wrong, *own))
        if mac == me.mac and source in own:
            source = wrong[0]
        packet = self._ipv4(source) if four else self._ipv6(source)
        frame = f.ether(self._target(), mac, f.IPV4 if four else f.IPV6, packet)
        return (
            frame if self.random.random() < 0.9 else f.tagged(frame, self.random.randrange(8) << 13)
        )

    def _ipv4(self, source: bytes) -> bytes:
        target = self.random.choice(
            (self.node.victim.ip4, NODE4, OUTSIDE4, b"\xff" * 4, self.octets(4))
        )
        protocol = self.random.choice(
            (f.UDP, f.TCP, f.ICMP, f.IPIP, f.SIT, self.random.randrange(256))
        )
        options = b"\x01" * 4 * self.random.choice((0, 0, 0, 1, 3))
        fragment = self.random.choice((0, 0, 0x2000, self.random.randrange(0x4000)))
        body = self.octets(self.random.randrange(8, 120))
        return f.ipv4(source, target, protocol, body, options=options, fragment=fragment)

    def _ipv6(self, source: bytes) -> bytes:
        target = self.random.choice(
            (self.node.victim.ip6, NODE6, OUTSIDE6, GATEWAY6, ALL_NODES, self.octets(16))
        )
        following, body = self._chain(
            self.random.choice((f.UDP, f.TCP, f.ICMP6, f.SIT, self.random.randrange(256)))
        )
        return f.ipv6(source, target, following, body, hops=self.random.choice((255, 64)))

    def _chain(self, protocol: int) -> tuple[int, bytes]:
        body = self.octets(self.random.randrange(8, 120))
        for _ in range(self.random.randrange(4)):
            match self.random.randrange(4):
                case 0:
                    protocol, body = f.OPTIONS, f.extension(protocol) + body
                case 1:
                    protocol, body = f.HOP, f.extension(protocol) + body
                case 2:
                    protocol, body = f.ROUTING, f.routing(protocol, self.octets(16)) + body
                case _:
                    offset = self.random.randrange(100) * 8
                    more = self.random.random() < 0.5
                    body = f.fragment6(protocol, offset, more, body)
                    protocol = f.FRAGMENT
        return protocol, body

    def _forbidden(self) -> bytes:
        """From its own addresses, but nothing that a pod may say."""
        me = self.node.attacker
        kind = self.random.choice((130, 133, 134, 136, 137, 138, 139, 200))
        body = bytes((kind, 0)) + self.octets(self.random.randrange(26, 80))
        following = f.ICMP6
        for _ in range(self.random.randrange(3)):
            body, following = f.extension(following) + body, f.OPTIONS
        if self.random.random() < 0.3:
            cut = self.random.randrange(1, 3) * 8
            piece = f.fragment6(following, 0, True, body[:cut])
            body, following = piece, f.FRAGMENT
        source = self.random.choice((me.ip6, me.local))
        target = self.random.choice((NODE6, ALL_NODES, GATEWAY6, self.node.victim.ip6))
        return f.ether(self._target(), me.mac, f.IPV6, f.ipv6(source, target, following, body))


@pytest.mark.matrix("T29", 10_000, 500)
def test_random_frames_reach_nobody(count: int) -> None:
    seed = int(os.environ.get("WEFT_SEED", random.randrange(2**32)))
    print(f"WEFT_SEED={seed}")
    _random_frames(count, seed)


@on_a_node
def _random_frames(count: int, seed: int) -> None:
    node = GuardedNode()
    state = node.state()
    dice = Dice(node, seed)
    left = count
    while left:
        batch = [dice.frame() for _ in range(min(left, 100))]
        left -= len(batch)
        seen = node.watch(batch)
        if seen["passed"] or seen["victim"] or seen["outside"] or seen["input"] or seen["arp"]:
            for frame in batch:
                one = node.watch([frame])
                assert one == NOTHING, f"{frame.hex()} came out: {one}"
        assert seen == NOTHING
    assert node.state() == state


@on_a_node
def test_random_frames_do_come_out_where_nothing_is_dropped() -> None:
    node = GuardedNode()
    dice = Dice(node, 1)
    node.mutate(lambda rows: [_without_drop(row, reason) for row in rows for reason in [_of(row)]])
    seen = node.watch([dice.frame() for _ in range(200)])
    assert seen["passed"] > 100
    assert seen["arp"]
    assert seen["victim"]
    assert seen["outside"]


def _of(row: Row) -> str:
    """The reason that a chain stands for."""
    return row.name.removeprefix("drop-") if isinstance(row, Chain) else ""


# -- from the first moment


def _early(node: GuardedNode, number: int, victim_mac: bytes) -> list[bytes]:
    """What the sender tries: foreign addresses, foreign hardware address, advertisements."""
    me = promise(f"early{number}", 20)
    own4, own6 = bytes((10, 244, 7, 20)), bytes.fromhex("fd000001000000070000000000000014")
    stranger = bytes((203, 0, 113, 9))
    victim = node.victim
    packets = (
        (me.mac, f.ipv4(stranger, victim.ip4, f.UDP, f.udp(stranger, victim.ip4, (1, 2)))),
        (me.mac, f.ipv4(victim.ip4, OUTSIDE4, f.UDP, f.udp(victim.ip4, OUTSIDE4, (1, 2)))),
        (victim_mac, f.ipv4(own4, victim.ip4, f.UDP, f.udp(own4, victim.ip4, (1, 2)))),
        (victim_mac, f.ipv6(own6, victim.ip6, f.UDP, f.udp(own6, victim.ip6, (1, 2)))),
        (me.mac, f.ipv6(NODE6, victim.ip6, f.UDP, f.udp(NODE6, victim.ip6, (1, 2)))),
        (
            me.mac,
            f.ipv6(own6, ALL_NODES, f.ICMP6, f.advertisement(own6, ALL_NODES, me.mac, bytes(16))),
        ),
    )
    return [node.packet(packet, mac=mac) for mac, packet in packets]


@pytest.mark.matrix("T15", 1000, 20)
def test_sender_that_starts_before_the_link_is_up_gets_nothing_through(count: int) -> None:
    _early_senders(count)


@on_a_node
def _early_senders(count: int) -> None:
    node = GuardedNode()
    node.drain()
    refused = 0
    for number in range(count):
        refused += _one_early_sender(node, number)
    for raw in (node.victim.raw, node.outside):
        assert node.waiting(raw) == []
    assert refused >= count  # the senders did send, and were stopped


def _one_early_sender(node: GuardedNode, number: int) -> int:
    attachment = promise(f"early{number}", 20)
    inside = new_namespace()
    before = node.dropped("spoofed")
    with Hasty(f"/proc/self/fd/{inside}", _early(node, number, node.victim.mac)):
        node.engine.apply(attachment.key.container, rows_of(attachment), inside)
        ends = tap(inside, "eth0")
        for _ in range(20):  # the sender's frames are seen leaving: it is at work
            assert select.select([ends], [], [], 10)[0]
            ends.recv(2048)
        ends.close()
    names = node.engine.withdraw(attachment.key.container)
    assert set(delete_links(names).values()) <= {0}
    os.close(inside)
    return node.dropped("spoofed") - before


def _forged_and_honest(node: GuardedNode) -> list[bytes]:
    """What a pod may not say, what it may, and a question that nobody should learn from."""
    me, to = node.attacker, node.victim.ip4
    strange, said = UNROUTED4, f.udp(me.ip4, to, (1, 2), b"x")
    return [
        node.packet(f.ipv4(strange, to, f.UDP, said)),
        node.packet(f.ipv4(me.ip4, to, f.UDP, said)),
        f.ether(b"\xff" * 6, me.mac, f.ARP, f.arp(1, me.mac, me.ip4, bytes(6), NODE4)),
    ]


def _rename(link: str, name: str) -> None:
    """Before Linux 6.2 a link has to be down for it."""
    if not renames_live():
        run("ip", "link", "set", link, "down")
    run("ip", "link", "set", link, "name", name)
    run("ip", "link", "set", name, "up")


@on_a_node
def test_what_comes_from_a_renamed_link_is_dropped_also_without_an_agent() -> None:
    node = GuardedNode()
    node.engine.apply("eyes", eyes("stolen0"))
    node.drain()
    _rename(node.attacker.link, "stolen0")
    node.send(_forged_and_honest(node))
    deadline = time.monotonic() + 5
    while (node.dropped("spoofed"), node.dropped("arp")) < (2, 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    _rename("stolen0", node.attacker.link)
    # a link that comes up again lets its kernel speak for itself, too
    own = 0 if renames_live() else node.dropped("spoofed") - 2
    assert (node.dropped("spoofed"), node.dropped("arp")) == (2 + max(own, 0), 1)
    assert {name: packets for name, (packets, _) in node.rules.counters("eyes").items()} == {
        name: 0 for name in NOTHING if name not in ("victim", "outside")
    }
    assert node.waiting(node.victim.raw) == []


@on_a_node
def test_a_link_of_another_group_is_known_by_its_name() -> None:
    node = GuardedNode()
    run("ip", "link", "set", node.attacker.link, "group", "0")
    forged, _, asked = _forged_and_honest(node)
    assert node.watch([forged, asked]) == NOTHING
    assert (node.drops["spoofed"], node.drops["arp"]) == (1, 1)
