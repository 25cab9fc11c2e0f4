"""T16: from boot until the agent has programmed the node, pod ranges are not forwarded.

A namespace behind the node stands for what is left of a pod: it has an address of the pools, and
the node forwards and has a route to it. Beside it, an address of no pool shows that nothing else
is closed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from weft.lab import cluster, probes
from weft.lab.cluster import agent_command
from weft.lab.nodes import CLEAN_PATH, Node
from weft.lab.wiring import Wires, node_addresses

POOLS = ("10.99.0.0/16", "fd99::/48")
IN_POOL = ("10.99.0.5", "fd99::5")
ELSEWHERE = ("203.0.113.5", "2001:db8:ee::5")
PATIENCE = 0.4
ENVIRONMENT = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

SETTING = """
apiVersion: weft.dev/v1alpha1
kind: IPPool
metadata: {name: NAME}
spec: {cidr: "CIDR"}
"""


def shell(node: Node, script: str) -> None:
    done = node.run(["sh", "-ec", script])
    assert done.returncode == 0, done.stderr


@pytest.fixture
def leftover(node: Node, wires: Wires, bare_pod: Callable[[str], Path]) -> Path:
    """What a pod leaves behind: addresses, routes, forwarding switched on by somebody else."""
    behind = bare_pod("left")
    v4, v6 = node_addresses(0)
    shell(
        node,
        """
        ip link add name rest type veth peer name eth0 netns left
        ip link set rest up
        ip addr add 192.0.2.1/32 dev rest; ip -6 addr add fe80::1/64 dev rest nodad
        ip netns exec left sh -ec '
            ip link set lo up; ip link set eth0 up
            for a in 10.99.0.5/32 203.0.113.5/32; do ip addr add $a dev eth0; done
            for a in fd99::5/128 2001:db8:ee::5/128; do ip addr add $a dev eth0 nodad; done
            ip addr add fe80::2/64 dev eth0 nodad
            ip route add 192.0.2.1 dev eth0; ip route add default via 192.0.2.1
            ip -6 route add default via fe80::1 dev eth0'
        for a in 10.99.0.5 203.0.113.5; do ip route add $a dev rest; done
        for a in fd99::5 2001:db8:ee::5; do ip -6 route add $a via fe80::2 dev rest; done
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        """,
    )
    ways = [(4, "10.99.0.0/16", v4), (4, "203.0.113.0/24", v4)]
    ways += [(6, "fd99::/48", v6), (6, "2001:db8:ee::/64", v6)]
    for family, prefix, via in ways:
        done = wires.outside.run(["ip", f"-{family}", "route", "add", prefix, "via", via])
        assert done.returncode == 0, done.stderr
    return behind


def with_pools(node: Node) -> None:
    """A store that knows the pools, as an earlier boot has left it; and no agent."""
    pid = cluster.start_agent(node)
    for name, cidr in zip(("four", "six"), POOLS, strict=True):
        manifest = SETTING.replace("NAME", name).replace("CIDR", cidr)
        command = [*agent_command()[:-1], "apply", "-f", "-"]
        done = node.run(command, stdin=manifest.encode(), env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shell(node, "nft flush ruleset; rm -rf /run/weft")


def in_pools(wires: Wires, behind: Path) -> list[bool]:
    return [
        probes.udp(wires.outside.network, behind, address, patience=PATIENCE).arrived
        for address in IN_POOL
    ]


@pytest.mark.matrix("T16", full=1, reduced=1)
def test_before_the_agent_pod_ranges_are_not_forwarded(
    node: Node, wires: Wires, leftover: Path
) -> None:
    with_pools(node)
    assert in_pools(wires, leftover) == [True, True], "the way itself must work"
    done = node.run([*agent_command(), "--close-boot"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert in_pools(wires, leftover) == [False, False]
    for address in ELSEWHERE:
        inward = probes.udp(wires.outside.network, leftover, address, patience=2.0)
        assert inward.arrived, f"{address} is of no pool and must be forwarded"
    for address in node_addresses(0):
        assert probes.udp(wires.outside.network, node.network, address, patience=2.0).answered


def test_the_agent_takes_the_closed_rules_over(node: Node, wires: Wires, leftover: Path) -> None:
    with_pools(node)
    assert node.run([*agent_command(), "--close-boot"], env=ENVIRONMENT).returncode == 0
    cluster.start_agent(node)
    first, second = cluster.attach(node, "a"), cluster.attach(node, "b")
    for address in second.addresses:
        heard = probes.udp(
            node.pod_network(first.name), node.pod_network(second.name), address, patience=2.0
        )
        assert heard.answered, address
    rules = node.run(["nft", "list", "chain", "inet", "weft", "forward"]).stdout
    assert b"closed" not in rules
