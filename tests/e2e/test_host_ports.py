"""Host ports of the real agent: who reaches them, under which address, and who gets them."""

from __future__ import annotations

import json
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest

from acceptance import Host, ask, problems
from reached import KINDS, published, reach
from weft.lab import calls, entering, truth
from weft.lab.wiring import node_addresses

NODE4, NODE6 = node_addresses(0)


@pytest.mark.parametrize("protocol", list(KINDS))
def test_a_port_is_reached_from_everywhere_and_clients_keep_their_address(
    host: Host, protocol: str
) -> None:
    said = host.add("pod", **published((8080, 80, protocol)))
    other = host.add("other")
    pod, node, outside = host.network("pod"), host.node.network, host.wires.outside.network
    four, six = said.addresses
    for target, own, far, near in (
        (NODE4, four, "198.51.100.1", other.addresses[0]),
        (NODE6, six, "2001:db8:51::1", other.addresses[1]),
    ):
        assert reach(outside, target, 8080, pod, 80, protocol) == (far, True)
        assert reach(host.network("other"), target, 8080, pod, 80, protocol) == (near, True)
        assert reach(node, target, 8080, pod, 80, protocol) == (target, True)
        hairpin = reach(pod, target, 8080, pod, 80, protocol)
        assert hairpin.answered and hairpin.source != own
    assert reach(node, "127.0.0.1", 8080, pod, 80, protocol) == (NODE4, True)
    host.drop("other")
    host.drop("pod")
    assert not reach(outside, NODE4, 8080, outside, 80, protocol, patience=0.3).answered


def test_a_port_of_one_address_is_not_the_others(host: Host) -> None:
    host.add("pod", **published((8080, 80, "tcp", NODE4), (8081, 80, "tcp", "127.0.0.1")))
    pod, node, outside = host.network("pod"), host.node.network, host.wires.outside.network
    assert reach(outside, NODE4, 8080, pod, 80).answered
    assert not reach(outside, NODE6, 8080, pod, 80, patience=0.3).answered
    assert not reach(node, "127.0.0.1", 8080, pod, 80, patience=0.3).answered
    assert reach(node, "127.0.0.1", 8081, pod, 80).answered
    assert not reach(outside, NODE4, 8081, pod, 80, patience=0.3).answered
    host.drop("pod")


def test_two_containers_have_one_port_on_two_addresses(host: Host) -> None:
    host.add("one", **published((8080, 80, "tcp", NODE4)))
    host.add("two", **published((8080, 81, "tcp", "127.0.0.1")))
    node = host.node.network
    assert reach(node, NODE4, 8080, host.network("one"), 80).answered
    assert reach(node, "127.0.0.1", 8080, host.network("two"), 81).answered
    host.drop("one")
    assert reach(node, "127.0.0.1", 8080, host.network("two"), 81).answered
    host.drop("two")


def test_ports_that_every_network_of_a_container_is_asked_for_are_the_first_ones(
    host: Host,
) -> None:
    host.add("one", **published((8080, 80)))
    more = {"network": "further", "ifname": "eth1", **published((8080, 80), (8081, 81))}
    assert not problems([host.send(ask("ADD", "one", **more))])
    pod, node = host.network("one"), host.node.network
    assert reach(node, NODE4, 8080, pod, 80).answered
    host.make(["two"])
    taken = host.send(ask("ADD", "two", **published((8080, 80))))
    assert "published for container one" in (taken.json or {})["msg"]
    changed = {**more, "ifname": "eth2", **published((8080, 99))}
    refused = host.send(ask("ADD", "one", **changed))
    assert "published for container one" in (refused.json or {})["msg"]
    assert not problems([host.send(ask("DEL", "one", **more))])
    assert reach(node, NODE4, 8080, pod, 80).answered
    host.unmake(["two"])
    host.drop("one")


def test_traffic_to_others_is_never_taken(host: Host) -> None:
    """CVE-2025-67499: a rule that looks at the port alone takes what is meant for somebody else."""
    host.add("pod", **published((8080, 80), (8080, 80, "udp")))
    host.add("other")
    outside = host.wires.outside.network
    for address in ("198.51.100.1", "2001:db8:51::1"):
        for protocol in KINDS:
            for origin in (host.network("other"), host.node.network):
                assert reach(origin, address, 8080, outside, 8080, protocol).answered
    other = host.add("third").addresses[0]
    assert reach(host.network("other"), other, 8080, host.network("third"), 8080).answered
    for pod in ("third", "other", "pod"):
        host.drop(pod)


