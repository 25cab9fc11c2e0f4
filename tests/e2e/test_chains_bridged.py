"""weft later in a chain, where the interface that it adopts is a port of somebody's bridge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_host_ports import reach

from acceptance import Host
from chained import (
    NODE4,
    NODE6,
    RATES,
    STATIC,
    Chain,
    assert_guarded,
    bridge,
    good,
    mac_of,
    ports,
    properties,
    ready,
    weft,
)
from weft.lab import entering
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6


@pytest.fixture
def site(host: Host) -> Iterator[Host]:
    with ready(host):
        yield host


def test_a_pod_behind_somebodys_bridge_is_guarded_at_its_port(site: Host) -> None:
    """What IP needs goes by the bridge, what guards by the port; its neighbours without weft go on
    as they did."""
    words = {"capabilities": {"portMappings": True, "bandwidth": True}}
    chain = Chain(site, bridge(hairpinMode=True), weft(ipMasq=True, **words))
    beside = Chain(site, bridge(STATIC), name="beside")
    first = beside.add("first")
    before, at_bridge = properties(site, first.link), properties(site, "cni9")
    pod = chain.add("pod", portMappings=ports(8080, 80), bandwidth=RATES)
    other = chain.add("other", portMappings=ports(8081, 80))
    for each in (pod, other, first):
        each.speaks()
    pod.reaches(other)
    pod.reaches(first)
    first.reaches(pod)
    node, outside = site.node.network, site.wires.outside.network
    for at, (target, far) in enumerate(((NODE4, OUTSIDE_V4), (NODE6, OUTSIDE_V6))):
        assert reach(outside, target, 8080, pod.network, 80) == (far, True)
        for client in (node, other.network, first.network, pod.network):
            assert reach(client, target, 8080, pod.network, 80).answered, client
        assert reach(pod.network, far, 70, outside, 70).source == target
        assert (
            reach(pod.network, other.addresses[at], 70, other.network, 70).source
            == (pod.addresses[at])
        )
    assert reach(node, "127.0.0.1", 8080, pod.network, 80).answered
    entering.ip_batch(node, "addr add 127.0.0.77/32 dev lo\n")
    entering.ip_batch(first.network, "route add 127.0.0.77/32 via 10.77.0.1 dev eth0\n")
    entering.output(first.network, ["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"])
    assert reach(first.network, "127.0.0.77", 70, node, 70, patience=0.3).source == ""
    entering.ip_batch(node, "addr del 127.0.0.77/32 dev lo\n")
    assert_guarded(pod, other, gateway=mac_of(site, "cni9"))
    site.restart()
    for each in (pod, other):
        good(each.check())
    pod.drop()
    assert reach(node, "127.0.0.1", 8081, other.network, 80).answered
    other.drop()
    assert properties(site, first.link) == before
    assert properties(site, "cni9") == at_bridge
    first.drop()
    site.shell("ip link del cni9")


def test_a_list_that_would_not_hold_on_a_bridge_is_refused(site: Host) -> None:
    chain = Chain(site, bridge(), weft(capabilities={"netOutRules": True}))
    outcome = chain.try_add("pod", netOutRules=[])
    assert outcome.calls[-1].code == 7
    assert "no egress list" in outcome.failure
    chain.drop("pod")
    site.shell("ip link del cni9")


def test_a_lost_journal_and_a_port_that_leaves_its_bridge(site: Host) -> None:
    chain = Chain(site, bridge(), weft(capabilities={"portMappings": True}))
    pod = chain.add("pod", portMappings=ports(8080, 80))
    site.end()
    site.shell("rm /run/weft/journal.db*")
    site.start()
    good(pod.check())
    pod.speaks()
    assert reach(site.wires.outside.network, NODE4, 8080, pod.network, 80).answered
    site.shell(f"ip link set {pod.link} nomaster")
    said = pod.check_weft()
    assert "is a port of no bridge now" in said.summary
    site.shell(f"ip addr add 10.77.0.1/24 dev {pod.link} 2>/dev/null; ip link set cni9 down")
    assert not reach(site.node.network, pod.addresses[0], 70, pod.network, 70, patience=0.3)[0]
    pod.drop()
    site.shell("ip link del cni9")


def test_with_br_netfilter_it_is_the_same(site: Host) -> None:
    path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    before = site.shell(f"cat {path} 2>/dev/null || echo none").strip()
    words = {"capabilities": {"portMappings": True}}
    chain = Chain(site, bridge(hairpinMode=True), weft(ipMasq=True, **words))
    pod, other = chain.add("pod", portMappings=ports(8080, 80)), chain.add("other")
    beside = Chain(site, bridge(STATIC, hairpinMode=True), name="beside").add("beside")
    for value in ("1", "0") if before != "none" else ("none",):
        if value != "none":
            site.shell(f"echo {value} > {path}")
        pod.reaches(other)
        pod.speaks()
        for client in (pod.network, other.network, beside.network, site.node.network):
            for target in (NODE4, NODE6):
                assert reach(client, target, 8080, pod.network, 80).answered, (value, client)
        assert reach(site.node.network, "127.0.0.1", 8080, pod.network, 80).answered
        assert_guarded(pod, other, gateway=mac_of(site, "cni9"))
    if before != "none":
        site.shell(f"echo {before} > {path}")
    beside.drop()
    pod.drop()
    other.drop()
    site.shell("ip link del cni9")
