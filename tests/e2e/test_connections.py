"""Live connections as the real agent tells them: names, translation, bytes, and very many."""

from __future__ import annotations

import errno
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from acceptance import Host, ask
from weft.kernel import conntrack
from weft.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, Socket, attribute, message, nest
from weft.lab import calls, entering
from weft.lab.wiring import node_addresses

NODE4, _ = node_addresses(0)
OUTSIDE = "198.51.100.1"
KIND = socket.SOCK_STREAM
ACCOUNTING = "sysctl -qw net.netfilter.nf_conntrack_acct={}"
MANY_PODS_CLIENTS = "203.0.113.0"


def told(host: Host, *words: str) -> list[dict[str, Any]]:
    """The specs of connections, by their server's port; without what changes by itself."""
    said = host.weft("get", "connections", *words, "-o", "json")
    found = [each["spec"] for each in json.loads(said)["items"]]
    for spec in found:
        assert 0 < spec.pop("timeout") <= 432_000
    return sorted(found, key=lambda spec: spec["target"].get("port", 0))


@contextmanager
def connected(origin: Any, address: str, port: int, goal: Any, inner: int) -> Iterator[None]:
    """A TCP connection over which a word has gone both ways."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(entering.socket_in(goal, socket.AF_INET, KIND)))
        client = stack.enter_context(closing(entering.socket_in(origin, socket.AF_INET, KIND)))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", inner))
        server.listen(1)
        server.settimeout(5)
        client.settimeout(5)
        client.connect((address, port))
        peer = stack.enter_context(closing(server.accept()[0]))
        peer.settimeout(5)
        client.sendall(b"word" * 100)
        assert peer.recv(400)
        peer.sendall(b"answer")
        assert client.recv(16) == b"answer"
        yield


def test_connections_have_the_names_of_their_pods(host: Host) -> None:
    host.shell(ACCOUNTING.format(1))
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 81}]}
    names = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
    web = host.add("web", cni_args=names + "web-0", runtimeConfig=ports).addresses[0]
    host.add("other", cni_args=names + "other-0")
    inside, outside = host.network("web"), host.wires.outside.network
    with (
        connected(host.network("other"), web, 80, inside, 80),
        connected(outside, NODE4, 8080, inside, 81),
    ):
        direct, published = told(host)
        assert [told(host, "--port", port) for port in ("80", "8080")] == [[direct], [published]]
        assert told(host, "shop/other-0", "--protocol", "tcp") == [direct]
        assert told(host, "-n", "elsewhere") == []
        table = host.weft("get", "connections")
    assert (direct["source"]["pod"], direct["target"]["pod"]) == ("shop/other-0", "shop/web-0")
    assert (direct["state"], direct["target"]["port"]) == ("ESTABLISHED", 80)
    assert direct["octets"][0] > 400 > direct["octets"][1] > 0
    assert "asked" not in direct and "seenAs" not in direct
    assert published["asked"] == f"{NODE4}:8080"
    assert (published["source"]["address"], published["target"]["pod"]) == (OUTSIDE, "shop/web-0")
    assert "shop/other-0" in table and f"to {NODE4}:8080" in table
    host.drop("other")
    host.drop("web")
    host.shell(ACCOUNTING.format(0))


def fill(pod: str, count: int) -> None:
    """Tracked connections of clients of nowhere to port 80 of `pod`. Runs on the node."""
    target = socket.inet_aton(pod)
    first = struct.unpack("!I", socket.inet_aton(MANY_PODS_CLIENTS))[0]
    with Socket(conntrack.NETLINK_NETFILTER) as via:
        batch: list[bytes] = []
        for index in range(count):
            source = struct.pack("!I", first + index // 50_000)
            port = (1024 + index % 50_000).to_bytes(2, "big")
            ways = (
                (1, source, target, port, b"\0\x50"),  # CTA_TUPLE_ORIG
                (2, target, source, b"\0\x50", port),  # CTA_TUPLE_REPLY
            )
            body = bytes((socket.AF_INET, 0, 0, 0))
            for kind, one, other, near, far in ways:
                body += nest(
                    kind,
                    nest(1, attribute(1, one), attribute(2, other)),
                    nest(2, attribute(1, b"\x06"), attribute(2, near), attribute(3, far)),
                )
            body += attribute(7, struct.pack("!I", 600))  # CTA_TIMEOUT
            body += nest(4, nest(1, attribute(1, b"\x03")))  # TCP, established
            batch.append(message(1 << 8, NLM_F_ACK | NLM_F_CREATE, body))  # IPCTNL_MSG_CT_NEW
            if len(batch) == 200 or index == count - 1:
                _, failures = via.exchange(batch)
                assert {failure.errno for failure in failures} <= {errno.EEXIST}
                batch.clear()


def forget() -> None:
    """Empty the node's table."""
    with Socket(conntrack.NETLINK_NETFILTER) as via:
        via.transact([message(1 << 8 | 2, NLM_F_ACK, bytes((socket.AF_INET, 0, 0, 0)))])


@pytest.mark.matrix(id="I4", full=100_000, reduced=3_000)
def test_very_many_connections_are_told_and_cost_the_agent_little(host: Host, count: int) -> None:
    pod = host.add("pod", cni_args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=busy").addresses[0]
    calls.call(host.node, fill, pod, count, timeout=120.0)
    before = host.memory
    worst = 0.0
    done = threading.Event()

    def status() -> None:
        nonlocal worst
        while not done.is_set():
            worst = max(worst, host.send(ask("STATUS")).seconds)

    beside = threading.Thread(target=status)
    beside.start()
    began = time.monotonic()
    try:
        lines = host.weft("get", "connections", "-o", "name").splitlines()
    finally:
        done.set()
        beside.join()
    seconds = time.monotonic() - began
    print(f"{count} connections in {seconds:.2f} s, STATUS beside it at worst {worst * 1e3:.1f} ms")
    assert len(set(lines)) == len(lines) >= count
    assert len(told(host, "--port", "81")) == 0
    assert host.memory - before < 32, "the agent keeps what it tells"
    assert worst < 5
    host.drop("pod")
    calls.call(host.node, forget)