def test_a_port_is_given_once_and_the_refusal_says_who_has_it(host: Host) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till"
    host.add("one", cni_args=args, **published((8080, 80), (8081, 80)))
    host.make(["two"])
    before = host.snapshot()
    said = host.send(ask("ADD", "two", **published((9090, 80), (8080, 80))))
    assert said.is_clean and said.code == 7
    assert "hostPort 8080/tcp is published for pod shop/till" in said.json["msg"]
    assert "next free port is 8082" in said.json["msg"]
    assert host.settled(before) == []
    assert host.send(ask("ADD", "two", **published((9090, 80), (8080, 80, "udp")))).status == 0
    host.drop("two")
    host.drop("one")


def test_a_program_of_the_node_keeps_its_port_and_gets_none_of_ours(host: Host) -> None:
    host.make(["pod"])
    node = host.node.network
    with closing(entering.socket_in(node, socket.AF_INET, socket.SOCK_STREAM)) as theirs:
        theirs.bind(("127.0.0.1", 8080))
        theirs.listen(1)
        said = host.send(ask("ADD", "pod", **published((8080, 80))))
        assert said.code == 7 and "in use by" in said.json["msg"], said
        assert "(pid " in said.json["msg"]
        assert host.send(ask("ADD", "pod", **published((8080, 80, "tcp", NODE4)))).status == 0
    host.drop("pod")
    host.add("pod", **published((8080, 80), (8080, 80, "udp")))
    host.end()  # an agent that starts holds at once; after an ADD the runtime may come first
    host.start()
    for kind in KINDS.values():
        with (
            closing(entering.socket_in(node, socket.AF_INET, kind)) as late,
            pytest.raises(OSError, match="in use"),
        ):
            late.bind(("0.0.0.0", 8080))
    host.drop("pod")
    with closing(entering.socket_in(node, socket.AF_INET, socket.SOCK_STREAM)) as theirs:
        theirs.bind(("0.0.0.0", 8080))


def test_a_port_that_a_connection_uses_as_its_source_can_be_published(host: Host) -> None:
    host.make(["pod"])
    node, outside = host.node.network, host.wires.outside.network
    with (
        closing(entering.socket_in(outside, socket.AF_INET, socket.SOCK_STREAM)) as server,
        closing(entering.socket_in(node, socket.AF_INET, socket.SOCK_STREAM)) as client,
    ):
        server.bind(("", 7000))
        server.listen(1)
        client.connect(("198.51.100.1", 7000))
        peer, (_, port) = server.accept()
        with closing(peer):
            said = host.send(ask("ADD", "pod", **published((port, 80))))
            assert said.status == 0, said
            peer.sendall(b"still ours")
            assert client.recv(16) == b"still ours"
            assert reach(outside, NODE4, port, host.network("pod"), 80).answered
    host.drop("pod")


def test_ports_outlive_the_agent_its_journal_and_both(host: Host) -> None:
    mappings = ((8080, 80), (5353, 53, "udp", NODE4), (8443, 443, "tcp", "::"))
    host.add("pod", **published(*mappings))
    pod, outside = host.network("pod"), host.wires.outside.network
    before = truth_of(host)
    for lost in (False, True):
        host.end()
        assert reach(outside, NODE4, 8080, pod, 80).answered
        if lost:
            host.shell("rm -f /run/weft/journal.db*")
        host.start()
        assert truth_of(host) == before
        assert reach(outside, NODE4, 8080, pod, 80).answered
        assert reach(outside, NODE6, 8443, pod, 443).answered
        assert reach(outside, NODE4, 5353, pod, 53, "udp").answered
        host.make(["two"])
        said = host.send(ask("ADD", "two", **published((8443, 1, "tcp", NODE6))))
        assert said.code == 7 and "published for" in said.json["msg"]
        host.unmake(["two"])
    host.drop("pod")
    assert not reach(outside, NODE4, 8080, outside, 80, patience=0.3).answered


def truth_of(host: Host) -> list[str]:
    """The elements of the maps of ports."""
    text = host.shell("nft -j list table inet weft")
    maps = [item["map"] for item in json.loads(text)["nftables"] if "map" in item]
    return sorted(json.dumps(one.get("elem", [])) for one in maps)


