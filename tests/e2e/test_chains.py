"""weft later in a chain guards the interface that a reference plugin has made and touches nothing
of the maker's; weft first gives the plugins after it what they look for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from acceptance import Host
from chained import (
    Chain,
    Pod,
    assert_guarded,
    mac_of,
    ptp,
    ready,
    weft,
)
from weft.lab import probes


@pytest.fixture
def site(host: Host) -> Iterator[Host]:
    with ready(host):
        yield host


def unchanged(pod: Pod) -> bool:
    """weft answered what it was given; an empty `dns`, which is none, apart."""
    calls = pod.outcome.calls
    at = next(n for n, call in enumerate(calls) if call.plugin == "weft")
    given, said = (calls[n].json or {} for n in (at - 1, at))
    return {k: v for k, v in given.items() if v} == {k: v for k, v in said.items() if v}


def properties(host: Host, link: str) -> tuple[object, ...]:
    """What of a link weft changes while it is adopted."""
    (shown,) = json.loads(host.shell(f"ip -j -d link show {link}"))
    localnet = host.shell(f"cat /proc/sys/net/ipv4/conf/{link}/route_localnet").strip()
    queues = host.shell(f"tc qdisc show dev {link}")
    return shown.get("group"), shown.get("ifalias"), shown["mtu"], localnet, queues


def test_a_ptp_interface_is_guarded_and_stays_its_makers(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod, other = chain.add("pod"), chain.add("other")
    assert unchanged(pod)
    pod.speaks()
    pod.reaches(other)
    assert_guarded(pod, other, gateway=mac_of(site, pod.link))
    for each in (pod, other):
        outcome = each.check()
        assert outcome.is_good, outcome.failure
        each.drop()


def test_del_leaves_the_link_as_its_maker_made_it(site: Host) -> None:
    chain = Chain(site, ptp(), weft(capabilities={"portMappings": True, "bandwidth": True}))
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    rates = {"ingressRate": 10**8, "egressRate": 10**8}
    alone = Chain(site, ptp(), name="alone")
    made = alone.add("made")
    before = properties(site, made.link)
    made.drop()
    pod = chain.add("pod", portMappings=ports, bandwidth=rates)
    link, attachment = pod.link, chain.attachment("pod")
    assert properties(site, link) != before
    pod.speaks()
    weft_alone = Chain(site, weft(), name="chain").runtime
    assert weft_alone.delete(attachment).is_good
    assert properties(site, link) == before
    assert probes.udp(site.node.network, pod.network, pod.addresses[0]).answered
    assert link not in site.guarded()
    pod.drop()
