"""The demo's probes and its outside, between namespaces of a throw-away node."""

from __future__ import annotations

from collections.abc import Iterator
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


def built() -> None:
    record = Record()
    record.begin()
    outside.build(record)


def reach(name: str, family: int) -> list[str]:
    built()
    exchange = {"tcp": probe.tcp, "udp": probe.udp}[name]
    here = Path(entering.OWN)
    done = exchange(here, places.NETNS / places.OUTSIDE, outside.OUTSIDE[family])
    return [done.seen, outside.NODE[family]]


def fail(name: str) -> None:
    built()
    entering.output(entering.OWN, ["ip", "link", "set", places.UPLINK, "down"])
    exchange = {"tcp": probe.tcp, "udp": probe.udp}[name]
    exchange(Path(entering.OWN), places.NETNS / places.OUTSIDE, outside.OUTSIDE[4])


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
