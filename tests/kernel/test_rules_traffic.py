"""Honest traffic passes the node's rules: whole, in fragments, both ways, translated or not."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from ipaddress import ip_network

import frames
import msgspec
import pytest
from guarded_node import (
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    PLAN,
    GuardedNode,
    promise,
    run,
)
from namespace_fixture import new_namespace, on_a_node

from weft.kernel.namespaces import entered
from weft.render.ruleset import closed_rows, node_rows
from weft.rows.base import Row

SECONDS = 10
SILENCE = 0.2
SIZES = (1, 1400, 1473, 8000, 60_000)
OWN = None  # the node's own namespace


def text(address: bytes) -> str:
    return socket.inet_ntop(family(address), address)


def family(address: bytes) -> socket.AddressFamily:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def opened(inside: int | None, address: bytes, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in a namespace, bound to this address and any port."""
    if inside is None:
        made = socket.socket(family(address), kind, protocol)
    else:
        with entered(inside):
            made = socket.socket(family(address), kind, protocol)
    made.settimeout(SECONDS)
    made.bind((text(address), 0))
    return made


def exchanged(
    sender: tuple[int | None, bytes], receiver: tuple[int | None, bytes], payload: bytes
) -> str:
    """Send a datagram and answer it; returns the source that the receiver saw."""
    with (
        opened(*sender, socket.SOCK_DGRAM) as here,
        opened(*receiver, socket.SOCK_DGRAM) as there,
    ):
        here.sendto(payload, there.getsockname()[:2])
        found, source = there.recvfrom(65_536)
        assert found == payload
        there.sendto(payload[::-1], source[:2])
        answer, where = here.recvfrom(65_536)
        assert answer == payload[::-1]
        assert where[0] == text(receiver[1])
        return str(source[0])


def silent(sender: tuple[int | None, bytes], receiver: tuple[int | None, bytes]) -> bool:
    """A datagram does not arrive."""
    with (
        opened(*sender, socket.SOCK_DGRAM) as here,
        opened(*receiver, socket.SOCK_DGRAM) as there,
    ):
        there.settimeout(SILENCE)
        here.sendto(b"x", there.getsockname()[:2])
        try:
            there.recvfrom(16)
        except TimeoutError:
            return True
        return False


