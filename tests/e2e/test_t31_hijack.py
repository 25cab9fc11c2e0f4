"""T31, as far as host ports go: what is meant for somebody else is never taken.

CVE-2025-67499: destination translation that looked at the port alone led a pod's queries to any
address into the pod that had published the port. CVE-2020-8558: loopback opened to neighbours.
"""

from __future__ import annotations

import itertools
import select
import socket
import zlib
from contextlib import closing

import pytest
from test_host_ports import KINDS, NODE4, published, reach

from acceptance import Host, ask
from weft.lab import entering, frames

PORTS = (53, 80, 443, 8080)
OUTSIDE = ("198.51.100.1", "2001:db8:51::1")
Case = tuple[str, str, str, int, str]  # where the ports are, origin, target, port, protocol
CRAFTED = 8


def cases() -> list[Case]:
    """Every (publication, origin, target, port, protocol), in an order that mixes them."""
    every = itertools.product(
        ("", NODE4), ("other", "node", "taker"), ("out4", "out6", "b4", "b6"), PORTS, KINDS
    )
    return sorted(every, key=lambda case: zlib.crc32(repr(case).encode()))


@pytest.mark.matrix(id="T31 host ports", full=2 * 3 * 4 * len(PORTS) * 2 + CRAFTED, reduced=20)
def test_a_published_port_takes_nothing_that_is_meant_for_others(host: Host, count: int) -> None:
    wanted = cases()[: count - CRAFTED]
    victim = host.add("victim")
    host.add("other")
    targets = {"out4": OUTSIDE[0], "out6": OUTSIDE[1], "b4": victim.addresses[0]}
    targets["b6"] = victim.addresses[1]
    origins = {name: host.network(name) for name in ("other", "taker")}
    origins["node"] = host.node.network
    for place in ("", NODE4):
        taken = [(port, 7, kind, place) for port in PORTS for kind in KINDS]
        host.add("taker", **published(*taken))
        with _Ears(host) as ears:
            for _, origin, target, port, kind in (case for case in wanted if case[0] == place):
                goal = host.wires.outside.network
                if target in ("b4", "b6"):
                    goal = host.network("victim")
                said = reach(origins[origin], targets[target], port, goal, port, kind)
                assert said.answered, f"{origin} to {target}:{port}/{kind}: not there"
            for packet in range(CRAFTED // 2):
                _craft(host, packet)
            assert ears.heard() == []
        host.drop("taker")
    host.drop("other")
    host.drop("victim")


class _Ears:
    """Who listens where nothing may arrive: at the taker's port, and on the node's loopback."""

    def __init__(self, host: Host) -> None:
        self._sockets: list[socket.socket] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for name, kind in KINDS.items():
                self._open(host.network("taker"), family, kind, ("", 7), name)
        loopback = ("127.0.0.1", 9953)
        self._open(host.node.network, socket.AF_INET, socket.SOCK_DGRAM, loopback, "udp")

    def _open(
        self, where: object, family: int, kind: int, place: tuple[str, int], name: str
    ) -> None:
        ear = entering.socket_in(str(where), family, kind)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ear.bind(place)
        if name == "tcp":
            ear.listen(8)
        self._sockets.append(ear)

    def heard(self) -> list[str]:
        ready = select.select(self._sockets, [], [], 0.2)[0]
        return [str(ear.getsockname()) for ear in ready]

    def __enter__(self) -> _Ears:
        return self

    def __exit__(self, *_: object) -> None:
        for ear in self._sockets:
            ear.close()


def _craft(host: Host, number: int) -> None:
    """A datagram for the node's 127.0.0.1, or from it, sent by the taker or by a neighbour."""
    origin = host.network("taker") if number % 2 else host.wires.outside.network
    source = "127.0.0.1" if number < 2 else ("198.51.100.1" if number % 2 == 0 else "10.244.0.9")
    packet = frames.packet(source, "127.0.0.1", (40000, 9953), b"loop")
    with closing(entering.socket_in(origin, socket.AF_PACKET, socket.SOCK_DGRAM)) as mouth:
        mouth.bind(("eth0", 0x0800))
        gateway = "0a7765667400" if number % 2 else _mac(host)
        mouth.sendto(packet, ("eth0", 0x0800, 0, 0, bytes.fromhex(gateway)))


def _mac(host: Host) -> str:
    return host.shell("cat /sys/class/net/eth0/address").strip().replace(":", "")


def test_a_program_of_the_node_at_loopback_is_not_reached_by_a_published_port(host: Host) -> None:
    """Publishing opens route_localnet on the container's own link, which must open nothing else."""
    host.add("taker", **published((8080, 80)))
    assert host.send(ask("STATUS")).status == 0
    with closing(entering.socket_in(host.node.network, socket.AF_INET, socket.SOCK_DGRAM)) as ear:
        ear.bind(("127.0.0.1", 9953))
        for number in range(4):
            _craft(host, number)
        assert not select.select([ear], [], [], 0.2)[0]
    host.drop("taker")
