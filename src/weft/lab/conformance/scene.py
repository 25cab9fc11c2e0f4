"""A liar and the receivers that prove what becomes of the lies.

A scene is an attacker's pod, a victim's pod and a host beyond the node, with ears at both
receivers. Forged frames count only together with an honest frame of the same make: if that
arrives, silence means a guard and not a broken path, and since frames keep their order,
everything forged would have arrived before it. Used by `spoofing` and `lies`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from weft.lab import entering, frames, truth
from weft.lab.conformance.case import Failed, NotApplicable, none_of
from weft.lab.conformance.reachability import has_default
from weft.lab.conformance.station import Pod, Station
from weft.lab.ears import Ear, Mouth, nonce
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6

PORTS = (40001, 40002)
OUTSIDE = {4: OUTSIDE_V4, 6: OUTSIDE_V6}


class Scene(msgspec.Struct, kw_only=True):
    """An attacker, a victim, and what it takes to send from one and listen at the others."""

    attacker: Pod
    victim: Pod
    mouth: Mouth
    at_victim: Ear
    at_outside: Ear
    mac: str
    next_hop: dict[str, str]

    def source(self, family: int) -> str:
        return self.attacker.addresses(family)[0]

    def listen(self) -> None:
        """Take what has arrived until now out of the ears' sockets."""
        self.at_victim.heard(())
        self.at_outside.heard(())

    def frame(self, source: str, destination: str, mark: bytes, mac: str | None = None) -> bytes:
        """A UDP packet with these addresses, by way of the hop that leads to the destination."""
        packet = frames.packet(source, destination, PORTS, mark)
        via = self.next_hop[destination]
        return frames.ethernet(via, mac or self.mac, frames.kind_of(source), packet)


def first(pod: Pod, family: int) -> str:
    found = pod.addresses(family)
    if not found:
        raise NotApplicable(f"the chain assigns no IPv{family} address")
    return found[0]


@contextmanager
def staged(station: Station, family: int) -> Iterator[Scene]:
    with station.pods(2) as (attacker, victim):
        goals = [first(victim, family)]
        if has_default(attacker, family):
            goals.append(OUTSIDE[family])
        with (
            Mouth(attacker.network) as mouth,
            Ear(victim.network) as at_victim,
            Ear(station.outside) as at_outside,
            _sink(victim.network, family),
            _sink(station.outside, family),
        ):
            yield Scene(
                attacker=attacker,
                victim=victim,
                mouth=mouth,
                at_victim=at_victim,
                at_outside=at_outside,
                mac=truth.links(attacker.network)["eth0"]["address"],
                next_hop={goal: hop(attacker.network, goal) for goal in goals},
            )


def _sink(network: Path, family: int) -> socket.socket:
    """Takes what arrives, so that no ICMP error carries a forged packet to somewhere else."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    sink = entering.socket_in(network, kind, socket.SOCK_DGRAM)
    sink.bind(("", PORTS[1]))
    return sink


def hop(network: Path, goal: str) -> str:
    """The destination MAC the pod's own kernel uses for `goal`, read from a frame it sends."""
    mark = nonce()
    family = socket.AF_INET6 if ":" in goal else socket.AF_INET
    with (
        Ear(network, outgoing=True) as own,
        entering.socket_in(network, family, socket.SOCK_DGRAM) as sock,
    ):
        for _ in range(20):
            sock.sendto(mark, (goal, PORTS[1]))
            sent = own.hears(mark, 0.1)
            if sent is not None:
                return sent[:6].hex(":")
    raise Failed(f"the pod's kernel sends nothing to {goal}")


def honest(scene: Scene, family: int) -> None:
    """Proof that the path works: hand-made honest frames arrive, forged ones would have too."""
    for goal, ear in _receivers(scene):
        mark = nonce()
        for _ in range(10):
            scene.mouth.say(scene.frame(scene.source(family), goal, mark))
            if ear.hears(mark, 0.2) is not None:
                break
        else:
            raise Failed(f"an honest frame to {goal} does not arrive, so nothing is proven")


def _receivers(scene: Scene) -> list[tuple[str, Ear]]:
    outside = {OUTSIDE_V4, OUTSIDE_V6}
    return [
        (goal, scene.at_outside if goal in outside else scene.at_victim) for goal in scene.next_hop
    ]


def judge(scene: Scene, family: int, marks: dict[bytes, str]) -> None:
    """Fail when any of the marked frames has arrived anywhere."""
    honest(scene, family)
    arrived = []
    for place, ear in (("the pod", scene.at_victim), ("the outside", scene.at_outside)):
        arrived += [f"{marks[mark]} reached {place}" for mark in ear.heard(marks)]
    none_of(sorted(arrived))
