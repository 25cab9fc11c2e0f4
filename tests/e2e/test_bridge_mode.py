"""Bridge mode with the real agent: who reaches whom, what is forged, what comes and goes."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from acceptance import Host, ask, compared, host_link, pool, problems, warm
from reached import published, reach
from weft.lab import entering
from weft.lab.ears import Ear, Mouth, nonce
from weft.lab.frames import ethernet, kind_of, packet
from weft.lab.snapshot import diff
from weft.lab.wiring import node_addresses
from weft.model.bridge import bridge_mac, bridge_name

NODE4, NODE6 = node_addresses(0)
OUTSIDE4, OUTSIDE6 = "198.51.100.1", "2001:db8:51::1"
POOLS = (
    pool("yard4", "10.22.0.0/24", gateway="10.22.0.1"),
    pool("yard6", "fd22::/64"),
    pool("third", "10.24.0.0/24", gateway="10.24.0.1"),
)
YARD = {"network": "yard", "mode": "bridge", "pools": ["yard4", "yard6"]}
BRIDGE = bridge_name("yard")
MAC = bridge_mac("yard").hex(":")


@pytest.fixture
def host(_site: Any) -> Iterator[Host]:
    """A serving, warm host with pools for bridges, that is compared before and after the test."""
    kept, _site.warm = _site.warm, None
    if kept is None:
        made = _site.make()
        made.start()
        made.apply(*POOLS)
        for keys in (YARD, {**YARD, "pools": ["third"]}):  # blocks of theirs stay claimed
            made.add("first", **keys)
            made.drop("first", **keys)
        made.end()
        kept = made, warm(made)
    with compared(*kept) as ready:
        yield ready
        netfilter(ready, True)
    _site.warm = kept


@contextmanager
def yard(host: Host, *names: str, **more: Any) -> Iterator[list[list[str]]]:
    """Containers on a bridge; their addresses."""
    found = [host.add(name, **YARD, **more).addresses for name in names]
    yield found
    for name in names:
        host.drop(name, **YARD, **more)
    assert host.shell("ip -br link show type bridge") == ""
    assert BRIDGE not in host.shell("nft list ruleset")


def netfilter(host: Host, on: bool) -> None:
    for name in ("iptables", "ip6tables"):
        host.shell(f"sysctl -qw net.bridge.bridge-nf-call-{name}={on:d}")


@pytest.mark.parametrize("isolation", [True, False])
def test_containers_on_a_bridge_reach_each_other_the_node_and_the_outside(
    host: Host, isolation: bool
) -> None:
    with yard(host, "a", "b", isolation=isolation) as ((a4, a6), (b4, b6)):
        a, b = host.network("a"), host.network("b")
        node, outside = host.node.network, host.wires.outside.network
        for on in (True, False):
            netfilter(host, on)
            for protocol in ("tcp", "udp"):
                assert reach(a, b4, 80, b, 80, protocol) == (a4, True)
                assert reach(b, a6, 80, a, 80, protocol) == (b6, True)
                assert reach(node, b4, 80, b, 80, protocol) == ("10.22.0.1", True)
                assert reach(node, b6, 80, b, 80, protocol).answered
                assert reach(a, "10.22.0.1", 80, node, 80, protocol) == (a4, True)
                assert reach(a, OUTSIDE4, 80, outside, 80, protocol) == (NODE4, True)
                assert reach(a, OUTSIDE6, 80, outside, 80, protocol) == (NODE6, True)
        plain = host.add("plain")
        for mine, its in ((a4, plain.addresses[0]), (a6, plain.addresses[1])):
            assert reach(a, its, 80, host.network("plain"), 80) == (mine, True)
            assert reach(host.network("plain"), mine, 80, a, 80) == (its, True)
        host.drop("plain")


def test_a_list_that_would_not_hold_on_a_bridge_is_refused(host: Host) -> None:
    host.make(["a"])
    conf = {**YARD, "runtimeConfig": {"netOutRules": []}}
    said = host.send(ask("ADD", "a", isolation=False, **conf))
    assert said.is_clean and said.code == 7, said
    assert "isolation: false" in (said.json or {})["msg"]
    assert not problems([host.send(ask("ADD", "a", **conf))])
    with yard(host, "b") as ((b4, b6),):
        for address in (b4, b6):
            assert not reach(host.network("a"), address, 80, host.network("b"), 80).answered
        assert not problems([host.send(ask("DEL", "a", **conf))])
    host.unmake(["a"])


@pytest.mark.parametrize("isolation", [True, False])
def test_published_ports_lead_to_a_container_on_a_bridge_from_everywhere(
    host: Host, isolation: bool
) -> None:
    with yard(host, "b", isolation=isolation):
        open_port = {"isolation": isolation, **published((8080, 80), (8081, 81, "udp"))}
        host.add("a", **YARD, **open_port)
        a, b = host.network("a"), host.network("b")
        node, outside = host.node.network, host.wires.outside.network
        for on in (True, False):
            netfilter(host, on)
            for port, inner, protocol in ((8080, 80, "tcp"), (8081, 81, "udp")):
                for target, far in ((NODE4, OUTSIDE4), (NODE6, OUTSIDE6)):
                    assert reach(outside, target, port, a, inner, protocol) == (far, True)
                    for origin in (a, b, node):
                        assert reach(origin, target, port, a, inner, protocol).answered
                assert reach(node, "127.0.0.1", port, a, inner, protocol).answered
        host.drop("a", **YARD, **open_port)


def _hears(host: Host, source: str, goal: str, frame: bytes, mark: bytes) -> bool:
    """Frames pass a veth pair and a bridge before they are said, unless the machine is busy."""
    with Ear(host.network(goal)) as ear, Mouth(host.network(source)) as mouth:
        mouth.say(frame)
        return ear.hears(mark, 0.1) is not None


def _mac(host: Host, name: str) -> str:
    said = json.loads(entering.output(host.network(name), ["ip", "-j", "link", "show", "eth0"]))
    return str(said[0]["address"])


def test_isolated_containers_hear_nothing_of_each_other_and_others_everything(host: Host) -> None:
    for isolation in (True, False):
        with yard(host, "a", "b", isolation=isolation) as ((a4, _), (b4, _)):
            own, its = _mac(host, "a"), _mac(host, "b")
            group = ("239.1.2.3", "01:00:5e:01:02:03")
            for goal, mac in ((b4, its), group, ("255.255.255.255", "ff:ff:ff:ff:ff:ff")):
                mark = nonce()
                frame = ethernet(mac, own, 0x0800, packet(a4, goal, (7, 7), mark))
                assert _hears(host, "a", "b", frame, mark) is not isolation, goal
            assert ("not-isolated" in host.weft("status", "-o", "json")) is not isolation


@pytest.mark.parametrize("isolation", [True, False])
def test_what_is_not_a_containers_own_reaches_neither_its_neighbour_nor_the_node(
    host: Host, isolation: bool
) -> None:
    with yard(host, "a", "b", isolation=isolation) as ((a4, a6), (b4, b6)):
        own, its = _mac(host, "a"), _mac(host, "b")
        routed = host.add("plain").addresses
        for source, goals in ((b4, (b4, routed[0])), (b6, (b6, routed[1]))):
            for goal, ear in zip(goals, ("b", "plain"), strict=True):
                for mac in (MAC, its):
                    mark = nonce()
                    forged = ethernet(mac, own, kind_of(source), packet(source, goal, (7, 7), mark))
                    assert not _hears(host, "a", ear, forged, mark), (source, goal)
            mark, honest = nonce(), a4 if "." in source else a6
            frame = ethernet(MAC, own, kind_of(source), packet(honest, goals[1], (7, 7), mark))
            assert _hears(host, "a", "plain", frame, mark)
        host.drop("plain")


def test_no_container_draws_the_frames_of_another_to_itself(host: Host) -> None:
    # what a bridge takes for itself passes no packet rule, and it must not learn from it either
    with yard(host, "a", "b", isolation=False) as (_, (b4, _)):
        its = _mac(host, "b")
        assert reach(host.network("a"), b4, 80, host.network("b"), 80).answered
        with Mouth(host.network("a")) as mouth:
            for last in ("00", "01", "02", "03", "0e", "0f"):
                mouth.say(ethernet(f"01:80:c2:00:00:{last}", its, 0x88CC, nonce()))
        learnt = host.shell(f"bridge fdb show brport {host_link('a', network='yard')}")
        assert _mac(host, "a") in learnt
        assert its not in learnt


def test_the_result_tells_the_subnet_and_check_agrees(host: Host) -> None:
    said = host.add("a", **YARD).json or {}
    assert [ip["address"].split("/")[1] for ip in said["ips"]] == ["24", "128"]
    assert said["ips"][0]["gateway"] == "10.22.0.1"
    assert not problems([host.send(ask("CHECK", "a", prevResult=said, **YARD))])
    link = host_link("a", network="yard")
    host.end()
    host.shell(f"ip link set {link} nomaster; ip link set {BRIDGE} down")
    host.start()
    assert not problems([host.send(ask("CHECK", "a", prevResult=said, **YARD))])
    host.drop("a", **YARD)


DAMAGES = (
    "bridge link set dev {link} isolated off",
    "ip link set {link} nomaster",
    "ip link set {bridge} down",
    "ip link del {bridge}",
    "ip link set {bridge} down; ip link set {bridge} name other; ip link set other up",
    "ip link set {bridge} address 02:00:00:00:00:01",
    "ip addr flush dev {bridge}",
    "sysctl -qw net.ipv4.conf.{bridge}.proxy_arp=0",
    "sysctl -qw net.ipv4.conf.{bridge}.forwarding=0",
)


@pytest.mark.matrix(id="bridge damage", full=90, reduced=9)
def test_damage_to_the_bridge_is_mended(host: Host, count: int) -> None:
    with yard(host, "a", "b") as ((a4, a6), (b4, b6)):
        before = host.snapshot()
        for damage in (DAMAGES * count)[:count]:
            host.shell(damage.format(link=host_link("a", network="yard"), bridge=BRIDGE))
            # which port has the entry of the address that all host ends share, the kernel chooses
            deadline = time.monotonic() + 5
            while left := [x for x in diff(before, host.snapshot()) if "forwarding:" not in x]:
                assert time.monotonic() < deadline, (damage, left)
            for goal, mine in ((b4, a4), (b6, a6)):
                answer = reach(host.network("a"), goal, 80, host.network("b"), 80)
                assert answer == (mine, True), damage


def test_a_restart_adopts_and_a_lost_journal_is_made_again(host: Host) -> None:
    for isolation in (True, False):
        with yard(host, "a", "b", isolation=isolation) as ((a4, a6), (b4, b6)):
            before = host.snapshot()
            host.restart()
            assert host.settled(before) == []
            host.end()
            host.shell("rm -f /run/weft/journal.db*")
            host.start()
            assert host.settled(before) == []
            for goal, mine in ((b4, a4), (b6, a6)):
                assert reach(host.network("a"), goal, 80, host.network("b"), 80) == (mine, True)


def test_the_last_del_without_an_agent_leaves_nothing_after_the_next_start(host: Host) -> None:
    host.add("a", **YARD)
    host.end()
    host.drop("a", **YARD)
    host.start()
    assert host.shell("ip -br link show type bridge") == ""
    host.add("a", **YARD)
    host.end()
    host.shell("rm -f /run/weft/journal.db*")
    host.shell(f"ip link del {host_link('a', network='yard')}")
    host.start()
    assert host.shell("ip -br link show type bridge") == ""
    host.drop("a", **YARD)


def test_what_cannot_be_is_refused_by_name(host: Host) -> None:
    host.shell("ip link add taken0 type bridge")
    host.make(["a", "b"])
    with yard(host, "c"):
        for word, keys in (
            ("10.22.0.1/24", {**YARD, "network": "other"}),
            (BRIDGE, {**YARD, "network": "other", "bridge": BRIDGE}),
            ("taken0", {**YARD, "network": "free", "bridge": "taken0", "pools": ["third"]}),
            ("isolation", {"network": "free", "mode": "bridge", "isolation": False}),
            ("not isolated", {**YARD, "isolation": False}),
            ("mode", {**YARD, "mode": "macvlan"}),
            ("vlan", {**YARD, "vlan": 7}),
            ("isGateway", {**YARD, "isGateway": False}),
            ("bridge:", {**YARD, "bridge": "wf0"}),
            *(
                ("bridge:", {**YARD, "bridge": name})
                for name in ("a b", "br%d", "all", "\u00e9" * 15)
            ),
        ):
            said = host.send(ask("ADD", "a", **keys))
            assert said.status != 0, keys
            assert word in json.dumps(said.json), (word, said.json)
        assert "not-isolated" not in host.weft("status", "-o", "json")
        assert host.shell("ip -br link show type bridge | wc -l").strip() == "2"
        host.shell("ip link del taken0")
    host.unmake(["a", "b"])


def test_a_named_bridge_and_no_default_route(host: Host) -> None:
    keys = {"bridge": "cni0", "isDefaultGateway": False, "ipMasq": False, "hairpinMode": True}
    with yard(host, "a", **keys) as ((a4, _),):
        assert "10.22.0.1/24" in host.shell("ip -4 addr show cni0")
        routes = entering.output(host.network("a"), ["ip", "-4", "route"])
        assert "default" not in routes and "10.22.0.0/24 dev eth0" in routes
        assert reach(host.network("a"), "10.22.0.1", 80, host.node.network, 80) == (a4, True)


def test_many_come_and_go_at_once(host: Host) -> None:
    names = [f"p{n}" for n in range(12)]
    host.make(names)
    for _ in range(3):
        added = host.storm([ask("ADD", name, **YARD) for name in names], workers=6)
        assert not problems(added)
        assert not problems(host.storm([ask("DEL", name, **YARD) for name in names], workers=6))
        mixed = [ask(verb, name, **YARD) for name in names for verb in ("ADD", "DEL")]
        assert not problems(host.storm(mixed, workers=4))
        assert not problems([host.send(ask("DEL", name, **YARD)) for name in names])
        assert host.shell("ip -br link show type bridge") == ""
    host.unmake(names)


def test_teardown_takes_the_bridge_along(new_host: Callable[..., Host]) -> None:
    made = new_host()
    made.start()
    before = made.shell("ip -br link")
    made.apply(*POOLS)
    made.add("a", **YARD)
    made.end()
    assert BRIDGE in made.shell("ip -br link")
    made.weft("agent", "--teardown")
    assert made.shell("ip -br link") == before


@pytest.mark.matrix(id="bridge killed", full=200, reduced=3)
def test_an_agent_killed_during_add_or_del_of_the_only_container_leaves_nothing(
    host: Host, count: int
) -> None:
    dice = random.Random(22)
    before = host.snapshot()
    host.make(["a"])
    for trial in range(count):
        if trial % 2:
            host.send(ask("ADD", "a", **YARD))
        killer = threading.Timer(dice.uniform(0.0, 0.012), host.end)
        killer.start()
        host.send(ask("DEL" if trial % 2 else "ADD", "a", **YARD))
        killer.join()
        host.start()
        assert not problems([host.send(ask("DEL", "a", **YARD))])
    host.unmake(["a"])
    assert host.settled(before) == []
