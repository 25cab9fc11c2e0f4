"""An uplink that learns its routes from router advertisements goes on doing so under an agent."""

from __future__ import annotations

import json
import socket
import time

from weft.lab import cluster, entering
from weft.lab.nodes import Node
from weft.lab.wiring import Wires

ALL_NODES = "ff02::1"
ADVERTISEMENT = bytes((134, 0, 0, 0, 64, 0)) + (1800).to_bytes(2, "big") + bytes(8)
PATIENCE = 5.0


def advertise(wires: Wires, link: str) -> None:
    """What a router says: it is one, for half an hour (RFC 4861 section 4.2)."""
    found = wires.outside.run(["ip", "-j", "link", "show", "dev", link]).stdout
    index = json.loads(found)[0]["ifindex"]
    with entering.socket_in(
        wires.outside.network, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
    ) as router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        router.sendto(ADVERTISEMENT, (ALL_NODES, 0, 0, index))


def learnt(node: Node) -> bool:
    routes = node.run(["ip", "-6", "route", "show", "default", "proto", "ra"]).stdout
    return b"default" in routes


def learns(wires: Wires, node: Node) -> bool:
    node.run(["ip", "-6", "route", "flush", "proto", "ra"])
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        advertise(wires, "eth0")
        time.sleep(0.1)
        if learnt(node):
            return True
    return False


def setting(node: Node, link: str) -> str:
    return node.run(["cat", f"/proc/sys/net/ipv6/conf/{link}/accept_ra"]).stdout.decode().strip()


def test_an_uplink_goes_on_learning_and_a_bridge_of_containers_does_not_begin(
    node: Node, wires: Wires
) -> None:
    node.run(["ip", "link", "add", "docker0", "type", "bridge"])
    assert learns(wires, node), "the uplink must learn before the agent comes"
    assert node.run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout.strip() == b"0"
    pid = cluster.start_agent(node)
    assert pid
    assert node.run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout.strip() == b"1"
    assert learns(wires, node)
    assert setting(node, "eth0") == "2"
    assert setting(node, "docker0") == "1"
    assert setting(node, "default") == "1"
