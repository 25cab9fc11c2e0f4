"""The demo's probes and its outside, between namespaces of a throw-away node."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from weft.lab import calls, entering, nodes
from weft.lab.demo import outside, places, probe
from weft.lab.demo.record import Record, give_back
from weft.lab.nodes import Node
from weft.model.errors import WeftError


@pytest.fixture
def machine() -> Iterator[Node]:
    node = nodes.start("weft-demo-test")
    yield node
    nodes.stop(node)


def built() -> outside.Outside:
    record = Record()
    record.begin()
    return outside.build(record)


def reach(name: str, family: int) -> list[str]:
    world = built()
    exchange = {"tcp": probe.tcp, "udp": probe.udp}[name]
    done = exchange(Path(entering.OWN), world.namespace, world.address(family))
    return [done.seen, world.node(family)]


def reach_beside(addresses: list[str]) -> list[str]:
    """Whom the outside saw, on a machine that has these addresses and their routes."""
    setup = ["link add theirs type veth", "link set theirs up"]
    setup += [f"addr add {address} dev theirs nodad" for address in addresses]
    entering.ip_batch(entering.OWN, "\n".join(setup) + "\n")
    return [reach("tcp", 4)[0], reach("tcp", 6)[0]]


def fail(name: str) -> None:
    world = built()
    entering.output(entering.OWN, ["ip", "link", "set", places.UPLINK, "down"])
    exchange = {"tcp": probe.tcp, "udp": probe.udp}[name]
    exchange(Path(entering.OWN), world.namespace, world.address(4))


def build_twice_and_give_back() -> list[str]:
    before = sorted(p.name for p in Path("/sys/class/net").iterdir())
    built()
    during = sorted(p.name for p in Path("/sys/class/net").iterdir())
    built()
    assert sorted(p.name for p in Path("/sys/class/net").iterdir()) == during
    give_back(list(Record().things()))
    after = sorted(p.name for p in Path("/sys/class/net").iterdir())
    assert during == sorted([*before, places.UPLINK])
    assert after == before
    return [str(p) for p in (*places.NETNS.iterdir(), *places.STATE.iterdir())]


@pytest.mark.parametrize("name", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_probe_tells_whom_the_outside_saw(machine: Node, name: str, family: int) -> None:
    seen, expected = calls.call(machine, reach, name, family)
    assert seen == expected


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_probe_over_a_dead_link_fails(machine: Node, name: str) -> None:
    with pytest.raises(WeftError, match=f"{name.upper()} to 192.0.2.2 failed"):
        calls.call(machine, fail, name)


def test_outside_is_built_again_and_given_back_whole(machine: Node) -> None:
    assert calls.call(machine, build_twice_and_give_back) == []


def test_outside_keeps_away_from_ranges_that_the_machine_uses(machine: Node) -> None:
    used = ["192.0.2.2/24", "2001:db8:77::2/64"]
    assert calls.call(machine, reach_beside, used) == ["198.51.100.1", "2001:db8:177::1"]


def test_machine_that_uses_every_range_is_told() -> None:
    taken = [ip_network(f"{net}") for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.2/32")]
    with pytest.raises(WeftError, match="kept for documentation"):
        outside.choose(4, taken)
    assert outside.choose(4, [ip_network("0.0.0.0/0"), *taken[1:]]) == ip_network("192.0.2.0/30")
