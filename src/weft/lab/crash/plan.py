"""What a sweep is asked, and what comes of it. A finding names the one command that repeats it."""

from __future__ import annotations

import msgspec

from weft.lab.crash.faults import Fault
from weft.lab.crash.tracing import Point
from weft.lab.crash.verbs import THENS, VERBS, Victim


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to sweep. `points`: None for all, how many of each verb, or exactly these; `limit`: at
    most so many trials in all. Both draw by `seed`."""

    verbs: tuple[str, ...] = tuple(VERBS)
    victims: tuple[Victim, ...] = ("launcher", "agent")
    faults: tuple[Fault, ...] = (Fault("kill"),)
    thens: tuple[str, ...] = THENS
    points: int | tuple[Point, ...] | None = None
    limit: int | None = None
    seed: int = 1


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One play: the verb, who is struck, with what, where, and what comes after."""

    verb: str
    victim: Victim
    fault: Fault
    point: Point
    then: str

    @property
    def command(self) -> str:
        """What repeats exactly this."""
        return (
            f"weft lab crash-sweep --verb {self.verb} --victim {self.victim} "
            f"--fault {self.fault.word} --then {self.then} --points {self.point.spelled}"
        )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trial. `where`: the call that was struck, with its arguments; empty: the verb
    ended before it came to the point. `left`: what is wrong; empty: nothing."""

    trial: Trial
    where: str
    retried: bool = False
    left: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        if self.left:
            return "failed"
        if not self.where:
            return "missed"
        return "retried" if self.retried else "passed"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep's results, the seed they were drawn by, and how many datagrams the bystanders
    exchanged meanwhile."""

    results: tuple[Result, ...]
    seed: int
    datagrams: int

    @property
    def failures(self) -> list[Result]:
        return [each for each in self.results if each.left]
