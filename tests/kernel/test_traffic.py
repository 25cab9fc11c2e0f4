"""The continuous probers: silent when all is well, and exact about what is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from weft.lab import calls, entering, truth
from weft.lab.cluster import LabPod
from weft.lab.nodes import Node
from weft.lab.traffic.reports import Report
from weft.lab.traffic.running import running
from weft.lab.traffic.wanted import Flow, Liar, Listener, Peer, Wanted, flows
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, Wires
from weft.model.errors import NotReady

HOST_MAC = "0a:77:65:66:74:00"
OUTSIDE = (OUTSIDE_V4, OUTSIDE_V6)


@pytest.fixture
def peers(agent_node: Node, new_pod: Callable[[str], LabPod]) -> list[Peer]:
    """Two pods."""
    made = [new_pod("one"), new_pod("two")]
    return [
        Peer(name=p.name, network=str(agent_node.pod_network(p.name)), addresses=p.addresses)
        for p in made
    ]


@pytest.fixture
def wanted(peers: list[Peer], wires: Wires, agent_node: Node) -> Wanted:
    """A little of everything: between the pods, to the outside, and one liar."""
    outside = Peer(name="outside", network=str(wires.outside.network), addresses=OUTSIDE)
    one, two = peers
    liar = Liar(
        name=one.name,
        network=one.network,
        mac=str(truth.links(one.network)["eth0"]["address"]),
        addresses=one.addresses,
        victim=two.addresses,
        outside=OUTSIDE,
    )
    return Wanted(
        datagrams=flows(peers, outside, 12),
        datagram_rate=600.0,
        streams=flows(peers, outside, 6),
        liars=(liar,),
        listeners=(
            Listener(name="victim", network=two.network),
            Listener(name="outside", network=outside.network),
            Listener(name="uplink", network=str(agent_node.network), outgoing=True),
        ),
        limit=60.0,
        drain=1.0,
    )


def _disturbed(wanted: Wanted, disturb: Callable[[], object]) -> Report:
    with running(wanted) as traffic:
        time.sleep(0.3)
        disturb()
        time.sleep(0.3)
        return traffic.end()


def test_undisturbed_traffic_is_whole(wanted: Wanted) -> None:
    report = _disturbed(wanted, lambda: time.sleep(0.4))
    assert report.problems() == []
    assert len(report.datagrams) == 12
    assert len(report.streams) == 6
    assert all(flow.sent > 10 for flow in report.datagrams)
    assert all(stream.echoed > 10_000 for stream in report.streams)
    assert report.forged > 80
    assert report.sent > 300
    assert report.longest_gap < 1.0, "slack for a busy machine"


def test_every_datagram_that_is_dropped_is_counted(wanted: Wanted, agent_node: Node) -> None:
    """Against the kernel's own counter, in both directions."""
    rules = (
        "add table ip loss; add chain ip loss f { type filter hook forward priority -5; }; "
        "add rule ip loss f udp length 72 numgen inc mod 10 == 3 counter drop"
    )
    network = agent_node.network
    report = _disturbed(wanted, lambda: entering.output(network, ["nft", rules]))
    shown = entering.output(network, ["nft", "list", "table", "ip", "loss"])
    dropped = int(shown.split("packets ")[1].split()[0])
    entering.output(network, ["nft", "delete", "table", "ip", "loss"])
    assert report.lost == dropped > 0
    assert report.broken == 0


def test_a_silence_and_a_reset_are_seen(wanted: Wanted, agent_node: Node) -> None:
    network = agent_node.network

    def disturb() -> None:
        rules = (
            "add table ip cut; add chain ip cut f { type filter hook forward priority -5; }; "
            "add rule ip cut f ip protocol udp drop; "
            "add rule ip cut f ip protocol tcp reject with tcp reset"
        )
        entering.output(network, ["nft", rules])
        time.sleep(0.5)
        entering.output(network, ["nft", "delete", "table", "ip", "cut"])

    report = _disturbed(wanted, disturb)
    four = [flow for flow in report.datagrams if "IPv4" in flow.name]
    assert all(flow.lost > 0 and flow.longest_gap > 0.45 for flow in four)
    assert all("ECONNRESET" in s.broken for s in report.streams if "IPv4" in s.name)
    assert all(s.is_whole for s in report.streams if "IPv6" in s.name)
    assert all(flow.lost == 0 for flow in report.datagrams if flow not in four)


def _wire(node: Node, pod: str, place: int) -> Liar:
    """A pod wired by hand, without any guard: 192.0.2.<place>2 behind 192.0.2.<place>1."""
    mac, near, own = f"02:00:00:00:00:0{place}", f"192.0.2.{place}1", f"192.0.2.{place}2"
    network = node.pod_network(pod)
    calls.call(node, lambda: str(entering.create(Path("/run/netns", pod))))
    node.run(
        f"ip link add p{place} address {HOST_MAC} type veth peer name eth0 address {mac} "
        f"netns /run/netns/{pod}".split()
    )
    entering.ip_batch(
        node.network,
        f"addr add {near}/32 dev p{place}\nlink set p{place} up\nroute add {own} dev p{place}\n"
        f"neigh replace {own} lladdr {mac} dev p{place}\n",
    )
    entering.ip_batch(
        network,
        f"addr add {own}/32 dev eth0\nlink set eth0 up\nroute add {near} dev eth0\n"
        f"route add default via {near}\nneigh replace {near} lladdr {HOST_MAC} dev eth0\n",
    )
    return Liar(name=pod, network=str(network), mac=mac, addresses=(own,), victim=(), outside=())


def test_forged_frames_are_heard_where_nothing_stops_them(node: Node) -> None:
    """The silence of the others is no deafness."""
    calls.call(node, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1") and None)
    one, two = _wire(node, "one", 1), _wire(node, "two", 2)
    liar = msgspec.structs.replace(one, victim=two.addresses)
    ears = (Listener(name="victim", network=two.network),)
    report = _disturbed(Wanted(liars=(liar,), listeners=ears), lambda: None)
    (heard,) = report.heard
    assert report.leaked == heard.forged > 10
    assert heard.honest == report.liars[0].honest["victim"]
    assert any("203.0.113.9 to 192.0.2.22" in claim for claim in heard.claims)
    assert any("victim heard" in line for line in report.problems())


def test_flows_that_do_not_come_about_are_named(peers: list[Peer], tmp_path: Path) -> None:
    there, gone = peers[0].network, "192.0.2.77"
    flow = Flow(name="to nobody", origin=there, goal=there, address=gone)
    with pytest.raises(NotReady, match="to nobody"), running(Wanted(streams=(flow,), patience=1.0)):
        pass
