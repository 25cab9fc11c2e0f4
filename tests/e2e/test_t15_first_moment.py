"""T15: a program that waits in the namespace and sends from the moment there is a link."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from acceptance import Host, ask, pod_mac, problems
from lies import Ears, Liar, honest, lies, tables
from weft.lab import entering
from weft.lab.ears import Mouth, nonce
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6

BATCH = 20
GUESS = ("10.244.0.250", "fd00::250")  # the pod does not know its addresses before it has them


@pytest.mark.matrix(id="T15", full=1000, reduced=20)
def test_what_is_sent_from_link_up_on_reaches_nobody(host: Host, count: int) -> None:
    body = host.add("victim").json
    ip4, ip6 = (ip["address"].split("/")[0] for ip in body["ips"])
    victim = Liar(name="victim", mac=body["interfaces"][1]["mac"], ip4=ip4, ip6=ip6)
    sent = early = 0
    with Ears(host, [victim]) as ears:
        for first in range(0, count, BATCH):
            names = [f"early-{n}" for n in range(first, min(first + BATCH, count))]
            before = tables(host)
            host.make(names)
            for name in names:
                ends = _attach_while_sending(host, ears, name, victim)
                early += ends[0]
                sent += ends[1]
            assert not problems(host.storm([ask("DEL", name) for name in names]))
            host.unmake(names)
            assert tables(host) == before
    assert sent >= count, "hardly anything was sent, so hardly anything is proven"
    assert early > 0, "nothing was sent before ADD had answered, so its window was not looked at"
    host.drop("victim")


def _attach_while_sending(host: Host, ears: Ears, name: str, victim: Liar) -> tuple[int, int]:
    """ADD with a sender at work; how many frames its link took before the answer, and in all."""
    me = Liar(name=name, mac=pod_mac(name), ip4=GUESS[0], ip6=GUESS[1])
    told = {mark: (claim, frame) for claim, mark, frame in lies(me, victim)}
    sender, counts = _sender(host.network(name), [frame for _, frame in told.values()])
    try:
        said = host.send(ask("ADD", name))
        early = _count(counts)
        assert not problems([said])
        _prove(host, ears, me, victim, said.addresses)
    finally:
        os.kill(sender, signal.SIGKILL)
        os.waitpid(sender, 0)
    late = _count(counts)
    os.close(counts)
    heard = {(place, told[mark][0]) for place, mark in ears.drain(told)}
    assert not heard, f"{name}: {heard}"
    return early, early + late


def _prove(host: Host, ears: Ears, me: Liar, victim: Liar, own: Sequence[str]) -> None:
    """An honest frame of the new pod arrives as soon as ADD has answered."""
    true = Liar(name=me.name, mac=me.mac, ip4=own[0], ip6=own[1])
    with Mouth(host.network(me.name)) as mouth:
        for goal, place in (
            (victim.ip4, "victim"),
            (victim.ip6, "victim"),
            (OUTSIDE_V4, "outside"),
            (OUTSIDE_V6, "outside"),
        ):
            mark = nonce()
            mouth.say(honest(true, goal, mark))
            assert ears.ears[place].hears(mark, 5.0), f"an honest frame to {goal} did not arrive"


def _sender(network: Path, frames: Sequence[bytes]) -> tuple[int, int]:
    """A process that sends on eth0 of the namespace; its pid, and where it counts what went out.

    It writes one octet to a pipe for each frame that the link took.
    """
    counts, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    child = os.fork()
    if child:
        os.close(report)
        return child, counts
    try:
        signal.alarm(60)
        with entering.network(network):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            _insist(raw, frames, report)
    finally:
        os._exit(0)


def _insist(raw: socket.socket, frames: Sequence[bytes], report: int) -> None:
    while True:
        try:
            raw.bind(("eth0", 0))
            break
        except OSError:  # there is no such link yet
            continue
    while True:
        for frame in frames:
            try:
                raw.send(frame)
                os.write(report, b".")
            except OSError:  # the link is not up yet, or the pipe is full
                continue


def _count(counts: int) -> int:
    found = 0
    while True:
        try:
            piece = os.read(counts, 1 << 16)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += len(piece)