def streamed(
    sender: tuple[int | None, bytes], receiver: tuple[int | None, bytes], size: int
) -> None:
    """A TCP stream of `size` octets arrives whole."""
    with opened(*receiver, socket.SOCK_STREAM) as there:
        there.listen(1)
        received: list[int] = []

        def serve() -> None:
            with there.accept()[0] as peer:
                total = 0
                while data := peer.recv(1 << 20):
                    total += len(data)
                received.append(total)

        thread = threading.Thread(target=serve)
        thread.start()
        with opened(*sender, socket.SOCK_STREAM) as here:
            here.connect(there.getsockname()[:2])
            here.sendall(os.urandom(1024) * (size // 1024))
        thread.join(SECONDS)
        assert received == [size]


def echoed(inside: int, source: bytes, target: bytes, size: int) -> None:
    """An echo request of this size is answered."""
    four = len(source) == 4
    protocol = socket.IPPROTO_ICMP if four else socket.IPPROTO_ICMPV6
    payload = os.urandom(size)
    with opened(inside, source, socket.SOCK_RAW, protocol) as raw:
        rest = struct.pack(">HH", 77, 1) + payload
        request = frames.icmp(8, 0, rest) if four else bytes((128, 0, 0, 0)) + rest
        raw.sendto(request, (text(target), 0))
        while True:
            answer = raw.recv(65_536)
            body = answer[20:] if four else answer
            if body[0] == (0 if four else 129):
                assert body[8:] == payload
                return


class Ends:
    """Who speaks to whom: (namespace, address) by name and family."""

    def __init__(self, node: GuardedNode) -> None:
        self.of = {
            ("pod", 4): (node.attacker.fd, node.attacker.ip4),
            ("pod", 6): (node.attacker.fd, node.attacker.ip6),
            ("other pod", 4): (node.victim.fd, node.victim.ip4),
            ("other pod", 6): (node.victim.fd, node.victim.ip6),
            ("outside", 4): (node.outside_fd, OUTSIDE4),
            ("outside", 6): (node.outside_fd, OUTSIDE6),
            ("node", 4): (OWN, NODE4),
            ("node", 6): (OWN, NODE6),
        }

    def pairs(self) -> list[tuple[tuple[int | None, bytes], tuple[int | None, bytes]]]:
        names = (
            ("pod", "other pod"),
            ("pod", "outside"),
            ("pod", "node"),
            ("node", "pod"),
            ("outside", "pod"),
        )
        return [
            (self.of[one, version], self.of[other, version])
            for one, other in names
            for version in (4, 6)
        ]


def honest(node: GuardedNode) -> None:
    """Nothing was dropped but what a starting kernel says before it has an address."""
    counted = node.rules.counters("weft")
    assert {name for name, (packets, _) in counted.items() if packets} <= {"drop-unspecified"}


@on_a_node
def test_datagrams_of_all_sizes_pass_between_pods_node_and_outside() -> None:
    node = GuardedNode()
    for sender, receiver in Ends(node).pairs():
        for size in SIZES:
            exchanged(sender, receiver, os.urandom(size))
    honest(node)


@on_a_node
def test_streams_pass_between_pods_node_and_outside() -> None:
    node = GuardedNode()
    for sender, receiver in Ends(node).pairs():
        streamed(sender, receiver, 1 << 21)
    honest(node)


@on_a_node
def test_echo_passes_also_in_fragments() -> None:
    node = GuardedNode()
    pod = node.attacker
    for four, six in ((node.victim.ip4, node.victim.ip6), (OUTSIDE4, OUTSIDE6), (NODE4, NODE6)):
        for size in (8, 5000):
            echoed(pod.fd, pod.ip4, four, size)
            echoed(pod.fd, pod.ip6, six, size)
    honest(node)


@on_a_node
def test_errors_of_a_pod_come_back_to_who_asked() -> None:
    node = GuardedNode()
    for target in (node.victim.ip4, node.victim.ip6):
        source = node.attacker.ip4 if len(target) == 4 else node.attacker.ip6
        with opened(node.attacker.fd, source, socket.SOCK_DGRAM) as here:
            here.connect((text(target), 9))
            here.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                here.recv(16)
        with opened(node.attacker.fd, source, socket.SOCK_STREAM) as here:
            assert here.connect_ex((text(target), 9)) == errno.ECONNREFUSED
    honest(node)


@on_a_node
def test_pods_leave_under_the_nodes_address_and_only_outwards() -> None:
    node = GuardedNode()
    ends = Ends(node).of
    for version, own in ((4, NODE4), (6, NODE6)):
        pod, other = ends["pod", version], ends["other pod", version]
        assert exchanged(pod, ends["outside", version], b"x") == text(own)
        assert exchanged(pod, other, b"x") == text(pod[1])
        assert exchanged(pod, ends["node", version], b"x") == text(pod[1])


@on_a_node
def test_pod_that_is_not_masqueraded_leaves_under_its_own_address() -> None:
    node = GuardedNode()
    pod = node.attach(promise("routed", 9, masquerade=False))
    ends = Ends(node).of
    for version, address in ((4, pod.ip4), (6, pod.ip6)):
        assert exchanged((pod.fd, address), ends["outside", version], b"x") == text(address)
    honest(node)


@on_a_node
def test_cluster_ranges_are_reached_without_masquerade() -> None:
    near = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
    node = GuardedNode(msgspec.structs.replace(PLAN, cluster=near))
    ends = Ends(node).of
    for version in (4, 6):
        pod = ends["pod", version]
        assert exchanged(pod, ends["outside", version], b"x") == text(pod[1])


@on_a_node
def test_without_masquerade_everybody_keeps_the_own_address() -> None:
    node = GuardedNode(msgspec.structs.replace(PLAN, masquerade=False))
    ends = Ends(node).of
    for version in (4, 6):
        pod = ends["pod", version]
        assert exchanged(pod, ends["outside", version], b"x") == text(pod[1])


@on_a_node
def test_closed_node_forwards_nothing_of_pods_and_loses_nothing_of_its_own() -> None:
    node = GuardedNode(msgspec.structs.replace(PLAN, masquerade=False))
    ends = Ends(node).of
    opened_rows = node_rows(node.plan)
    closing: dict[object, Row] = {row.key: row for row in closed_rows(node.plan.pools)}
    node.mutate(lambda rows: [closing.get(row.key, row) for row in rows])
    for version in (4, 6):
        pod, other = ends["pod", version], ends["other pod", version]
        outside, own = ends["outside", version], ends["node", version]
        assert silent(pod, other)
        assert silent(pod, outside)
        assert silent(outside, pod)
        exchanged(own, outside, b"x")
        exchanged(outside, own, b"x")
    assert node.dropped("closed") == 6
    node.engine.apply("node", opened_rows)
    for version in (4, 6):
        exchanged(ends["pod", version], ends["outside", version], b"x")


@on_a_node
def test_pod_that_is_gone_is_not_looked_for_outside() -> None:
    node = GuardedNode()
    target = node.victim.ip4, node.victim.ip6
    node.engine.withdraw("victim")
    run("ip", "link", "del", node.victim.link)
    node.waiting(node.outside)
    for address in target:
        source = node.attacker.ip4 if len(address) == 4 else node.attacker.ip6
        make = frames.ipv4 if len(address) == 4 else frames.ipv6
        body = frames.udp(source, address, (7, 7))
        node.send([node.packet(make(source, address, frames.UDP, body))])
    assert node.waiting(node.outside) == []
    assert node.dropped("gone") == 2


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@on_a_node
def test_foreign_link_with_our_prefix_is_left_alone_once_it_is_listed(listed: bool) -> None:
    strangers = ("wfoo",) if listed else ()
    node = GuardedNode(msgspec.structs.replace(PLAN, strangers=strangers))
    inside = new_namespace()
    where = f"/proc/{os.getpid()}/fd/{inside}"
    run("ip", "link", "add", "wfoo", "type", "veth", "peer", "name", "eth0", "netns", where)
    for link, address in (("wfoo", "198.18.0.1/24"), ("eth0", "198.18.0.2/24")):
        commands = (("link", "set", link, "up"), ("addr", "add", address, "dev", link))
        if link == "eth0":
            with entered(inside):
                for command in commands:
                    run("ip", *command)
                run("ip", "route", "add", "default", "via", "198.18.0.1")
        else:
            for command in commands:
                run("ip", *command)
    stranger = (inside, bytes((198, 18, 0, 2)))
    ends = Ends(node).of
    with entered(node.outside_fd):
        run("ip", "route", "add", "198.18.0.0/24", "via", "192.0.2.1")
    if listed:
        assert exchanged(stranger, ends["outside", 4], b"x") == "198.18.0.2"
        assert exchanged(ends["outside", 4], stranger, b"x") == "192.0.2.2"
        honest(node)
    else:
        assert silent(stranger, ends["outside", 4])
        assert node.dropped("arp")
