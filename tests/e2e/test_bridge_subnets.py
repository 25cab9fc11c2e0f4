"""Bridge mode with nothing else said: subnets and gateways of pools that routed networks share, and
nodes of one family."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import permutations
from typing import Any

import pytest

from acceptance import Host, ask, pool, problems
from reached import published, reach
from weft.lab import calls, cluster, entering
from weft.lab.wiring import node_addresses
from weft.model.bridge import bridge_name

NODE4, NODE6 = node_addresses(0)
YARD = {"network": "yard", "mode": "bridge"}
NEXT = {"network": "next", "mode": "bridge"}


def gateway_of(said: Any) -> str:
    return str(next(ip["gateway"] for ip in said.json["ips"] if "." in ip["address"]))


def reaches(host: Host, origin: str, goal: str, addresses: list[str], own: list[str]) -> None:
    """Both families, each under the container's own address."""
    for mine, its in zip(own, addresses, strict=True):
        assert reach(host.network(origin), its, 80, host.network(goal), 80) == (mine, True)


def test_a_bridge_on_the_default_pools_has_a_gateway_that_stays(
    new_host: Callable[..., Host],
) -> None:
    host = new_host()
    host.start()
    a, b = host.add("a", **YARD), host.add("b", **YARD)
    first = gateway_of(a)
    assert (first, gateway_of(b)) == ("10.244.0.1", "10.244.0.1")
    assert next(ip["address"] for ip in a.json["ips"]) == "10.244.0.2/16"  # type: ignore[index]
    plain, other = host.add("plain"), host.add("other", **NEXT)
    assert gateway_of(other) not in {first, *plain.addresses, *other.addresses}
    everybody = {"a": a, "b": b, "plain": plain, "other": other}

    def whole(*names: str) -> None:
        for name, goal in permutations(names, 2):
            reaches(host, name, goal, everybody[goal].addresses, everybody[name].addresses)
        assert reach(host.network("a"), first, 80, host.node.network, 80).answered

    whole(*everybody)
    assert "pool-overlap" not in host.weft("status", "-o", "json")
    host.weft("ipam", "check")
    before = host.snapshot()
    host.restart()
    assert host.settled(before) == []
    host.end()
    host.shell("rm -f /run/weft/journal.db*")
    host.start()
    assert host.settled(before) == []
    whole("a", "other")
    host.end()
    host.shell(f"rm -f /run/weft/journal.db*; ip link del {bridge_name('yard')}")
    host.start()
    assert host.settled(before) == []
    assert gateway_of(host.add("c", **YARD)) == first
    said = host.weft("ipam", "release", first, good=False)
    assert "is the gateway on the bridge" in said
    for name, keys in (("c", YARD), ("a", YARD), ("b", YARD), ("other", NEXT)):
        host.drop(name, **keys)
    assert host.shell("ip -br link show type bridge") == ""
    again = host.add("a", **YARD)
    assert gateway_of(again) == first
    host.drop("a", **YARD)
    host.drop("plain")
    assert host.used() == 0


def test_a_gateway_is_the_first_address_that_nobody_has(new_host: Callable[..., Host]) -> None:
    host = new_host()
    host.start()
    host.apply(pool("small", "10.22.0.0/29"))
    keys = {"pools": ["small"]}
    routed = [host.add(name, **keys).addresses[0] for name in ("r1", "r2")]
    assert routed == ["10.22.0.1", "10.22.0.2"]
    asked = ask("ADD", "a", **YARD, **keys, runtimeConfig={"ips": ["10.22.0.3"]})
    host.make(["a"])
    said = host.send(asked)
    assert (said.addresses[0], gateway_of(said)) == ("10.22.0.3", "10.22.0.4")
    host.make(["b"])
    wanted = {**YARD, **keys, "runtimeConfig": {"ips": ["10.22.0.4"]}}
    assert "in use" in json.dumps(host.send(ask("ADD", "b", **wanted)).json)
    names = [f"p{n}" for n in range(2)]
    host.make(names)
    assert not problems(host.storm([ask("ADD", name, **YARD, **keys) for name in names]))
    assert host.send(ask("ADD", "b", **YARD, **keys)).status != 0  # 6 addresses, one a bridge's
    host.restart()
    assert host.send(ask("ADD", "b", **YARD, **keys)).status != 0
    assert not problems(host.storm([ask("DEL", n, **YARD, **keys) for n in (*names, "a", "b")]))
    # an ADD that comes to nothing leaves no gateway behind
    bad = ask("ADD", "b", **YARD, **keys, mtu=20)
    assert host.send(bad).status != 0
    assert host.used() == 2
    host.weft("ipam", "check")


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_bridge_on_a_node_of_one_family(
    new_host: Callable[..., Host], families: cluster.Families
) -> None:
    host = new_host(cluster.settings(families))
    host.start()
    ports = published((8080, 80))
    a, b = host.add("a", **YARD, **ports), host.add("b", **YARD)
    assert len(a.addresses) == len(b.addresses) == 1
    assert (":" in a.addresses[0]) == (families == "ipv6")
    reaches(host, "a", "b", b.addresses, a.addresses)
    node = NODE4 if families == "ipv4" else NODE6
    for origin in (host.network("a"), host.network("b"), host.node.network):
        assert reach(origin, node, 8080, host.network("a"), 80).answered
    if families == "ipv4":
        assert reach(host.node.network, "127.0.0.1", 8080, host.network("a"), 80).answered
    routes = entering.output(host.network("a"), ["ip", "-6", "route"])
    assert ("via fe80::1" in routes) == (families == "ipv6")
    host.restart()
    reaches(host, "b", "a", a.addresses, b.addresses)
    host.drop("a", **YARD, **ports)
    host.drop("b", **YARD)
    assert host.shell("ip -br link show type bridge") == ""


def _by_loopback(port: int) -> str:
    """Runs in the node: the answer to a word, or why there was none."""
    with socket.socket(socket.AF_INET6) as client:
        client.settimeout(5)
        deadline = time.monotonic() + 5
        while client.connect_ex(("::1", port)):  # the relay may just be starting
            if time.monotonic() > deadline:
                return "nobody leads there"
            time.sleep(0.02)
        client.send(b"word")
        return client.recv(16).decode()


@pytest.mark.parametrize("way", ["hook", "relay"])
def test_a_port_of_a_container_on_a_bridge_is_reached_by_the_loopback_of_ipv6(
    new_host: Callable[..., Host], way: str
) -> None:
    host = new_host(f"ports: {{ipv6Loopback: {way}}}\n")
    host.start()
    ports = published((8080, 80))
    host.add("a", **YARD, **ports)
    with (
        closing(entering.socket_in(host.network("a"), socket.AF_INET6, socket.SOCK_STREAM)) as own,
        ThreadPoolExecutor(1) as beside,
    ):
        own.bind(("", 80))
        own.listen(1)
        own.settimeout(10)
        said = beside.submit(calls.call, host.node, _by_loopback, 8080)
        own.settimeout(6)
        try:
            peer, _ = own.accept()
        except TimeoutError:
            pytest.fail(said.result())
        with closing(peer):
            peer.sendall(peer.recv(16))
        assert said.result() == "word"
    host.drop("a", **YARD, **ports)
