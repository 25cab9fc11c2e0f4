"""Egress lists of the real agent: what Cloud Foundry's netOutRules allow, and all else refused."""

from __future__ import annotations

import errno
import json
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from acceptance import Answer, Host, ask, problems, watched
from weft.lab import entering

FAR4, FAR6 = "203.0.113.", "2001:db8:77::"
ALL4 = {"networks": [{"start": "0.0.0.0", "end": "255.255.255.255"}]}
ALL6 = {"networks": [{"start": "::", "end": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}]}
TCP, UDP, ICMP, ICMP6 = 1, 2, 3, 4
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
PATIENCE, TRIES = 5.0, 10


def rule(protocol: int, start: str, end: str = "", **more: Any) -> dict[str, Any]:
    """A rule as garden writes it: what is zero is left out."""
    found: dict[str, Any] = {"networks": [{"start": start, "end": end or start}], **more}
    return {"protocol": protocol, **found} if protocol else found


def ports(*pairs: tuple[int, int]) -> dict[str, Any]:
    return {"ports": [{"start": low, "end": high} for low, high in pairs]}


def icmp(kind: int, code: int) -> dict[str, Any]:
    return {"icmps": {"type": kind, "code": code} if kind else {"code": code}}


def listed(*rules: dict[str, Any], **conf: Any) -> dict[str, Any]:
    return {"runtimeConfig": {"portMappings": None, "netOutRules": list(rules)}, **conf}


@pytest.fixture(autouse=True)
def _errors_at_once(host: Host) -> Iterator[None]:
    """The kernel sends one receiver an ICMP error a second, unless it is told otherwise."""
    files = [f"/proc/sys/net/ipv{name}" for name in ("4/icmp_ratelimit", "6/icmp/ratelimit")]
    for file in files:
        host.shell(f"echo 0 > {file}")
    yield
    for file in files:
        host.shell(f"echo 1000 > {file}")


def node_of(host: Host) -> tuple[str, str]:
    """The addresses of the uplink."""
    four, six = (
        json.loads(host.shell(f"ip -j -{n} addr show dev eth0 scope global"))[0]["addr_info"]
        for n in (4, 6)
    )
    return four[0]["local"], six[0]["local"]


@contextmanager
def addresses(host: Host) -> Iterator[Path]:
    """The outside host with further addresses in both families, 1 to 9."""
    outside = host.wires.outside.network
    lines = [f"{FAR4}{n}/32 dev lo" for n in range(1, 10)]
    lines += [f"{FAR6}{n}/128 dev lo nodad" for n in range(1, 10)]
    up = "link set lo up\n"
    entering.ip_batch(outside, up + "".join(f"addr add {each}\n" for each in lines))
    try:
        yield outside
    finally:
        bare = [each.removesuffix(" nodad") for each in lines]
        entering.ip_batch(outside, "".join(f"addr del {each}\n" for each in bare))


def reaches(origin: Path, goal: Path, address: str, port: int, protocol: int) -> bool:
    """Whether a word comes there and its answer back. False only where the sender was told that
    the port is unreachable: a word that is merely lost fails the test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        closing(entering.socket_in(goal, family, KINDS[protocol])) as server,
        closing(entering.socket_in(origin, family, KINDS[protocol])) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        try:
            if protocol == TCP:
                server.listen(1)
                client.connect((address, port))
                peer, _ = server.accept()
                with closing(peer):
                    client.sendall(b"word")
                    peer.sendall(peer.recv(16))
                    return client.recv(16) == b"word"
            client.connect((address, port))
            for _ in range(TRIES):  # nobody sends a datagram again that went astray
                client.send(b"word")
                if select.select([client, server], [], [], PATIENCE / TRIES)[0] == [server]:
                    said, sender = server.recvfrom(16)
                    server.sendto(said, sender)
                if select.select([client], [], [], PATIENCE / TRIES)[0]:
                    break
            return client.recv(16) == b"word"
        except OSError as error:
            assert error.errno == errno.ECONNREFUSED, (address, port, error)
            if protocol == TCP:
                server.setblocking(False)
                with pytest.raises(BlockingIOError):  # nor did it come through
                    server.accept()
            return False


def echoes(origin: Path, address: str, kind: int, code: int = 0) -> bool:
    """Whether an ICMP message leaves the node: an echo is answered; of others the refusal, or its
    absence behind an echo that is answered, tells."""
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    with closing(entering.socket_in(origin, family, socket.SOCK_RAW, protocol)) as raw:
        raw.settimeout(PATIENCE)
        body = struct.pack("!BBHHH12x", kind, code, 0, 77, 1)
        total = sum(struct.unpack("!10H", body))
        total = (total & 0xFFFF) + (total >> 16)
        if not six:
            body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
        raw.sendto(body, (address, 0))
        answers = {0, 129, 14}  # echo replies, timestamp reply
        while True:
            said = raw.recv(2000)
            found = said if six else said[(said[0] & 15) * 4 :]
            if found[0] in answers and found[4:6] == b"\0\x4d":
                return True
            if found[0] in (1, 3) and b"\0\x4d" in found[8:]:
                return False


def refused(host: Host) -> int:
    drops = json.loads(host.weft("status", "-o", "json"))["drops"]
    return int(drops.get("egress", 0))


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


def talks(origin: Path, goal: Path, address: str) -> bool:
    """Whether a word from one and the same port comes there, and its answer back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        closing(entering.socket_in(goal, family, socket.SOCK_DGRAM)) as server,
        closing(entering.socket_in(origin, family, socket.SOCK_DGRAM)) as client,
    ):
        server.bind((address, 7))
        client.bind(("", 5000))
        client.settimeout(PATIENCE)
        client.connect((address, 7))
        try:
            client.send(b"word")
            if select.select([client, server], [], [], PATIENCE)[0] == [server]:
                server.sendto(*server.recvfrom(16))
            return client.recv(16) == b"word"
        except ConnectionRefusedError:
            return False


