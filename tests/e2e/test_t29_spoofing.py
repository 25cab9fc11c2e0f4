"""T29: several pods on a node, each a liar in turn, all others listening."""

from __future__ import annotations

import random

import pytest

from acceptance import Host
from lies import HOST_MAC, Ears, Liar, honest, lies, random_lie, tables
from weft.lab import frames
from weft.lab.ears import Mouth, nonce
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6

PODS = 4


@pytest.fixture
def pods(host: Host) -> list[Liar]:
    made = []
    for number in range(PODS):
        name = f"liar-{number}"
        body = host.add(name).json
        ip4, ip6 = (ip["address"].split("/")[0] for ip in body["ips"])
        made.append(Liar(name=name, mac=body["interfaces"][1]["mac"], ip4=ip4, ip6=ip6))
    return made


def _drop(host: Host, pods: list[Liar]) -> None:
    for pod in pods:
        host.drop(pod.name)


def _prove(mouth: Mouth, ears: Ears, me: Liar, victim: Liar) -> None:
    """Honest frames of the same make arrive, at the pod and outside, in both families."""
    for goal, name in (
        (victim.ip4, victim.name),
        (victim.ip6, victim.name),
        (OUTSIDE_V4, "outside"),
        (OUTSIDE_V6, "outside"),
    ):
        mark = nonce()
        mouth.say(honest(me, goal, mark))
        assert ears.ears[name].hears(mark, 5.0), f"an honest frame to {goal} did not arrive"


def test_nothing_forged_reaches_another_pod_the_node_or_the_outside(
    host: Host, pods: list[Liar]
) -> None:
    for place, me in enumerate(pods):
        victim = pods[(place + 1) % PODS]
        others = [pod for pod in pods if pod is not me]
        with Ears(host, others) as ears, Mouth(host.network(me.name)) as mouth:
            _prove(mouth, ears, me, victim)
            before = tables(host)
            told = {}
            for claim, mark, frame in lies(me, victim):
                told[mark] = claim
                mouth.say(frame)
            heard = ears.drain(told)
            _prove(mouth, ears, me, victim)
            heard |= ears.drain(told)
            assert not {(place, told[mark]) for place, mark in heard}
            assert tables(host) == before
    _drop(host, pods)


@pytest.mark.matrix(id="T29", full=10_000, reduced=300)
def test_random_forged_frames_of_every_pod_reach_nobody(
    host: Host, pods: list[Liar], count: int
) -> None:
    """`count` frames a pod."""
    for place, me in enumerate(pods):
        victim = pods[(place + 1) % PODS]
        dice = random.Random(place)
        before = tables(host)
        with (
            Ears(host, [pod for pod in pods if pod is not me]) as ears,
            Mouth(host.network(me.name)) as mouth,
        ):
            told: dict[bytes, str] = {}
            for number in range(count):
                claim, mark, frame = random_lie(me, victim, dice)
                told[mark] = f"{claim}: {frame.hex()}"
                mouth.say(frame)
                if number % 250 == 249:
                    assert not {(p, told[m]) for p, m in ears.drain(told)}
            _prove(mouth, ears, me, victim)
            assert not {(p, told[m]) for p, m in ears.drain(told)}
        assert tables(host) == before
    _drop(host, pods)


def test_the_ears_hear_forged_frames_where_the_guards_are_taken_away(
    host: Host, pods: list[Liar]
) -> None:
    """The other tests prove something only because this one hears."""
    me, victim = pods[0], pods[1]
    with Ears(host, [victim]) as ears, Mouth(host.network(me.name)) as mouth:
        mark = nonce()
        packet = frames.packet("203.0.113.9", victim.ip4, (1, 2), mark)
        frame = frames.ethernet(HOST_MAC, me.mac, frames.IPV4, packet)
        mouth.say(frame)
        assert ears.ears[victim.name].hears(mark, 0.3) is None
        before = host.snapshot()
        host.end()
        host.shell("nft delete table inet weft")
        mouth.say(frame)
        assert ears.ears[victim.name].hears(mark, 0.3) is None, "the second guard: rp_filter"
        host.shell("for file in /proc/sys/net/ipv4/conf/wf*/rp_filter; do echo 0 >$file; done")
        for _ in range(20):
            mouth.say(frame)
            if ears.ears[victim.name].hears(mark, 0.2):
                break
        else:
            raise AssertionError("a forged frame did not arrive without any guard")
    host.start()
    assert host.settled(before) == []
    _drop(host, pods)
