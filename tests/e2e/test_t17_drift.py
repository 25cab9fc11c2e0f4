"""T17: what others damage on the host is as it was within a second; what is theirs stays theirs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest
from bench.damages import DAMAGES, FOREIGN, FOREIGN_RULES, Damage

from acceptance import SLACK, Host, host_link, watched
from lies import HOST_MAC, Liar, honest
from weft.lab import frames
from weft.lab.ears import Ear, Mouth, nonce

REPAIRED = 1.0
OPEN = 0.2  # seconds that rules which anybody may change, or a bridge, let forged packets pass
UNPROTECTED = "ruleset:\n  protected: never\n"
RULES = tuple(each for each in DAMAGES if each.rules)


class Leak(NamedTuple):
    """Forged packets that arrived, and the seconds from the first's sending to the last's."""

    packets: int
    seconds: float


@contextmanager
def _beset(made: Host) -> Iterator[Host]:
    """A warm host on which foreign things stand."""
    made.node.path("/run/foreign.nft").write_text(FOREIGN_RULES)
    made.start()
    made.shell(FOREIGN + "nft -f /run/foreign.nft")
    made.end()
    with watched(made) as host:
        yield host


def _pod(host: Host, name: str) -> Liar:
    said: Any = host.add(name).json
    four, six = (ip["address"].split("/")[0] for ip in said["ips"])
    return Liar(name=name, mac=said["interfaces"][1]["mac"], ip4=four, ip6=six)


class Forger(threading.Thread):
    """Sends forged packets from one pod to another, all the time; an ear is at the receiver."""

    def __init__(self, host: Host, me: Liar, victim: Liar) -> None:
        super().__init__(daemon=True)
        self.ear = Ear(host.network(victim.name))
        self._mouth = Mouth(host.network(me.name))
        self._me, self._victim = me, victim
        self._over = threading.Event()
        self.marks: dict[bytes, float] = {}

    def run(self) -> None:
        sources = ("203.0.113.9", "2001:db8:bad::9")
        while not self._over.wait(0.002):
            for source, goal in zip(sources, (self._victim.ip4, self._victim.ip6), strict=True):
                mark = nonce()
                packet = frames.packet(source, goal, (1, 2), mark)
                kind = frames.kind_of(goal)
                self.marks[mark] = time.monotonic()
                with suppress(OSError):  # the link is down
                    self._mouth.say(frames.ethernet(HOST_MAC, self._me.mac, kind, packet))

    def leaked(self) -> Leak:
        """What arrived since the last time."""
        sent = self.marks.copy()
        times = [sent[mark] for mark in self.ear.heard(sent.keys())]
        self.ear.kept.clear()
        return Leak(len(times), max(times) - min(times) if times else 0.0)

    def works(self, victim: Liar) -> bool:
        """Whether an honest packet of the same make arrives."""
        mark = nonce()
        self._mouth.say(honest(self._me, victim.ip4, mark))
        return self.ear.hears(mark, 5.0) is not None

    def close(self) -> None:
        self._over.set()
        self.join()
        self.ear.socket.close()
        self._mouth.socket.close()


@contextmanager
def _forger(host: Host, me: Liar, victim: Liar) -> Iterator[Forger]:
    made = Forger(host, me, victim)
    made.start()
    try:
        yield made
    finally:
        made.close()


def _chosen(kinds: Sequence[Damage], count: int, seed: int = 17) -> list[Damage]:
    """Every kind so many times, or as many kinds as that where it is fewer."""
    dice = random.Random(seed)
    print(f"seed {seed}")
    if count >= len(kinds):
        return [*kinds] * (count // len(kinds))
    return dice.sample(kinds, count)


class Site:
    """A beset host, the words of damages to its first pod, and a forger in it."""

    def __init__(self, host: Host, forger: Forger, words: dict[str, str]) -> None:
        self.host, self.forger, self._words = host, forger, words
        self.before = host.snapshot()
        self._nexthops = host.shell("ip nexthop show")

    def suffer(self, damage: Damage) -> None:
        """Done, mended in time, and what passed meanwhile."""
        self.forger.leaked()
        self.host.shell(damage.command.format(**self._words))
        left = self.host.settled(self.before, patience=REPAIRED * SLACK)
        assert left == [], f"{damage.name} is not mended:\n" + "\n".join(left[:20])
        leak = self.forger.leaked()
        if damage.opens:
            print(f"{damage.name}: {leak.packets} forged packets in {leak.seconds * 1000:.0f} ms")
            assert leak.seconds < OPEN * SLACK, f"{damage.name} stood open"
        else:
            assert leak.packets == 0, f"{damage.name}: {leak.packets} forged packets passed"
        time.sleep(0.06)  # a leak that is mended late would be heard now
        assert self.forger.leaked().packets == 0, f"{damage.name}: forged packets pass"

    def resist(self, damage: Damage) -> None:
        """Refused by the kernel, and nothing is lost or passes, not even for a moment."""
        self.forger.leaked()
        done = self.host.node.run(["sh", "-c", damage.command.format(**self._words)])
        if "flush ruleset" not in damage.command:  # that one passes over what it may not touch
            assert done.returncode != 0, f"{damage.name} was not refused"
            assert b"Operation not permitted" in done.stderr, done.stderr.decode()
        left = self.host.settled(self.before, patience=0.0)
        assert left == [], f"{damage.name} changed something:\n" + "\n".join(left[:20])
        assert self.forger.leaked().packets == 0, f"{damage.name}: forged packets passed"

    def end(self) -> None:
        assert self.host.shell("ip nexthop show") == self._nexthops
        assert "Contested" not in self.host.log()


@contextmanager
def _site(made: Host) -> Iterator[Site]:
    with _beset(made) as host:
        me, victim = pods = [_pod(host, name) for name in ("one", "two")]
        words = {"link": host_link("one"), "four": me.ip4, "six": me.ip6, "mac": me.mac}
        with _forger(host, me, victim) as forger:
            assert forger.works(victim)
            site = Site(host, forger, words)
            yield site
            assert forger.works(victim)
        site.end()
        for pod in pods:
            host.drop(pod.name)


@pytest.mark.matrix(id="T17", full=10 * len(DAMAGES), reduced=7)
def test_protected_rules_resist_and_other_damage_is_mended_with_nothing_forged_passing(
    new_host: Callable[..., Host], count: int
) -> None:
    with _site(new_host()) as site:
        for damage in _chosen(DAMAGES, count):
            if damage.rules:
                site.resist(damage)
            else:
                site.suffer(damage)


@pytest.mark.matrix(id="T17", full=10 * len(RULES), reduced=3)
def test_damage_to_rules_that_are_not_protected_is_mended_within_a_moment(
    new_host: Callable[..., Host], count: int
) -> None:
    with _site(new_host(UNPROTECTED)) as site:
        for damage in _chosen(RULES, count):
            site.suffer(damage)
