"""What a container gets from the real agent: addresses, routes, guards, wishes, and refusals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from acceptance import SLACK, Host, ask, host_link, pod_mac, pool, problems, watched
from weft.lab import entering, probes, truth
from weft.lab.ears import Ear, nonce
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses

HOST_MAC = "0a:77:65:66:74:00"
NODE4, NODE6 = node_addresses(0)


def _sysctl(host: Host, pod: str | None, path: str) -> str:
    prefix = f"ip netns exec {pod} " if pod else ""
    return host.shell(f"{prefix}cat /proc/sys/net/{path}").strip()


def _status(host: Host) -> dict:
    return json.loads(host.weft("status", "-o", "json"))


# -- the wiring


def test_both_families_are_there_when_add_answers(host: Host) -> None:
    said = host.add("pod")
    four, six = said.addresses
    inside = host.network("pod")

    assert truth.addresses(inside, "eth0") == {f"{four}/32", f"{six}/128"}
    assert truth.links(inside)["eth0"]["address"] == pod_mac("pod")
    assert truth.is_up(inside, "eth0")
    assert truth.addresses(inside, "lo") == {"127.0.0.1/8", "::1/128"}
    assert truth.is_up(inside, "lo")
    for family, gateway in ((4, "169.254.1.1"), (6, "fe80::1")):
        (default,) = [r for r in truth.routes(inside, family) if r["dst"] == "default"]
        assert default["gateway"] == gateway
        assert truth.neighbours(inside)["eth0", gateway] == HOST_MAC
    for address in (four, six):
        assert truth.neighbours(host.node.network)[host_link("pod"), address] == pod_mac("pod")
    assert truth.addresses(host.node.network, host_link("pod")) == set()
    for goal in (OUTSIDE_V4, OUTSIDE_V6):
        assert probes.icmp(inside, goal).answered
    host.drop("pod")


def test_no_address_waits_for_duplicate_detection(host: Host) -> None:
    host.make(["pod"])
    said, shown = host.shell_after_add("pod", "ip netns exec pod ip -6 -o addr show")
    assert said.status == 0
    assert "tentative" not in shown
    host.drop("pod")


def test_the_promised_sysctls_hold_on_both_sides(host: Host) -> None:
    host.add("pod")
    link = host_link("pod")
    quiet = {"accept_ra": "0", "autoconf": "0", "accept_redirects": "0", "addr_gen_mode": "1"}
    for name, value in quiet.items():
        assert _sysctl(host, None, f"ipv6/conf/{link}/{name}") == value
        assert _sysctl(host, "pod", f"ipv6/conf/eth0/{name}") == value
    for where, name in ((None, link), ("pod", "eth0")):
        assert _sysctl(host, where, f"ipv4/conf/{name}/accept_redirects") == "0"
    host.drop("pod")


def test_names_and_addresses_of_hardware_are_the_same_on_every_node_and_every_time(
    host: Host, new_host: Callable[..., Host]
) -> None:
    first = host.add("pod").json
    host.drop("pod")
    again = host.add("pod").json
    with watched(new_host()) as other:
        elsewhere = other.add("pod").json
        other.drop("pod")
    for body in (first, again, elsewhere):
        assert body["interfaces"] == first["interfaces"]
    assert first["interfaces"][0]["name"] == host_link("pod")
    host.drop("pod")


def test_the_links_alias_is_the_documented_record(host: Host) -> None:
    said = host.add("pod", cni_args="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till")
    alias = truth.links(host.node.network)[host_link("pod")]["ifalias"]
    mac = pod_mac("pod").replace(":", "")
    assert alias == f"weft:1 weft pod eth0 {mac} m46 {','.join(said.addresses)} shop/till"
    host.drop("pod")


# -- families and ways out


def test_with_ipv6_off_on_the_host_pods_get_ipv4_and_status_says_why(
    new_host: Callable[..., Host],
) -> None:
    made = new_host()
    made.shell("for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done")
    with watched(made) as host:
        said = host.add("pod")
        assert len(said.addresses) == 1
        assert "." in said.addresses[0]
        assert truth.addresses(host.network("pod"), "eth0") == {f"{said.addresses[0]}/32"}
        assert probes.icmp(host.network("pod"), OUTSIDE_V4).answered
        families = _status(host)["families"]
        assert families["ipv4"]["enabled"] is True
        assert families["ipv6"]["enabled"] is False
        assert families["ipv6"]["why"]
        host.drop("pod")


def test_without_a_way_out_pods_get_cluster_routes_and_no_default_route(
    new_host: Callable[..., Host],
) -> None:
    made = new_host()
    made.shell("ip -6 route del default")
    with watched(made) as host:
        one, two = host.add("one"), host.add("two")
        inside = host.network("one")
        assert not [r for r in truth.routes(inside, 6) if r["dst"] == "default"]
        cidr = next(p["cidr"] for p in _status(host)["pools"] if ":" in p["cidr"])
        assert [r["gateway"] for r in truth.routes(inside, 6) if r["dst"] == cidr] == ["fe80::1"]
        assert one.json["routes"][1:] == [{"dst": cidr, "gw": "fe80::1"}]
        assert probes.udp(inside, host.network("two"), two.addresses[1]).answered
        ways = _status(host)["waysOut"]
        assert ways["ipv4"]["present"] is True
        assert ways["ipv6"]["present"] is False
        assert ways["ipv6"]["why"]
        host.drop("one")
        host.drop("two")


@pytest.mark.parametrize("masquerade", [True, False])
def test_outside_a_pod_has_the_nodes_address_or_its_own(host: Host, masquerade: bool) -> None:
    said = host.add("pod", ipMasq=masquerade)
    for own, node, goal in zip(
        said.addresses, (NODE4, NODE6), (OUTSIDE_V4, OUTSIDE_V6), strict=True
    ):
        mark = nonce()
        with Ear(host.wires.outside.network) as ear:
            # without masquerade the outside has no way back, so the ear is the judge
            probes.icmp(host.network("pod"), goal, mark=mark, patience=0.3)
            frame = ear.hears(mark, 3.0)
        assert frame is not None
        source = frame[26:30] if "." in own else frame[22:38]
        assert source == _packed(node if masquerade else own)
    host.drop("pod")


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def test_pods_see_each_other_under_their_own_addresses(host: Host) -> None:
    one, two = host.add("one"), host.add("two")
    for source, goal in zip(one.addresses, two.addresses, strict=True):
        heard = probes.udp(host.network("one"), host.network("two"), goal)
        assert heard.answered
        assert heard.source == source
        assert probes.tcp(host.network("one"), host.network("two"), goal).answered
    host.drop("one")
    host.drop("two")


# -- wishes


def test_requested_addresses_and_hardware_are_given_in_the_documented_precedence(
    host: Host,
) -> None:
    in_use = host.add("base").addresses[0]
    base = in_use.rsplit(".", 1)[0]
    wishes = {
        "runtimeConfig": {"ips": [f"{base}.40"], "mac": "0a:00:00:00:00:40"},
        "args": {"cni": {"ips": [f"{base}.41"], "mac": "0a:00:00:00:00:41"}},
    }
    said = host.add("pod", cni_args=f"IP={base}.42;MAC=0a:00:00:00:00:42", **wishes)
    assert said.addresses[0] == f"{base}.40"
    assert truth.links(host.network("pod"))["eth0"]["address"] == "0a:00:00:00:00:40"
    host.drop("pod")
    wishes.pop("runtimeConfig")
    said = host.add("second", cni_args=f"IP={base}.42;MAC=0a:00:00:00:00:42", **wishes)
    assert said.addresses[0] == f"{base}.41"
    assert probes.icmp(host.network("second"), OUTSIDE_V4).answered
    host.drop("second")

    host.make(["third"])
    for taken in (in_use, "192.0.2.9"):  # in use, and in no pool
        said = host.send(ask("ADD", "third", cni_args=f"IP={taken}"))
        assert not problems([said], status=1, code=7)
    host.unmake(["third"])
    host.drop("base")


def test_a_disabled_pool_gives_no_more_and_a_new_one_serves_at_once(host: Host) -> None:
    old = host.add("old")
    host.apply(pool("fresh", "10.202.0.0/24"))
    cidr = next(p["cidr"] for p in _status(host)["pools"] if p["name"] == "default-ipv4")
    host.apply(pool("default-ipv4", cidr, disabled=True))
    said = host.add("new")
    assert said.addresses[0].startswith("10.202.0.")
    assert probes.udp(host.network("old"), host.network("new"), said.addresses[0]).answered
    assert probes.icmp(host.network("new"), OUTSIDE_V4).answered

    host.apply(pool("default-ipv4", cidr))
    host.drop("new")
    host.weft("delete", "ippool", "fresh")
    assert host.add("next").addresses[0].rsplit(".", 1)[0] == old.addresses[0].rsplit(".", 1)[0]
    host.drop("next")
    host.drop("old")


# -- refusals that leave what is there


def test_an_interface_that_exists_is_refused_and_left_as_it_is(host: Host) -> None:
    said = host.add("pod")
    before = entering.output(host.network("pod"), ["ip", "addr"])

    assert not problems([host.send(ask("ADD", "pod"))], status=1, code=7)
    other = host.send(ask("ADD", "other", pod="pod"))

    assert other.status == 1
    assert other.is_clean
    assert host.pod_links == {host_link("pod")}
    assert entering.output(host.network("pod"), ["ip", "addr"]) == before
    assert host.send(ask("CHECK", "pod", prevResult=said.json)).status == 0
    assert probes.icmp(host.network("pod"), OUTSIDE_V6).answered
    host.drop("pod")


def test_a_foreign_link_of_the_interfaces_name_is_left_alone(host: Host) -> None:
    host.make(["pod"])
    host.shell(
        "ip -n pod link add eth0 type veth peer name eth9 && "
        "ip -n pod addr add 10.1.1.1/24 dev eth0"
    )

    assert host.send(ask("ADD", "pod")).status == 1
    assert host.send(ask("DEL", "pod")).status == 0

    assert truth.addresses(host.network("pod"), "eth0") == {"10.1.1.1/24"}
    assert host.pod_links == set()
    host.unmake(["pod"])


def test_a_namespace_path_that_is_used_again_belongs_to_the_new_container(host: Host) -> None:
    host.add("first", pod="shared")
    host.unmake(["shared"])
    second = host.add("second", pod="shared")

    assert host.send(ask("DEL", "first", pod="shared")).status == 0

    assert host.pod_links == {host_link("second")}
    assert host.send(ask("CHECK", "second", pod="shared", prevResult=second.json)).status == 0
    assert probes.icmp(host.network("shared"), OUTSIDE_V4).answered
    host.drop("second", pod="shared")


def test_the_same_attachment_can_be_made_again_when_its_namespace_died_without_a_deletion(
    host: Host,
) -> None:
    host.add("pod")
    host.unmake(["pod"])
    host.add("pod")
    assert probes.icmp(host.network("pod"), OUTSIDE_V4).answered
    assert host.used() == 2
    host.drop("pod")


# -- guards are fatal


def test_an_add_whose_guards_cannot_be_set_fails_and_leaves_nothing(host: Host) -> None:
    """The files below /proc/sys cannot be written any more: a host that is locked down."""
    host.make(["pod"])
    host.end()
    host.shell("mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys/net")
    host.start()
    before = host.snapshot()
    said = host.send(ask("ADD", "pod"))
    left = host.settled(before)
    inside = set(truth.links(host.network("pod"))) - {"lo"}
    host.end()
    host.shell("umount /proc/sys/net")
    host.start()

    assert said.status == 1
    assert said.is_clean
    assert b"Sysctl" in said.stdout
    assert left == []
    assert inside == set()
    assert host.send(ask("ADD", "pod")).status == 0
    host.drop("pod")


def test_no_add_succeeds_without_its_packet_rules(new_host: Callable[..., Host]) -> None:
    """Somebody deletes our table just before an ADD: it is made again first."""
    with watched(new_host("ruleset: {protected: never}")) as host:
        _add_without_rules(host)


def _add_without_rules(host: Host) -> None:
    host.make(["pod"])
    for _ in range(10):
        said, rules = host.shell_after_add(
            "pod", "nft list table inet weft 2>&1", before="nft delete table inet weft"
        )
        assert not problems([said])
        assert said.addresses[0] in rules
        assert host.send(ask("DEL", "pod")).status == 0
        deadline = time.monotonic() + 1.0 * SLACK
        while "guard4" not in host.shell("nft list table inet weft 2>&1 || true"):
            assert time.monotonic() < deadline, "the table was not made again"
            time.sleep(0.02)
    host.unmake(["pod"])
