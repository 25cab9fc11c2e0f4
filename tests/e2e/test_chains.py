"""weft later in a chain guards the interface that a reference plugin has made and touches nothing
of the maker's; weft first gives the plugins after it what they look for."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_host_ports import reach

from acceptance import Host, ask, keep
from chained import (
    NODE4,
    NODE6,
    RATES,
    Chain,
    Pod,
    assert_guarded,
    good,
    mac_of,
    ports,
    properties,
    ptp,
    ready,
    unchanged,
    until,
    weft,
)
from weft.lab import entering, probes
from weft.lab.runtime import Attachment
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6


@pytest.fixture
def site(host: Host) -> Iterator[Host]:
    with ready(host):
        yield host


def test_a_ptp_interface_is_guarded_and_stays_its_makers(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod, other = chain.add("pod"), chain.add("other")
    assert unchanged(pod)
    pod.speaks()
    pod.reaches(other)
    assert_guarded(pod, other, gateway=mac_of(site, pod.link))
    for each in (pod, other):
        good(each.check())
        each.drop()


def test_del_leaves_the_link_as_its_maker_made_it(site: Host) -> None:
    alone = Chain(site, ptp(), name="alone")
    made = alone.add("made")
    before = properties(site, made.link)
    made.drop()
    chain = Chain(site, ptp(), weft(capabilities={"portMappings": True, "bandwidth": True}))
    pod = chain.add("pod", portMappings=ports(8080, 80), bandwidth=RATES)
    link = pod.link
    assert properties(site, link) != before
    pod.speaks()
    assert site.send(ask("DEL", "pod", network="chain")).status == 0
    assert properties(site, link) == before
    assert reach(site.node.network, pod.addresses[0], 80, pod.network, 80).answered
    assert link not in site.guarded()
    assert site.send(ask("DEL", "pod", network="chain")).status == 0
    pod.drop()


def test_a_port_of_an_adopted_interface_is_reached_from_everywhere(site: Host) -> None:
    chain = Chain(site, ptp(), weft(capabilities={"portMappings": True}, ipMasq=True))
    pod, other = chain.add("pod", portMappings=ports(8080, 80)), chain.add("other")
    own = site.add("own")
    node, outside = site.node.network, site.wires.outside.network
    for at, (target, far) in enumerate(((NODE4, OUTSIDE_V4), (NODE6, OUTSIDE_V6))):
        assert reach(outside, target, 8080, pod.network, 80) == (far, True)
        assert reach(other.network, target, 8080, pod.network, 80) == (other.addresses[at], True)
        near = (own.addresses[at], True)
        assert reach(site.network("own"), target, 8080, pod.network, 80) == near
        assert reach(node, target, 8080, pod.network, 80).answered
        hairpin = reach(pod.network, target, 8080, pod.network, 80)
        assert hairpin.answered
        assert hairpin.source != pod.addresses[at]
        # masquerade only towards others than pods
        assert reach(pod.network, (OUTSIDE_V4, OUTSIDE_V6)[at], 70, outside, 70).source == target
        assert reach(pod.network, own.addresses[at], 70, site.network("own"), 70) == (
            pod.addresses[at],
            True,
        )
        back = reach(site.network("own"), pod.addresses[at], 70, pod.network, 70)
        assert back == (own.addresses[at], True)
    assert reach(node, "127.0.0.1", 8080, pod.network, 80).answered
    assert not reach(pod.network, "127.0.0.1", 8080, outside, 80, patience=0.3).answered
    site.drop("own")
    for each in (pod, other):
        good(each.check())
        each.drop()


def test_who_goes_first_does_not_matter(site: Host) -> None:
    """The maker's DEL, or the namespace's end, may come before ours."""
    chain, alone = Chain(site, ptp(), weft()), Chain(site, ptp(), name="chain")
    for by in ("maker", "namespace"):
        pod = chain.add("pod")
        if by == "maker":
            assert alone.runtime.delete(chain.attachment("pod")).is_good
        else:
            site.unmake(["pod"])
        assert site.send(ask("DEL", "pod", network="chain")).status == 0
        assert pod.addresses[0] not in site.guarded()
        if by == "maker":
            site.unmake(["pod"])
        else:
            good(alone.runtime.delete(chain.attachment("pod")))


def test_a_restart_adopts_it_again_whatever_it_is_called(site: Host) -> None:
    chain = Chain(site, ptp(), weft(capabilities={"bandwidth": True}))
    pod, other = chain.add("pod", bandwidth=RATES), chain.add("other")
    site.restart()
    good(pod.check())
    site.end()
    site.shell(f"ip link set {pod.link} name other-name")
    site.start()
    good(pod.check())
    pod.speaks()
    site.shell("ip link set other-name name a-third")
    until(lambda: pod.check().is_good)
    pod.speaks()
    assert_guarded(pod, other, gateway=mac_of(site, "a-third"))
    pod.drop()
    other.drop()


def test_a_lost_journal_is_rebuilt_from_the_links_record(site: Host) -> None:
    chain = Chain(site, ptp(), weft(capabilities={"portMappings": True}, ipMasq=True))
    pod = chain.add("pod", portMappings=ports(8080, 80))
    site.end()
    site.shell("rm /run/weft/journal.db*")
    site.start()
    (shown,) = json.loads(site.weft("get", "attachments", "-o", "json"))["items"]
    assert shown["spec"]["container"] == "pod"
    good(pod.check())
    pod.speaks()
    outside = site.wires.outside.network
    assert reach(outside, NODE4, 8080, pod.network, 80).source == OUTSIDE_V4
    assert reach(pod.network, OUTSIDE_V4, 70, outside, 70).source == NODE4
    pod.drop()


def test_del_without_an_agent_is_made_good_by_the_next(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod, left = chain.add("pod"), chain.add("left")
    site.end()
    pod.drop()
    site.unmake(["left"])
    site.start()
    assert pod.addresses[0] not in site.guarded()
    assert left.addresses[0] not in site.guarded()
    good(chain.runtime.delete(chain.attachment("left")))


def test_gc_forgets_it_and_leaves_the_link(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod, kept = chain.add("pod"), chain.add("kept")
    link = pod.link
    keys = {"cni.dev/valid-attachments": keep(("kept", "eth0"))}
    assert site.send(ask("GC", network="chain", **keys)).status == 0
    assert link not in site.guarded()
    assert pod.link == link
    assert kept.link in site.guarded()
    pod.drop()
    kept.drop()


def test_addresses_of_others_are_not_given_out_again(site: Host) -> None:
    own = site.add("first")
    site.drop("first")
    four = own.addresses[0]
    subnet = ".".join(four.split(".")[:3])
    free = f"{subnet}.{int(four.split('.')[3]) + 1}"
    fixed = {
        "type": "static",
        "addresses": [{"address": f"{free}/24", "gateway": f"{subnet}.254"}],
    }
    pod = Chain(site, ptp(fixed), weft()).add("pod")
    assert pod.addresses == [free]
    told = json.loads(site.weft("ipam", "show", "-o", "json"))
    assert told is not None
    taken = [site.add(f"p{n}").addresses[0] for n in range(3)]
    assert free not in taken
    # somebody who has an address of ours is refused, and nothing is left of the attempt
    clash = {**fixed, "addresses": [{"address": f"{taken[0]}/24", "gateway": f"{subnet}.254"}]}
    twice = Chain(site, ptp(clash), weft(), name="twice")
    outcome = twice.try_add("late")
    assert outcome.calls[-1].status == 1
    assert outcome.calls[-1].code == 7
    assert f"{taken[0]} is held by" in outcome.failure
    twice.drop("late")
    for n in range(3):
        site.drop(f"p{n}")
    pod.drop()


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        ({"type": "macvlan", "master": "eth0"}, "a link of kind macvlan"),
        ({"type": "host-device", "device": "spare"}, "a veth whose other end is in another"),
    ],
)
def test_what_has_no_end_on_the_node_is_refused_by_name(
    site: Host, maker: dict[str, object], words: str
) -> None:
    site.make(["elsewhere"])
    site.shell("ip link add spare type veth peer name other netns elsewhere")
    fixed = {"type": "static", "addresses": [{"address": "10.78.0.5/24"}]}
    chain = Chain(site, {**maker, "ipam": fixed}, weft())
    outcome = chain.try_add("pod")
    assert outcome.calls[0].status == 0, outcome.failure
    assert outcome.calls[-1].code == 7
    assert words in outcome.failure
    assert "eth0" in outcome.failure
    chain.drop("pod")
    site.unmake(["elsewhere"])
    site.shell("ip link del spare 2>/dev/null || true")


def test_an_interface_without_addresses_is_refused(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    previous = {**pod.result, "ips": []}
    assert site.send(ask("DEL", "pod", network="chain")).status == 0
    said = site.send(ask("ADD", "pod", network="chain", version="1.0.0", prevResult=previous))
    assert said.code == 7
    assert b"prevResult has no address for eth0" in said.stdout
    pod.drop()


def test_two_do_not_limit_one_link(site: Host) -> None:
    both = {"capabilities": {"bandwidth": True}}
    burst = {"ingressBurst": 10**7, "egressBurst": 10**7}
    chain = Chain(site, ptp(), {"type": "bandwidth", **both}, weft(**both))
    outcome = chain.try_add("pod", bandwidth={**RATES, **burst})
    assert outcome.calls[-1].status == 1
    assert "limits the rates" in outcome.failure
    chain.drop("pod", bandwidth={**RATES, **burst})


@pytest.mark.matrix(id="chains killed", full=100, reduced=2)
def test_an_agent_killed_while_it_adopts_or_gives_back_leaves_nothing(
    site: Host, count: int
) -> None:
    alone = Chain(site, ptp(), name="chain")
    chain = Chain(site, ptp(), weft(capabilities={"portMappings": True, "bandwidth": True}))
    dice = random.Random(7)
    before = site.snapshot()
    for number in range(count):
        made = alone.add("pod")
        properly = properties(site, made.link)
        wishes = {"portMappings": ports(8080, 80), "bandwidth": RATES}
        request = ask(
            "ADD",
            "pod",
            network="chain",
            version="1.0.0",
            prevResult=made.result,
            runtimeConfig=wishes,
        )
        if number % 2:  # while it gives back
            assert site.send(request).status == 0
            request = ask("DEL", "pod", network="chain")
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(site.send, request)
            time.sleep(dice.uniform(0.05, 0.2))  # the launcher is started in the node first
            site.end()
            pending.result()
        site.start()
        # a runtime sends DEL after every ADD, also one that failed: it may have been complete,
        # and only its answer lost
        assert site.send(ask("DEL", "pod", network="chain")).status == 0
        assert properties(site, made.link) == properly
        assert made.link not in site.guarded()
        good(chain.runtime.delete(chain.attachment("pod", **wishes)))
        site.unmake(["pod"])
    left = site.settled(before)
    assert not left, left


def test_many_at_once(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    names = [f"pod{n}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        pods = list(pool.map(chain.add, names))
        for pod in pods:
            good(pod.check())
            assert pod.link in site.guarded()
        assert len({pod.addresses[0] for pod in pods}) == len(names)
        list(pool.map(Pod.drop, pods))


def test_mac_that_is_changed_later_is_named(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    entering.ip_batch(pod.network, "link set eth0 address 02:00:00:00:00:99\n")
    said = pod.check_weft()
    assert said.status == 1
    assert "has MAC 02:00:00:00:00:99 instead of" in said.summary
    pod.drop()


def test_damage_to_what_is_ours_on_the_link_is_mended(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    link = pod.link
    before = properties(site, link)
    site.shell(f"ip link set {link} group default && ip link set {link} alias other")
    until(lambda: properties(site, link) == before)
    # an address that the maker gives its link is none of ours
    site.shell(f"ip addr add 10.77.0.200/32 dev {link}")
    site.restart()
    pod.speaks()
    assert "10.77.0.200" in site.shell(f"ip addr show dev {link}")
    assert "10.77.0.1/32" in site.shell(f"ip addr show dev {link}")
    pod.drop()


def test_teardown_gives_the_link_back(new_host: Callable[..., Host]) -> None:
    host = new_host()
    with ready(host):
        alone = Chain(host, ptp(), name="alone")
        host.start()
        made = alone.add("made")
        before = properties(host, made.link)
        made.drop()
        limited = Chain(host, ptp(), weft(capabilities={"portMappings": True, "bandwidth": True}))
        pod = limited.add("pod", portMappings=ports(8080, 80), bandwidth=RATES)
        plain = Chain(host, ptp(), weft()).add("plain")
        host.end()
        host.weft("agent", "--teardown")
        assert properties(host, pod.link) == before
        assert properties(host, plain.link) == before
        assert reach(host.node.network, pod.addresses[0], 80, pod.network, 80).answered


@pytest.mark.matrix(id="chains versions", full=3, reduced=1)
def test_older_results_name_the_interface_too(site: Host, count: int) -> None:
    for version in ("0.3.1", "0.4.0", "0.3.0")[:count]:
        chain = Chain(site, ptp(), weft(), version=version)
        pod = chain.add("pod")
        assert pod.link in site.guarded()
        assert unchanged(pod)
        pod.speaks()
        pod.drop()


def test_two_interfaces_of_one_container_are_adopted_apart(site: Host) -> None:
    other = {
        "type": "static",
        "addresses": [{"address": "10.78.0.5/24", "gateway": "10.78.0.1"}],
    }
    first, second = Chain(site, ptp(), weft()), Chain(site, ptp(other), weft(), name="second")
    pod = first.add("pod")
    further = Attachment(container="pod", netns="/run/netns/pod", ifname="net1")
    result = good(second.runtime.add(further)).result
    assert result is not None
    pod.speaks()
    assert probes.udp(site.node.network, pod.network, "10.78.0.5").answered
    assert len(json.loads(site.weft("get", "attachments", "-o", "json"))["items"]) == 2
    good(second.runtime.check(further))
    good(second.runtime.delete(further))
    pod.speaks()
    good(pod.check())
    pod.drop()


def test_adding_twice_is_refused_and_harms_nothing(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    again = ask("ADD", "pod", network="chain", version="1.0.0", prevResult=pod.result)
    said = site.send(again)
    assert said.status == 1
    assert b"attached to network chain" in said.stdout
    pod.speaks()
    good(pod.check())
    # another network's weft finds the link taken, and leaves it alone
    other = site.send(ask("ADD", "pod", network="other", version="1.0.0", prevResult=pod.result))
    assert other.code == 7
    assert b"guarded for chain/pod/eth0 already" in other.stdout
    assert site.send(ask("DEL", "pod", network="other")).status == 0
    pod.speaks()
    good(pod.check())
    assert pod.link in site.guarded()
    pod.drop()
