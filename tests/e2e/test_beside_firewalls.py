"""Beside Docker, firewalld, ufw and hardened images: the real programs, on a lab node.

For each: pods cannot pass and the status says who drops; asked, it lets them pass, also after it
has written its rules anew; taken back, everything it holds is byte for byte what it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from acceptance import Host
from weft.lab import probes, wiring
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6

ADMIT = "foreignFirewall: admit\n"
LIMIT = 40.0  # seconds; on a machine that has time it is one or two

DOCKERD = (
    "(dockerd --data-root /var/lib/dk --exec-root /run/dk --pidfile /run/dk.pid "
    "-H unix:///run/docker.sock --storage-driver vfs --experimental --ip6tables "
    ">/run/dk.log 2>&1 &) ; "
    "for i in $(seq 80); do grep -q 'API listen' /run/dk.log && break; sleep 0.1; done; "
    # Debian 12's release drops IPv6 and leaves no place for others' rules (for that see
    # tests/kernel/test_beside_filters.py); later ones have this chain there, too
    "ip6tables -S FORWARD | grep -q 'P FORWARD DROP'; "
    "ip6tables -N DOCKER-USER; ip6tables -I FORWARD -j DOCKER-USER"
)
DOCKER_AGAIN = (
    "kill $(cat /run/dk.pid); while [ -e /run/dk.pid ]; do sleep 0.05; done; rm /run/dk.log;"
    # as some scripts do: all rules are gone, also ours
    "iptables -F; ip6tables -F; iptables -X; ip6tables -X; " + DOCKERD
)
FIREWALLD = (
    "mkdir -p /run/dbus; dbus-daemon --system --fork --nopidfile; "
    "(firewalld --nofork --nopid >/run/fw.log 2>&1 &); "
    "for i in $(seq 80); do firewall-cmd --state && exit 0; sleep 0.1; done; exit 1"
)
# the files are in ufw's own form only once it has written them
UFW = "ufw --force enable; ufw allow 22/tcp; ufw reload"
BARE = "grep -v '^#' | sed 's/\\[.*\\]//'"  # without the time and the counters
SAVE = f"iptables-save | {BARE}; ip6tables-save | {BARE}"


@dataclass
class Manager:
    """A firewall: how it is started, what makes it write its rules anew, what it holds; whether it
    is there before the agent, as only a Docker that switches forwarding on itself drops."""

    word: str
    start: str
    anew: str
    held: str
    chain: str
    first: bool = False


MANAGERS = [
    Manager("docker", DOCKERD, DOCKER_AGAIN, SAVE, "chain ip filter FORWARD", first=True),
    Manager(
        "firewalld",
        FIREWALLD,
        "firewall-cmd --reload",
        # it keeps chains of a zone that has lost its last source, empty, until its next reload
        "firewall-cmd --list-all-zones; nft -s list table inet firewalld | grep -E '[sd]addr'",
        "chain inet firewalld filter_FORWARD",
    ),
    Manager(
        "ufw", UFW, "ufw reload", f"{SAVE}; cat /etc/ufw/user*.rules", "chain ip filter FORWARD"
    ),
]


def passing(host: Host, pods: list[str], addresses: list[str]) -> list[bool]:
    """Between two pods by UDP and from a pod to the outside, IPv4 and IPv6."""
    first, second = (host.network(pod) for pod in pods)
    inside = [probes.udp(first, second, each, patience=0.25).answered for each in addresses]
    # by datagrams: ufw and firewalld let echo pass in any case
    wires = host.wires.outside.network
    outside = [
        probes.udp(first, wires, each, patience=0.25).answered for each in (OUTSIDE_V4, OUTSIDE_V6)
    ]
    return inside + outside


def until(judged: Callable[[], Any], limit: float = LIMIT) -> Any:
    """The first answer that is true, or the last one."""
    end = time.monotonic() + limit
    while not (found := judged()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def status(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.weft("status", "-o", "json"))
    return found


def warned(host: Host) -> str:
    return " | ".join(
        each["message"]
        for each in status(host).get("warnings", ())
        if each["reason"] == "foreign-firewall"
    )


def restarted(host: Host, settings: str) -> None:
    host.end()
    host.node.path("/etc/weft/weft.yaml").write_text(settings)
    host.start()


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda each: each.word)
def test_firewall_is_named_asked_asked_again_and_given_back(
    new_host: Callable[..., Host], manager: Manager
) -> None:
    host = new_host()
    if manager.first:
        host.shell(manager.start)
    host.start()
    pods = ["one", "two"]
    addresses = [host.add(pod).addresses for pod in pods][1]
    if not manager.first:
        assert all(passing(host, pods, addresses))
        host.shell(manager.start)
    assert until(lambda: manager.chain in warned(host)), warned(host)
    assert manager.word in warned(host).lower()
    assert not any(passing(host, pods, addresses))
    doctor = host.weft("doctor", good=False)
    assert manager.chain in doctor
    before = host.shell(manager.held)

    restarted(host, ADMIT)
    assert until(lambda: all(passing(host, pods, addresses))), host.log()[-3000:]
    assert until(lambda: not warned(host))
    with_ours = host.shell(manager.held).splitlines()
    ranges = [pool["cidr"] for pool in status(host)["pools"]]
    others = before.splitlines()
    if manager.word != "firewalld":  # which writes chains of its zone for a source
        added = [line for line in with_ours if line not in others]
        assert added
        assert all(any(each in line for each in ranges) for line in added), added
        left = [line for line in with_ours if line and line not in added]
        assert left == [line for line in others if line]
    host.shell(manager.anew)
    assert until(lambda: all(passing(host, pods, addresses))), host.log()[-3000:]

    restarted(host, "")
    assert until(lambda: host.shell(manager.held) == before), host.shell(manager.held)
    assert until(lambda: warned(host))
    restarted(host, ADMIT)
    assert until(lambda: all(passing(host, pods, addresses)))
    host.end()
    host.weft("agent", "--teardown")
    assert host.shell(manager.held) == before


def leaves_by_a_bridge(host: Host) -> None:
    """Put the uplink into a bridge, as hosts of virtual machines have it."""
    first, second = wiring.node_addresses(0)
    host.shell(
        "ip link add br0 type bridge forward_delay 0; "
        "echo 0 > /proc/sys/net/ipv6/conf/br0/accept_dad; "
        "ip addr flush dev eth0; ip link set eth0 master br0; ip link set br0 up; "
        f"ip addr add {first}/24 dev br0; ip addr add {second}/64 dev br0 nodad; "
        f"ip route replace default via {OUTSIDE_V4} dev br0; "
        f"ip -6 route replace default via {OUTSIDE_V6} dev br0"
    )


HARDENED = [
    # what an image has, its table and chain, whom it leaves connected: the pods to each other
    (
        "add table inet filter; add chain inet filter forward { type filter hook forward "
        "priority 0; policy drop; }; add rule inet filter forward tcp dport { 80, 443 } accept",
        ("inet filter", "forward"),
        [False] * 4,
    ),
    (
        "add table bridge hard; add chain bridge hard out { type filter hook output priority 0; "
        "policy drop; }",
        ("bridge hard", "out"),
        [True, True, False, False],
    ),
]


def test_hardened_image_is_only_reported_with_the_commands_that_help(
    new_host: Callable[..., Host],
) -> None:
    host = new_host(ADMIT)
    leaves_by_a_bridge(host)
    host.start()
    pods = ["one", "two"]
    addresses = [host.add(pod).addresses for pod in pods][1]
    assert until(lambda: all(passing(host, pods, addresses)))
    for rules, (table, chain), connected in HARDENED:
        host.shell(f"nft '{rules}'")
        before = host.shell(f"nft -s list table {table}")
        said = until(lambda: warned(host))
        assert f"chain {table} {chain} (nobody known) drops" in said
        assert passing(host, pods, addresses) == connected
        # a look asks before it tells: who was to be asked has been
        assert host.shell(f"nft -s list table {table}") == before
        (found,) = (each for each in status(host)["firewalls"] if each.get("breaks"))
        for shown in (host.weft("status"), host.weft("doctor", good=False)):
            assert f"chain {table} {chain} (nobody known) drops" in shown
            assert found["mend"] in shown
        host.shell(found["mend"])
        assert all(passing(host, pods, addresses))
        assert until(lambda: not warned(host))


def test_legacy_iptables_is_seen_and_named(new_host: Callable[..., Host]) -> None:
    host = new_host()
    host.shell("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP")
    host.start()
    pods = ["one", "two"]
    addresses = [host.add(pod).addresses for pod in pods][1]
    said = until(lambda: "ip6" in warned(host) and warned(host))
    assert "chain ip filter FORWARD of legacy iptables" in said
    assert not any(passing(host, pods, addresses))
    for each in status(host)["firewalls"]:
        if each.get("breaks"):
            host.shell(each["mend"])
    assert all(passing(host, pods, addresses))


@pytest.mark.parametrize("value", ["0", "1"])
def test_bridge_netfilter_makes_no_difference_to_pods(
    new_host: Callable[..., Host], value: str
) -> None:
    host = new_host()
    for family in ("iptables", "ip6tables", "arptables"):
        host.shell(f"echo {value} > /proc/sys/net/bridge/bridge-nf-call-{family}")
    # bridged neighbours of the node's, as Docker has them
    host.shell(
        "ip link add docker0 type bridge; ip link set docker0 up; "
        "for i in 1 2; do ip netns add b$i; ip link add vb$i type veth peer name eth0 netns b$i; "
        "ip link set vb$i master docker0 up; ip -n b$i link set eth0 up; "
        "ip -n b$i addr add 172.17.0.$i/16 dev eth0; "
        "ip -n b$i addr add fd00:b::$i/64 dev eth0 nodad; done"
    )
    host.start()
    pods = ["one", "two"]
    addresses = [host.add(pod).addresses for pod in pods][1]
    assert all(passing(host, pods, addresses))
    for address in ("172.17.0.2", "fd00:b::2"):
        assert probes.udp(host.network("b1"), host.network("b2"), address).answered
