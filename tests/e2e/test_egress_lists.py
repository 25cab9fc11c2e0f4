"""Egress lists of the real agent: what Cloud Foundry's netOutRules allow, and all else refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from acceptance import Answer, Host, ask, problems
from netouts import (
    ALL4,
    ALL6,
    FAR4,
    FAR6,
    ICMP,
    ICMP6,
    KINDS,
    NEAR,
    PATIENCE,
    TCP,
    UDP,
    addresses,
    echoes,
    errors_at_once,
    icmp,
    keeps,
    listed,
    long_list,
    node_of,
    ports,
    reaches,
    refused,
    rule,
    shown_digest,
    table,
)
from weft.lab import entering


@pytest.fixture(autouse=True)
def _errors_at_once(host: Host) -> Iterator[None]:
    with errors_at_once(host):
        yield


@pytest.mark.parametrize("far", [FAR4, FAR6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_ranges_of_addresses_and_ports_are_kept_to_their_borders(
    host: Host, far: str, protocol: int
) -> None:
    host.add("pod", **listed(rule(protocol, f"{far}3", f"{far}5", **ports((80, 82), (90, 90)))))
    pod, other = host.network("pod"), UDP if protocol == TCP else TCP
    with addresses(host) as outside:
        told = {
            (n, port): reaches(pod, outside, f"{far}{n}", port, protocol)
            for n in (2, 3, 5, 6)
            for port in (79, 80, 82, 83, 89, 90, 91)
        }
        assert not reaches(pod, outside, f"{far}4", 81, other)
    assert {key for key, good in told.items() if good} == {
        (n, port) for n in (3, 5) for port in (80, 82, 90)
    }
    host.drop("pod")


def test_absent_null_empty_and_all_are_four_things(host: Host) -> None:
    with addresses(host) as outside:
        for name, conf, open4, open6 in (
            ("absent", {"runtimeConfig": {"portMappings": None}}, True, True),
            ("null", {"runtimeConfig": {"netOutRules": None}}, False, False),
            ("empty", listed(), False, False),
            ("all", listed(ALL4, ALL6), True, True),
            ("four", listed({"protocol": 0, **ALL4}), True, False),
        ):
            host.add(name, **conf)
            pod = host.network(name)
            for protocol in KINDS:
                assert reaches(pod, outside, f"{FAR4}1", 80, protocol) == open4, name
                assert reaches(pod, outside, f"{FAR6}1", 80, protocol) == open6, name
            assert echoes(pod, f"{FAR4}1", 8) == open4, name
            assert echoes(pod, f"{FAR6}1", 128) == open6, name
        assert refused(host) > 0
        for name in ("absent", "null", "empty", "all", "four"):
            host.drop(name)


def test_types_and_codes_of_icmp_are_told_apart(host: Host) -> None:
    host.add(
        "pod",
        **listed(
            rule(ICMP, f"{FAR4}1", **icmp(8, 0)),
            rule(ICMP, f"{FAR4}2", **icmp(8, 255)),
            rule(ICMP, f"{FAR4}3", **icmp(255, 255)),
            rule(ICMP, f"{FAR4}4", **icmp(13, 0)),
            rule(ICMP6, f"{FAR6}1", **icmp(128, 0)),
            rule(ICMP6, f"{FAR6}2", **icmp(129, 0)),
        ),
    )
    pod = host.network("pod")
    with addresses(host):
        assert [echoes(pod, f"{FAR4}{n}", 8) for n in (1, 2, 3, 4, 5)] == [True] * 3 + [False] * 2
        assert [echoes(pod, f"{FAR4}{n}", 13) for n in (1, 2, 3, 4)] == [False, False, True, True]
        assert not echoes(pod, f"{FAR4}1", 8, 1)
        assert [echoes(pod, f"{FAR6}{n}", 128) for n in (1, 2)] == [True, False]
    host.drop("pod")


def test_answers_pass_and_what_goes_on_passes(host: Host) -> None:
    """A container that may connect nowhere serves all the same."""
    four, six = host.add("pod", **listed()).addresses
    pod = host.network("pod")
    for address in (four, six):
        for protocol in KINDS:
            assert reaches(host.node.network, pod, address, 8080, protocol)
    host.drop("pod")


def test_no_rule_opens_containers_or_the_node(host: Host) -> None:
    """As in Cloud Foundry: between containers there are policies, of the node only services."""
    inner = host.add(
        "inner", runtimeConfig={"portMappings": [{"host_port": 8080, "container_port": 80}]}
    )
    host.add("pod", **listed(ALL4, ALL6))
    pod, node = host.network("pod"), host.node.network
    for address in inner.addresses:
        assert not reaches(pod, host.network("inner"), address, 80, TCP)
        assert not reaches(pod, host.network("inner"), address, 80, UDP)
    for address in node_of(host):
        assert not reaches(pod, node, address, 81, TCP)
        assert not reaches(pod, node, address, 8080, TCP)  # published: a container's, in the end
    host.drop("pod")
    host.drop("inner")


def test_services_of_the_node_and_its_link_local_name_server_are_open(host: Host) -> None:
    host.shell("ip addr add 169.254.0.2/32 dev lo")
    four, six = node_of(host)
    host.add(
        "pod",
        **listed(
            ALL4,
            dns={"nameservers": ["169.254.0.2", "8.8.8.8"]},
            host_tcp_services=[f"{four}:9001", f"[{six}]:9002"],
            host_udp_services=["169.254.0.2:9003"],
        ),
    )
    pod, node = host.network("pod"), host.node.network
    for protocol in KINDS:
        assert reaches(pod, node, "169.254.0.2", 53, protocol)
    assert reaches(pod, node, four, 9001, TCP)
    assert reaches(pod, node, six, 9002, TCP)
    assert reaches(pod, node, "169.254.0.2", 9003, UDP)
    assert not reaches(pod, node, four, 9001, UDP)
    assert not reaches(pod, node, four, 9002, TCP)
    assert not reaches(pod, node, four, 53, UDP)
    host.drop("pod")
    host.shell("ip addr del 169.254.0.2/32 dev lo")


def test_denied_networks_are_opened_by_no_rule(host: Host) -> None:
    denied = {"always": [f"{FAR4}2/31"], "running": [f"{FAR4}4/32"], "staging": [f"{FAR4}5/32"]}
    with addresses(host) as outside:
        for workload, shut in (("app", {2, 3, 4}), ("staging", {2, 3, 5}), ("", {2, 3})):
            told = {"container_workload": workload} if workload else {"app_id": "a"}
            host.add("pod", **listed(ALL4, deny_networks=denied, metadata=told))
            pod = host.network("pod")
            open_ = {n for n in range(1, 7) if reaches(pod, outside, f"{FAR4}{n}", 80, TCP)}
            assert open_ == {1, 2, 3, 4, 5, 6} - shut
            host.drop("pod")


@pytest.mark.matrix(id="egress rules", full=7000, reduced=1000)
def test_a_list_of_many_rules_is_kept_and_its_second_container_is_quick(
    host: Host, count: int
) -> None:
    wanted = listed(*long_list(count), NEAR)
    first = host.add("first", **wanted)
    second = host.add("second", **wanted)
    alone = host.add("alone")
    print(
        f"{count} rules: {first.seconds * 1e3:.1f} ms, again {second.seconds * 1e3:.1f} ms, "
        f"without {alone.seconds * 1e3:.1f} ms"
    )
    with addresses(host) as outside:
        for name in ("first", "second"):
            assert reaches(host.network(name), outside, f"{FAR4}1", 80, TCP)
            assert not reaches(host.network(name), outside, f"{FAR4}1", 81, TCP)
    assert not problems([host.send(ask("CHECK", "second", prevResult=second.json, **wanted))])
    for name in ("first", "second", "alone"):
        host.drop(name)
    assert second.seconds < first.seconds


def test_check_names_what_was_changed_and_the_agent_mends_it(host: Host) -> None:
    said = host.add("pod", **listed(NEAR))
    digest = shown_digest(host)
    host.end()
    host.shell(f"nft flush chain inet weft out-{digest}")
    host.shell(f"nft flush set inet weft port4-{digest}")
    host.start()
    assert keeps(host, "pod")
    assert not problems([host.send(ask("CHECK", "pod", prevResult=said.json))])
    host.drop("pod")


def test_a_refused_rule_leaves_nothing_and_names_its_place(host: Host) -> None:
    host.make(["pod"])
    for rules, field in (
        ([{"protocol": 1}], "netOutRules[0].networks"),
        ([NEAR, rule(TCP, f"{FAR4}1")], "netOutRules[1].ports"),
        ([{**NEAR, "direction": "in"}], "netOutRules[0].'direction'"),
        ({"0": NEAR}, "netOutRules"),
    ):
        said: Answer = host.send(ask("ADD", "pod", runtimeConfig={"netOutRules": rules}))
        assert said.is_clean and said.code == 7, said
        assert field in (said.json or {})["msg"]
    host.unmake(["pod"])


def test_cloud_foundrys_own_call_is_understood_and_its_del(host: Host) -> None:
    """As garden-external-networker makes it of guardian's input: keys beside `runtimeConfig`, null
    where guardian passed nothing, and a DEL that knows nothing of what ADD was told."""
    host.make(["pod"])
    wanted = {
        "metadata": {
            "app_id": "d5bbc5ed-886a",
            "policy_group_id": "d5bbc5ed-886a",
            "ports": "8080",
        },
        "runtimeConfig": {
            "portMappings": [{"host_port": 60001, "container_port": 8080}],
            "netOutRules": [NEAR],
        },
    }
    said = host.send(ask("ADD", "pod", version="1.0.0", **wanted))
    assert not problems([said])
    items = json.loads(host.weft("get", "attachments", "-o", "json"))["items"]
    assert items[0]["metadata"]["labels"]["cloudfoundry.org/app_id"] == "d5bbc5ed-886a"
    assert keeps(host, "pod")
    outside = host.wires.outside.network
    node, _ = node_of(host)
    with (
        closing(entering.socket_in(host.network("pod"), socket.AF_INET, socket.SOCK_STREAM)) as app,
        closing(entering.socket_in(outside, socket.AF_INET, socket.SOCK_STREAM)) as router,
    ):
        app.bind(("", 8080))
        app.listen(1)
        router.settimeout(PATIENCE)
        router.connect((node, 60001))
    assert not problems([host.send(ask("DEL", "pod", version="1.0.0", prevResult=said.json))])
    assert not problems([host.send(ask("DEL", "pod", version="1.0.0"))])
    host.unmake(["pod"])


def test_connections_that_are_to_be_told_of_are_counted_once_each(host: Host) -> None:
    host.add("pod", **listed({**NEAR, "log": True}, rule(TCP, f"{FAR4}2", **ports((80, 80)))))
    pod = host.network("pod")
    with addresses(host) as outside:
        for _ in range(3):
            assert reaches(pod, outside, f"{FAR4}1", 80, TCP)
            assert reaches(pod, outside, f"{FAR4}2", 80, TCP)
    said = host.shell("nft list chain inet weft egress-logged")
    assert "counter packets 3 " in said and 'log prefix "weft-egress "' in said
    host.add("silent", **listed(NEAR))
    host.drop("pod")
    assert "egress-logged" not in table(host)
    host.drop("silent")
