"""Limited containers of the real agent: their rates, their guards, and what is left of them."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from acceptance import Answer, Ask, Host, ask, execute_all, host_link, pod_mac, watched
from lies import Ears, Liar, honest, lies, tables
from weft.lab import calls, entering, truth
from weft.lab.ears import Mouth, nonce
from weft.lab.rates import Stream, measure
from weft.lab.wiring import OUTSIDE_V4, node_addresses

NODE4, _ = node_addresses(0)
RATE = 20_000_000
SEGMENT, SEGMENTS = 1472, 44
LINK = host_link("pod")
BETWEEN = "wb" + LINK[2:]
UNABLE = (
    "import weft.agent.limiting as limiting; limiting.trial = lambda: 'there is no ifb'; "
    "from weft.main import main; main()"
)


def limited(**limits: int) -> dict[str, Any]:
    return {"runtimeConfig": {"bandwidth": limits}}


BOTH = limited(ingressRate=RATE, egressRate=RATE)


def rates(host: Host) -> list[tuple[int, int]]:
    """What `weft get attachments` says of limits."""
    items = json.loads(host.weft("get", "attachments", "-o", "json"))["items"]
    return [(x["status"].get("ingressRate", 0), x["status"].get("egressRate", 0)) for x in items]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_rates_are_kept_both_ways(host: Host, protocol: str) -> None:
    said = host.add("pod", **BOTH)
    pod, node = str(host.network("pod")), str(host.node.network)
    four = said.addresses[0]
    for stream in (
        Stream(origin=node, goal=pod, address=four, protocol=protocol),
        Stream(origin=pod, goal=node, address=NODE4, protocol=protocol),
    ):
        # never more; on a machine with other work a stream may take breaks, so it may try again.
        # `./dev bench bandwidth` says how near they come.
        for _ in range(5):
            arrived = measure(stream, RATE, seconds=0.4, warm=0.1)
            assert arrived.payload < 1.1 * RATE, (stream, arrived)
            if arrived.payload > 0.9 * RATE:
                break
        assert arrived.payload > 0.9 * RATE, (stream, arrived)
    host.drop("pod")


@pytest.mark.parametrize("rate", [3 * 10**6, 10**8])
def test_a_packet_of_64_kib_passes_a_bucket_that_is_smaller_and_one_that_is_larger(
    host: Host, rate: int
) -> None:
    """At the lower rate the kernel has to cut it, at the higher it goes as it is."""
    four = host.add("pod", **limited(ingressRate=rate, egressRate=rate)).addresses[0]
    shown = json.loads(host.shell(f"tc -j qdisc show dev {LINK} root"))[0]
    assert (shown["options"]["burst"] > SEGMENTS * SEGMENT) == (rate == 10**8)
    pod, node = host.network("pod"), host.node.network
    for origin, goal, address in ((node, pod, four), (pod, node, NODE4)):
        with (
            closing(entering.socket_in(goal, socket.AF_INET, socket.SOCK_DGRAM)) as server,
            closing(entering.socket_in(origin, socket.AF_INET, socket.SOCK_DGRAM)) as client,
        ):
            server.bind((address, 0))
            server.settimeout(5.0)
            client.setsockopt(17, 103, SEGMENT)  # SOL_UDP, UDP_SEGMENT
            client.sendto(bytes(SEGMENTS * SEGMENT), server.getsockname())
            assert [len(server.recv(2000)) for _ in range(SEGMENTS)] == [SEGMENT] * SEGMENTS
    host.drop("pod")


def test_what_a_limited_container_sends_passes_the_guards(host: Host) -> None:
    """It comes back from its ifb as if it had just come in."""
    pods = []
    for name, limits in (("pod", BOTH), ("other", {})):
        four, six = host.add(name, **limits).addresses
        pods.append(Liar(name=name, mac=pod_mac(name), ip4=four, ip6=six))
    me, victim = pods
    with Ears(host, [victim]) as ears, Mouth(host.network("pod")) as mouth:
        before, told = tables(host), {}
        for claim, mark, frame in lies(me, victim):
            told[mark] = claim
            mouth.say(frame)
        for goal, name in ((victim.ip4, "other"), (victim.ip6, "other"), (OUTSIDE_V4, "outside")):
            mark = nonce()
            mouth.say(honest(me, goal, mark))
            assert ears.ears[name].hears(mark, 5.0), f"an honest frame to {goal} did not arrive"
        assert not {told[mark] for _, mark in ears.drain(told)}
        assert tables(host) == before
    for pod in pods:
        host.drop(pod.name)


def _after(damage: str, request: Ask) -> list[Any]:
    """A call right after a command. Runs inside the node."""
    import subprocess

    subprocess.run(["sh", "-ec", damage], check=True)
    return execute_all([request], 1, 30.0)


def test_check_names_a_limit_that_is_not_kept(host: Host) -> None:
    said = host.add("pod", **BOTH)
    request = ask("CHECK", "pod", prevResult=said.json, **BOTH)
    assert host.send(request).status == 0
    before = host.snapshot()
    for _ in range(20):  # the agent mends it within a twentieth of a second
        raw = calls.call(host.node, _after, f"tc qdisc del dev {BETWEEN} root", request)[0]
        answer = Answer(status=raw[0], stdout=raw[1], stderr=raw[2], seconds=raw[3])
        assert host.settled(before) == []
        if answer.status:
            break
    assert answer.json and f"the token bucket of {BETWEEN} is missing" in answer.json["details"]
    host.drop("pod")


DAMAGES = {
    "no bucket towards the container": f"tc qdisc del dev {LINK} root",
    "another rate": f"tc qdisc change dev {BETWEEN} root tbf rate 1gbit burst 64k limit 1m",
    "no filter": f"tc filter del dev {LINK} ingress",
    "no hooks": f"tc qdisc del dev {LINK} clsact",
    "the ifb is down": f"ip link set {BETWEEN} down",
    "the ifb is gone": f"ip link del {BETWEEN}",
    "the ifb is renamed": f"ip link set {BETWEEN} name other",
}


def test_damage_to_limits_is_mended(host: Host) -> None:
    host.add("pod", **BOTH)
    before = host.snapshot()
    for name, damage in DAMAGES.items():
        host.shell(damage)
        left = host.settled(before)
        assert left == [], f"{name}:\n" + "\n".join(left)
    assert host.log().count("Repaired") >= 4  # the same words are told once
    host.drop("pod")


def test_an_agent_that_starts_adopts_limits_with_and_without_a_journal(host: Host) -> None:
    host.add("pod", **limited(ingressRate=RATE, egressRate=10**6, egressBurst=10**6))
    host.add("slow", **limited(egressRate=8000))
    before, said = host.snapshot(), rates(host)
    assert sorted(said) == [(0, 8000), (RATE, 10**6)]
    assert "20M" in host.weft("get", "attachments", "-o", "wide")
    losses = ("true", "rm /run/weft/journal.db*", f"ip link set {BETWEEN} name other")
    for loss in losses:
        host.end()
        start = len(host.log())
        host.shell(loss)
        host.start()
        assert ("Repaired" in host.log()[start:]) == ("other" in loss)
        assert host.settled(before) == []
        assert rates(host) == said
    host.drop("slow")
    host.drop("pod")


def test_a_deletion_without_an_agent_is_finished_by_the_next(host: Host) -> None:
    host.add("pod", **BOTH)
    host.end()
    host.drop("pod")
    assert LINK not in truth.links(host.node.network)
    host.shell("rm /run/weft/journal.db*")  # who starts has the ifb's own word only
    host.start()
    assert BETWEEN not in truth.links(host.node.network)


def test_a_container_that_ends_without_a_deletion_leaves_its_ifb_to_that(host: Host) -> None:
    host.add("pod", **BOTH)
    host.unmake(["pod"])
    deadline = time.monotonic() + 10.0
    while LINK in truth.links(host.node.network):  # the kernel takes its time
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert BETWEEN in truth.links(host.node.network)
    assert host.send(ask("DEL", "pod")).status == 0
    assert BETWEEN not in truth.links(host.node.network)


def test_a_placeholder_for_no_burst_is_none(host: Host) -> None:
    host.add("pod", **limited(ingressRate=RATE, ingressBurst=2**32 - 1))
    shown = host.shell(f"tc -j qdisc show dev {LINK} root")
    assert json.loads(shown)[0]["options"]["burst"] < 100_000
    host.drop("pod")


def test_a_kernel_that_cannot_limit_refuses_before_anything(host: Host) -> None:
    command = host.command
    host.end()
    host.command = [sys.executable, "-c", UNABLE, "agent"]
    host.start()
    host.make(["pod"])
    before = host.snapshot()
    said = host.send(ask("ADD", "pod", **BOTH))
    assert said.is_clean and said.code == 2 and "there is no ifb" in said.json["msg"]
    assert host.settled(before) == []
    assert "there is no ifb" in host.weft("status", "-o", "json")
    host.unmake(["pod"])
    host.add("other")
    host.drop("other")
    host.end()
    host.command = command
    host.start()


def test_teardown_takes_limits_along(new_host: Callable[..., Host]) -> None:
    made = new_host()
    with watched(made):
        pass
    made.add("pod", **BOTH)
    made.end()
    made.weft("agent", "--teardown")
    left = truth.links(made.node.network)
    assert not [name for name in left if name.startswith(("wf", "wb"))]
    made.unmake(["pod"])