def test_connections_of_who_had_the_address_before_end_with_the_list(host: Host) -> None:
    """What goes on passes every list: nobody may go on with what another began."""
    held = host.add("old").addresses
    goals = f"{FAR4}1", f"{FAR6}1"
    with addresses(host) as outside:
        old = host.network("old")
        assert all(talks(old, outside, goal) for goal in goals)
        assert echoes(old, goals[0], 8) and echoes(old, goals[1], 128)
        host.drop("old")
        host.end()
        host.shell("rm /run/weft/journal.db*")  # and with it, how long the addresses rest
        host.start()
        host.add("new", runtimeConfig={"ips": held, "netOutRules": []})
        new = host.network("new")
        assert not any(talks(new, outside, goal) for goal in goals)
        assert not echoes(new, goals[0], 8) and not echoes(new, goals[1], 128)
    host.drop("new")


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


def table(host: Host) -> str:
    """Names of our chains and sets."""
    return host.shell("nft -t list table inet weft")


def shown(host: Host, name: str) -> str:
    """What `weft get attachments` says of a container's list."""
    items = json.loads(host.weft("get", "attachments", "-o", "json"))["items"]
    return str(
        next(x for x in items if x["spec"]["container"] == name)["status"].get("egressList", "")
    )


def long_list(rules: int) -> list[dict[str, Any]]:
    """As Diego writes a security group: one rule a destination, none beside another."""
    return [
        rule(TCP, f"10.{n >> 8}.{n & 255}.{10 + n % 7}", **ports((443, 443), (8000, 8000 + n % 90)))
        for n in range(rules)
    ]


NEAR = rule(TCP, f"{FAR4}1", **ports((80, 80)))


def test_containers_with_the_same_rules_share_one_list_which_goes_with_the_last(host: Host) -> None:
    both = [NEAR, rule(UDP, f"{FAR4}1", **ports((53, 53)))]
    names = [f"pod-{n}" for n in range(3)]
    for name, rules in zip(names, (both, both[::-1], both + both), strict=True):
        host.add(name, **listed(*rules))
    assert table(host).count("chain out-") == 1
    host.add("other", **listed(NEAR))
    assert table(host).count("chain out-") == 2
    for name in names[:-1]:
        host.drop(name)
    with addresses(host) as outside:
        assert reaches(host.network(names[-1]), outside, f"{FAR4}1", 80, TCP)
        assert not reaches(host.network("other"), outside, f"{FAR4}1", 53, UDP)
    host.drop(names[-1])
    assert table(host).count("chain out-") == 1
    host.drop("other")
    assert "egress" not in table(host)


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


def test_many_containers_with_one_list_come_and_go_at_once(host: Host) -> None:
    names = [f"pod-{n}" for n in range(60)]
    wanted = listed(*long_list(600), NEAR)
    host.make(names)
    assert not problems(host.storm([ask("ADD", name, **wanted) for name in names]))
    assert table(host).count("chain out-") == 1
    with addresses(host) as outside:
        for name in names[::20]:
            assert reaches(host.network(name), outside, f"{FAR4}1", 80, TCP)
            assert not reaches(host.network(name), outside, f"{FAR4}2", 80, TCP)
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    host.unmake(names)
    assert "egress" not in table(host)


def keeps(host: Host, name: str) -> bool:
    """Whether exactly what NEAR allows is open."""
    with addresses(host) as outside:
        pod = host.network(name)
        return reaches(pod, outside, f"{FAR4}1", 80, TCP) and not (
            reaches(pod, outside, f"{FAR4}1", 81, TCP) or reaches(pod, outside, f"{FAR6}1", 80, TCP)
        )


def test_a_list_outlives_kill_9_of_the_agent_and_is_in_force_meanwhile(host: Host) -> None:
    said = host.add("pod", **listed(NEAR))
    rules = host.shell("nft -s list table inet weft")
    host.end()
    assert keeps(host, "pod")
    host.start()
    assert host.shell("nft -s list table inet weft") == rules
    assert keeps(host, "pod")
    assert not problems([host.send(ask("CHECK", "pod", prevResult=said.json))])
    host.drop("pod")


