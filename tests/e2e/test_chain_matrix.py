"""weft before and after each of the reference plugins of Debian, with real traffic.

Every chain is run twice on its node: what the reference plugins leave behind for ever (their base
chains, a bridge) is there after the first time, so after the second nothing at all may be new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from test_host_ports import reach

from acceptance import Host, warm
from chained import (
    NODE4,
    NODE6,
    STATIC,
    Chain,
    Json,
    Pod,
    assert_guarded,
    bridge,
    mac_of,
    ptp,
    ready,
    weft,
)
from weft.lab import probes

CAPABILITIES: Json = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {
        "ingressRate": 10**8,
        "ingressBurst": 10**7,
        "egressRate": 10**8,
        "egressBurst": 10**7,
    },
}
FURTHER: dict[str, Json] = {
    "portmap": {"type": "portmap", "capabilities": {"portMappings": True}},
    "firewall": {"type": "firewall"},
    "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    "tuning": {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
    "sbr": {"type": "sbr"},
}
MAKERS: dict[str, Callable[..., Json]] = {"bridge": bridge, "ptp": ptp}
ALL = (FURTHER["tuning"], FURTHER["portmap"], FURTHER["firewall"], FURTHER["bandwidth"])

Case = tuple[str, tuple[Json, ...]]


def cases() -> Iterator[Case]:
    """The most telling ones first: a reduced run takes those."""
    for name, maker in MAKERS.items():
        yield f"{name} with all, weft last", (maker(), *ALL, weft())
    yield "weft first, with all", (weft(), *ALL)
    for name, maker in MAKERS.items():
        yield f"{name}, weft, all", (maker(), weft(), *ALL)
        yield f"{name} (static), weft", (maker(STATIC), weft())
        for word, plugin in FURTHER.items():
            yield f"{name}, {word}, weft", (maker(), plugin, weft())
            yield f"{name}, weft, {word}", (maker(), weft(), plugin)
    for word, plugin in FURTHER.items():
        yield f"weft, {word}", (weft(), plugin)


CASES = dict(cases())


@pytest.mark.matrix(id="chains", full=len(CASES), reduced=1)
def test_weft_works_before_and_after_each_of_the_reference_plugins(
    new_host: Callable[..., Host], count: int
) -> None:
    host = new_host()
    warm(host)
    with ready(host):
        for name, plugins in list(CASES.items())[:count]:
            _once(host, name, plugins)
            before = host.snapshot()
            _once(host, name, plugins, thorough=True)
            left = host.settled(before)
            assert not left, f"{name} left:\n" + "\n".join(left[:30])


def _once(host: Host, name: str, plugins: tuple[Json, ...], *, thorough: bool = False) -> None:
    chain = Chain(host, *plugins)
    types = [plugin["type"] for plugin in plugins]
    wanted = {
        word: CAPABILITIES[word] for plugin in plugins for word in plugin.get("capabilities", ())
    }
    pod = chain.add("pod", **wanted)
    if thorough:
        _look(host, chain, pod, types, fixed=plugins[0].get("ipam") == STATIC)
    # those of the others fail by themselves: portmap 1.1.1 asks ip6tables for IPv4 addresses
    said = pod.check_weft()
    if types[0] == "weft" and "sbr" in types:  # it moves the routes that weft has promised
        assert "the route to 0.0.0.0/0 through eth0 in the container is missing" in said.summary
    else:
        assert said.status == 0, f"{name}: {said.summary}"
    pod.drop()


def _look(host: Host, chain: Chain, pod: Pod, types: list[str], *, fixed: bool) -> None:
    if "sbr" in types:  # its routes are for who has chosen a source
        for address in pod.addresses:
            assert probes.tcp(host.node.network, pod.network, address).answered
            assert probes.icmp(host.node.network, address).answered
        return
    pod.speaks()
    if "portmap" in types:
        outside = host.wires.outside.network
        assert reach(outside, NODE4, 8080, pod.network, 80).answered
        assert reach(outside, NODE6, 8080, pod.network, 80).answered
    if fixed:
        return
    other = chain.add("other")
    pod.reaches(other)
    if types[0] != "weft":
        assert_guarded(pod, other, gateway=_gateway(host, pod))
    other.drop()


def _gateway(host: Host, pod: Pod) -> str:
    first = pod.result["interfaces"][0]["name"]
    return mac_of(host, first)
