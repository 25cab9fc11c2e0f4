"""T12: pools that run out, and what is given again when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from acceptance import SLACK, Host, ask, pool, problems, watched

NO_IPV6 = "network:\n  ipv6: off\n"
SHORT = NO_IPV6 + "ipam:\n  cooldown: 4\n  cooldownFloor: 1\n"
LONG = NO_IPV6 + "ipam:\n  cooldown: 60\n  cooldownFloor: 60\n"


@contextmanager
def _small(new_host: Callable[..., Host], settings: str, *pools: dict[str, Any]) -> Iterator[Host]:
    """A host whose only pools are these."""
    made = new_host(settings)
    made.start()
    made.weft("delete", "ippool", "default-ipv4")
    made.apply(*pools)
    made.end()
    with watched(made) as host:
        yield host


def _names(count: int) -> list[str]:
    return [f"pod-{n}" for n in range(count)]


def _fill(host: Host, names: list[str]) -> dict[str, str]:
    """Attach all; the address of each."""
    host.make(names)
    said = host.storm([ask("ADD", name) for name in names])
    assert not problems(said)
    return {name: answer.addresses[0] for name, answer in zip(names, said, strict=True)}


def _empty(host: Host, names: list[str]) -> None:
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    host.unmake(names)


@pytest.mark.matrix(id="T12", full=1000, reduced=60)
def test_a_full_range_refuses_in_time_and_gives_a_freed_address_exactly_once(
    new_host: Callable[..., Host], count: int
) -> None:
    """All addresses of a /24 (a /26 in the reduced run), then `count` further ADDs and one DEL."""
    cidr = "10.201.7.0/24" if count >= 254 else "10.201.7.0/26"
    with _small(new_host, SHORT, pool("small", cidr)) as host:
        time.sleep(1.5)  # the warm-up's address is past the floor
        names = _names(ip_network(cidr).num_addresses - 2)
        given = _fill(host, names)
        assert set(given.values()) == {str(a) for a in ip_network(cidr).hosts()}

        status = host.send(ask("STATUS"))
        assert not problems([status], status=1, code=50)
        before = host.snapshot()
        refused = host.storm([ask("ADD", f"more-{n}", pod=names[0]) for n in range(count)])
        assert not problems(refused, status=1, code=11)
        assert max(said.seconds for said in refused) <= 1.0 * SLACK
        assert all(b"small" in said.stdout for said in refused), "the message names the pool"
        assert host.settled(before) == []

        freed = given["pod-7"]
        assert host.send(ask("DEL", "pod-7")).status == 0
        released = time.monotonic()
        host.make(["after"])
        early = host.send(ask("ADD", "after"))
        if time.monotonic() - released < 1.0:
            assert not problems([early], status=1, code=11)
        time.sleep(max(0.0, released + 1.5 - time.monotonic()))

        racers = [f"racer-{n}" for n in range(16)]
        host.make(racers)
        again = host.storm([ask("ADD", name) for name in racers], workers=16)
        winners = [said for said in again if said.status == 0]
        if early.status == 0:
            assert winners == []
        else:
            assert [said.addresses for said in winners] == [[freed]]
        losers = [said for said in again if said.status != 0]
        assert not problems(losers, status=1, code=11)
        _empty(host, [*names, "after", *racers])


def test_a_freed_address_is_kept_back_for_the_whole_floor(
    new_host: Callable[..., Host],
) -> None:
    with _small(new_host, LONG, pool("pair", "10.201.8.0/31")) as host:
        # the warm-up has taken one of the two, which rests now
        first = _fill(host, ["one"])
        host.make(["two"])
        for _ in range(3):
            assert not problems([host.send(ask("ADD", "two"))], status=1, code=11)
        assert not problems([host.send(ask("STATUS"))], status=1, code=50)
        host.restart()  # and a restart does not forget what rests
        assert not problems([host.send(ask("ADD", "two"))], status=1, code=11)
        assert first["one"] in ("10.201.8.0", "10.201.8.1")
        _empty(host, ["one", "two"])


def test_the_longest_unused_address_is_given_first(new_host: Callable[..., Host]) -> None:
    """Six usable addresses; with three freed in an order, that is the order they come back in."""
    with _small(new_host, SHORT, pool("six", "10.201.9.0/29")) as host:
        time.sleep(1.5)
        names = _names(6)
        given = _fill(host, names)
        order = ["pod-4", "pod-1", "pod-3"]
        for name in order:
            assert host.send(ask("DEL", name)).status == 0
        time.sleep(1.5)  # all three past the floor and none past the cooldown

        back = [host.send(ask("ADD", name)).addresses for name in ("pod-1", "pod-3", "pod-4")]

        assert back == [[given[name]] for name in order]
        _empty(host, names)


@pytest.mark.parametrize(
    "cidr", ["10.201.10.0/31", "10.201.10.7/32", "fd77:1:2::8/127", "fd77:1:2::9/128"]
)
def test_every_address_of_the_smallest_ranges_is_usable(
    new_host: Callable[..., Host], cidr: str
) -> None:
    family = ip_network(cidr).version
    # the other family keeps its default range, so that a pod is complete
    with watched(new_host(f"network:\n  ipv{10 - family}: off\n")) as host:
        host.apply(pool("tiny", cidr))
        wanted = {str(address) for address in ip_network(cidr)}
        names = _names(len(wanted))
        host.make([*names, "more"])
        said = host.storm([ask("ADD", name, pools=["tiny"]) for name in names])
        assert not problems(said)
        assert {a for answer in said for a in answer.addresses} == wanted
        refused = host.send(ask("ADD", "more", pools=["tiny"]))
        assert not problems([refused], status=1, code=11)
        assert ip_address(said[0].addresses[0]).version == family
        for name in names:
            assert host.shell(f"ip netns exec {name} ip -o addr show dev eth0").count("\n") >= 1
        _empty(host, [*names, "more"])
        host.weft("delete", "ippool", "tiny")