def test_a_lost_journal_is_made_good_from_the_rules(host: Host) -> None:
    four, _ = node_of(host)
    host.add("pod", **listed(NEAR, host_tcp_services=[f"{four}:9001"]))
    before = shown(host, "pod")
    host.end()
    host.shell("rm /run/weft/journal.db*")
    host.start()
    assert shown(host, "pod") == before == shown_digest(host)
    assert keeps(host, "pod")
    assert reaches(host.network("pod"), host.node.network, four, 9001, TCP)
    host.drop("pod")


def test_an_empty_list_is_known_again_without_the_journal(host: Host) -> None:
    host.add("pod", **listed())
    before = shown(host, "pod")
    host.end()
    host.shell("rm /run/weft/journal.db*")
    host.start()
    assert shown(host, "pod") == before != "unknown"
    host.drop("pod")


def test_a_list_that_nobody_knows_any_more_allows_nothing(host: Host) -> None:
    """Journal and rules are lost while no agent runs; the record on the link is left."""
    four = host.add("pod", **listed(NEAR)).addresses[0]
    host.end()
    host.shell("rm /run/weft/journal.db*; nft delete table inet weft")
    host.start()
    assert "unknown" in shown(host, "pod")
    assert "egress-lost" in host.weft("status", "-o", "json")
    with addresses(host) as outside:
        pod = host.network("pod")
        assert not reaches(pod, outside, f"{FAR4}1", 80, TCP)
        assert not echoes(pod, f"{FAR4}1", 8)
    assert reaches(host.node.network, host.network("pod"), four, 80, TCP)
    host.restart()
    assert "unknown" in shown(host, "pod")
    host.drop("pod")
    assert "egress-lost" not in host.weft("status", "-o", "json")


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


def shown_digest(host: Host) -> str:
    return next(word[4:] for word in table(host).split() if word.startswith("out-"))


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


@pytest.mark.matrix(id="egress killed", full=60, reduced=2)
def test_lists_are_whole_or_gone_after_kill_9_in_a_storm(host: Host, count: int) -> None:
    """Whoever has an address afterwards has its list, and the DELs leave nothing."""
    draw = random.Random(7)
    for moment in (draw.uniform(0.002, 0.2) for _ in range(count)):
        _storm(host, moment)


def _storm(host: Host, moment: float) -> None:
    names = [f"pod-{n}" for n in range(16)]
    host.make(names)
    kinds = [listed(*long_list(n), NEAR) for n in (0, 40, 600)]
    asks = [ask("ADD", name, **kinds[n % 3]) for n, name in enumerate(names)]
    killer = threading.Timer(moment, host.end)
    killer.start()
    answers = host.storm(asks, limit=10.0)
    killer.join()
    host.start()
    with addresses(host) as outside:
        for name, said in zip(names, answers, strict=True):
            if said.status == 0:
                pod = host.network(name)
                assert reaches(pod, outside, f"{FAR4}1", 80, TCP), name
                assert not reaches(pod, outside, f"{FAR4}2", 80, TCP), name
    ended = host.storm([ask("DEL", name) for name in names])
    assert not problems(ended)
    host.unmake(names)
    assert "egress" not in table(host)


@pytest.mark.matrix(id="egress comes and goes", full=60, reduced=3)
def test_a_list_that_one_leaves_while_another_takes_it_stands(host: Host, count: int) -> None:
    wanted = [listed(*long_list(n), NEAR) for n in (1, 300)]  # written at once, and in slices
    host.make(["one", "two", "three", "four"])
    pairs = [("one", "two"), ("three", "four")]
    begun = [ask("ADD", old, **conf) for (old, _), conf in zip(pairs, wanted, strict=True)]
    assert not problems(host.storm(begun))
    for _ in range(count):
        mixed = []
        for (old, new), conf in zip(pairs, wanted, strict=True):
            mixed += [ask("DEL", old), ask("ADD", new, **conf)]
        assert not problems(host.storm(mixed))
        with addresses(host) as outside:
            for _, new in pairs:
                assert reaches(host.network(new), outside, f"{FAR4}1", 80, TCP)
                assert not reaches(host.network(new), outside, f"{FAR4}2", 80, TCP)
        pairs = [(new, old) for old, new in pairs]
    assert not problems(host.storm([ask("DEL", old) for old, _ in pairs]))
    host.unmake(["one", "two", "three", "four"])
    assert "egress" not in table(host)


@pytest.mark.parametrize("rules", [0, 300])
def test_rules_that_somebody_has_just_taken_away_are_made_again_with_the_list(
    new_host: Callable[..., Host], rules: int
) -> None:
    with watched(new_host("ruleset: {protected: never}")) as host:
        host.add("pod", **listed(NEAR))
        host.make(["next"])
        host.shell("nft delete table inet weft")
        said = host.send(ask("ADD", "next", **listed(*long_list(rules), NEAR)))
        if said.status:  # a long list is written before its turn, and the runtime asks again
            assert rules and said.is_clean
            said = host.send(ask("ADD", "next", **listed(*long_list(rules), NEAR)))
        assert said.status == 0, said
        assert keeps(host, "next") and keeps(host, "pod")
        host.drop("next")
        host.drop("pod")