def test_datagrams_of_before_find_the_new_container(host: Host) -> None:
    """A client that goes on sending from one port would stay with what connection tracking knew."""
    outside = host.wires.outside.network
    with closing(entering.socket_in(outside, socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.bind(("", 6000))
        client.setblocking(False)
        for name in ("none", "first", "second"):
            if name == "none":
                client.sendto(b"early", (NODE4, 5353))
                time.sleep(0.05)
                continue
            host.add(name, **published((5353, 53, "udp")))
            pod = host.network(name)
            with closing(entering.socket_in(pod, socket.AF_INET, socket.SOCK_DGRAM)) as server:
                server.bind(("", 53))
                deadline = time.monotonic() + 5
                while time.monotonic() < deadline:
                    with suppress(ConnectionRefusedError):  # an earlier one that nobody wanted
                        client.sendto(b"word", (NODE4, 5353))
                    if select.select([server], [], [], 0.1)[0]:
                        break
                assert select.select([server], [], [], 0)[0], f"{name} heard nothing"
            host.drop(name)


def _by_loopback(port: int, kind: int) -> list[str]:
    """Runs in the node: the answer to a word, and the peer as the client sees it."""
    with socket.socket(socket.AF_INET6, kind) as client:
        client.settimeout(3)
        try:
            client.connect(("::1", port))
            peer = client.getpeername()
            client.send(b"word")
            return [client.recv(16).decode(), peer[0], str(peer[1])]
        except OSError as error:
            return [str(error)]


@pytest.mark.parametrize("protocol", list(KINDS))
def test_programs_of_the_node_reach_a_port_by_ipv6_loopback(host: Host, protocol: str) -> None:
    host.add("pod", **published((8080, 80, protocol)))
    kind = KINDS[protocol]
    for turn in range(2):
        with (
            closing(entering.socket_in(host.network("pod"), socket.AF_INET6, kind)) as server,
            ThreadPoolExecutor(1) as beside,
        ):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", 80))
            server.settimeout(10)
            if protocol == "tcp":
                server.listen(1)
            said = beside.submit(calls.call, host.node, _by_loopback, 8080, kind)
            if protocol == "tcp":
                peer, sender = server.accept()
                with closing(peer):
                    peer.sendall(peer.recv(16))
            else:
                word, sender = server.recvfrom(16)
                server.sendto(word, sender)
            assert said.result() == ["word", "::1", "8080"]
            assert sender[0] == NODE6
        if not turn:
            host.restart()
    # a container has a loopback of its own
    alone = calls.call(host.node, _by_loopback, 8080, kind, pod="pod")
    assert "refused" in alone[0]
    host.drop("pod")
    assert "refused" in calls.call(host.node, _by_loopback, 8080, kind)[0]


@pytest.mark.parametrize(
    ("port", "field"),
    [((80, 80, "icmp"), "protocol"), ((70000, 80), "hostPort"), ((80, 80, "tcp", "x"), "hostIP")],
)
def test_a_mapping_that_cannot_be_is_refused_before_anything(
    host: Host, port: tuple[Any, ...], field: str
) -> None:
    host.make(["pod"])
    before = host.snapshot()
    said = host.send(ask("ADD", "pod", **published(port)))
    assert said.is_clean and said.code == 7 and field in said.json["msg"]
    assert host.settled(before) == []
    host.unmake(["pod"])


def test_sctp_is_led_like_the_others(host: Host) -> None:
    """No SCTP socket in this kernel: the packet itself is looked at."""
    said = host.add("pod", **published((9899, 9900, "sctp")))
    pod, outside = host.network("pod"), host.wires.outside.network
    chunk = b"\x01\0\0\x14" + bytes(16)  # INIT, RFC 9260 section 3.3.2
    packet = (40000).to_bytes(2, "big") + (9899).to_bytes(2, "big") + bytes(4)
    packet += _crc32c(packet + bytes(4) + chunk).to_bytes(4, "little") + chunk
    with (
        closing(entering.socket_in(pod, socket.AF_INET, socket.SOCK_RAW, 132)) as ear,
        closing(entering.socket_in(outside, socket.AF_INET, socket.SOCK_RAW, 132)) as mouth,
    ):
        ear.settimeout(2)
        mouth.sendto(packet, (NODE4, 0))
        heard = ear.recv(1500)
    assert heard[16:20] == socket.inet_aton(said.addresses[0])
    assert int.from_bytes(heard[22:24], "big") == 9900
    host.drop("pod")


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_many_containers_with_ports_come_and_go(host: Host) -> None:
    names = [f"pod-{n}" for n in range(12)]
    host.make(names)
    before = truth_of(host)
    asks = [
        ask("ADD", name, **published(*((9000 + 20 * n + p, 80) for p in range(10))))
        for n, name in enumerate(names)
    ]
    assert not problems(host.storm(asks))
    assert len(json.loads(host.weft("get", "ports", "-o", "json"))["items"]) == 120
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    assert truth_of(host) == before
    assert truth.links(host.node.network)
    host.unmake(names)
