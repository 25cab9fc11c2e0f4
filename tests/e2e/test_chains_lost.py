"""Adopted links that are lost: numbers that the kernel uses again, records that are gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from test_chains import ports, properties, until
from test_host_ports import reach

from acceptance import Host, ask
from chained import STATIC, Chain, bridge, ptp, ready, weft
from weft.lab import entering


@pytest.fixture
def site(host: Host) -> Iterator[Host]:
    with ready(host):
        yield host


def number(host: Host, link: str) -> int:
    (shown,) = json.loads(host.shell(f"ip -j link show {link}"))
    return int(shown["ifindex"])


def make_another(host: Host, index: int) -> None:
    """Somebody's pair for the container `new`, whose host end has this number."""
    host.make(["new"])
    host.shell(
        f"ip link add another index {index} alias theirs type veth peer name eth0 netns new; "
        "ip link set another up; ip addr add 10.99.0.1/24 dev another"
    )
    entering.ip_batch(
        host.network("new"),
        "link set lo up\nlink set eth0 up\naddr add 10.99.0.2/24 dev eth0\n"
        "route add default via 10.99.0.1\n",
    )


def answers(host: Host) -> bool:
    return reach(host.node.network, "10.99.0.2", 80, host.network("new"), 80).answered


def test_another_link_with_the_number_of_one_that_is_gone_is_left_alone(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    link, index = pod.link, number(site, pod.link)
    site.end()
    site.unmake(["pod"])
    until(lambda: link not in site.shell("ip link"))
    make_another(site, index)
    theirs = properties(site, "another")
    # an agent that starts ends what is gone, and touches nothing else
    site.start()
    assert properties(site, "another") == theirs
    assert answers(site)
    assert link not in site.guarded() and "another" not in site.guarded()
    assert chain.runtime.delete(chain.attachment("pod")).is_good
    site.unmake(["new"])


def test_who_gets_the_number_of_one_that_is_gone_is_attached(site: Host) -> None:
    chain = Chain(site, ptp(), weft())
    pod = chain.add("pod")
    link, index = pod.link, number(site, pod.link)
    site.unmake(["pod"])
    until(lambda: link not in site.shell("ip link"))
    make_another(site, index)
    theirs = properties(site, "another")
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "another"}, {"name": "eth0", "sandbox": "/run/netns/new"}],
        "ips": [{"address": "10.99.0.2/24", "interface": 1}],
    }
    said = site.send(ask("ADD", "new", network="chain", version="1.0.0", prevResult=previous))
    assert said.status == 0, said.stdout
    assert "another" in site.guarded()
    # the late DEL of the first takes nothing from the second
    assert chain.runtime.delete(chain.attachment("pod")).is_good
    assert "another" in site.guarded()
    assert properties(site, "another") != theirs
    assert answers(site)
    assert site.send(ask("DEL", "new", network="chain")).status == 0
    assert properties(site, "another") == theirs
    site.unmake(["new"])


@pytest.mark.matrix(id="chains bridge renamed", full=2, reduced=1)
def test_a_bridge_that_is_renamed_leads_nobody_to_the_nodes_loopback(
    site: Host, count: int
) -> None:
    for running in (True, False)[:count]:
        see_renamed(site, running=running)


def see_renamed(site: Host, *, running: bool) -> None:
    chain = Chain(site, bridge(), weft(capabilities={"portMappings": True}))
    pod = chain.add("pod", portMappings=ports(8080, 80))
    other = Chain(site, bridge(STATIC), name="foreign").add("other")
    if not running:
        site.end()
    site.shell("ip link set cni9 down; ip link set cni9 name cni8; ip link set cni8 up")
    if not running:
        site.start()
    until(lambda: '"cni8"' in site.shell("nft list set inet weft localnet"))
    entering.ip_batch(site.node.network, "addr add 127.0.0.77/32 dev lo\n")
    entering.ip_batch(other.network, "route add 127.0.0.77/32 via 10.77.0.1 dev eth0\n")
    entering.output(other.network, ["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"])
    node = site.node.network
    assert not reach(other.network, "127.0.0.77", 70, node, 70, patience=0.3).answered
    assert reach(node, "127.0.0.1", 8080, pod.network, 80).answered
    assert pod.check_weft().status == 0
    entering.ip_batch(node, "addr del 127.0.0.77/32 dev lo\n")
    pod.drop()
    assert site.shell("cat /proc/sys/net/ipv4/conf/cni8/route_localnet") == "0\n"
    other.drop()
    site.shell("ip link del cni8")


@pytest.mark.matrix(id="chains torn down", full=2, reduced=1)
def test_teardown_without_journal_or_link_leaves_no_way_to_the_loopback_address(
    new_host: Callable[..., Host], count: int
) -> None:
    host = new_host()
    words, told = ports(8080, 80), weft(capabilities={"portMappings": True})
    fixed = {"type": "static", "addresses": [{"address": "10.78.0.5/24"}]}
    with ready(host):
        routed, bridged = Chain(host, ptp(), told), Chain(host, bridge(fixed), told, name="bridged")
        for lost in (True, False)[:count]:
            host.start()
            pod = routed.add("pod", portMappings=words)
            port = bridged.add("port", portMappings=ports(8081, 80)).link
            files = f"cd /proc/sys/net/ipv4/conf; cat {pod.link}/route_localnet cni9/route_localnet"
            assert host.shell(files) == "1\n1\n"
            host.end()
            host.unmake(["port"])
            until(lambda name=port: name not in host.shell("ip link"))
            if lost:
                host.shell("rm /run/weft/journal.db*")
            host.weft("agent", "--teardown")
            assert host.shell(files) == "0\n0\n"
            for chain, name in ((routed, "pod"), (bridged, "port")):
                assert chain.runtime.delete(chain.attachment(name)).is_good
            host.unmake(["pod"])
