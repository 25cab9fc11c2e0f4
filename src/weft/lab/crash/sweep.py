"""All faults at all points of all verbs, on one stage.

A verb is first played unharmed to find its points, once for each who can be struck; then once for
each point, fault and follow-up. What a plan leaves out of that is drawn by its seed, so a sample
can be played again. A finding names the one command that repeats it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import msgspec

from weft.lab.crash.aftermath import FOLLOW_UPS, Scene
from weft.lab.crash.faults import Fault
from weft.lab.crash.stage import SUBJECTS, Stage
from weft.lab.crash.strike import choose, effects, strike
from weft.lab.crash.tracing import Point
from weft.lab.crash.verbs import VERBS, Verb, Victim, prepare
from weft.model.errors import Invalid, WeftError

_TRIES = 8  # a point that a busy machine moved away is looked for again
Tell = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to sweep. `points`: None for all, how many of each verb, or exactly these; `limit`: at
    most so many trials in all. Both draw by `seed`."""

    verbs: tuple[str, ...] = ("ADD", "DEL", "CHECK", "GC", "DEL-ALONE", "START")
    victims: tuple[Victim, ...] = ("launcher", "agent")
    faults: tuple[Fault, ...] = (Fault("kill"),)
    thens: tuple[str, ...] = tuple(FOLLOW_UPS)
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


def sweep(plan: Plan, tell: Tell = lambda line: None) -> Report:
    """Carry a plan out. `tell` gets a line of progress now and then."""
    with Sweeper() as sweeper:
        return sweeper.carry_out(plan, tell)


class Sweeper:
    """A stage, made anew when a trial has spoilt it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._number = 0
        self._datagrams = 0
        self._found: dict[tuple[str, Victim], list[Point]] = {}

    def __enter__(self) -> Sweeper:
        self._renew()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _renew(self) -> None:
        self._stack.close()
        self._number += 1
        name = f"crash-{os.getpid()}-{self._number}"
        self.stage = self._stack.enter_context(Stage(name))

    def carry_out(self, plan: Plan, tell: Tell) -> Report:
        """See `sweep`."""
        trials = self._trials(plan, tell)
        before = self._sent()
        results = []
        for number, trial in enumerate(trials, 1):
            result = self._settled(trial)
            results.append(result)
            if result.left or number % 25 == 0 or number == len(trials):
                failed = sum(bool(each.left) for each in results)
                tell(f"{number} of {len(trials)} trials, {failed} failed")
        return Report(
            results=tuple(results),
            seed=plan.seed,
            datagrams=self._sent() - before,
        )

    def _sent(self) -> int:
        return self._datagrams + self.stage.traffic.counted().sent

    def _trials(self, plan: Plan, tell: Tell) -> list[Trial]:
        dice = random.Random(plan.seed)  # noqa: S311 - a sample that can be drawn again
        found = []
        for name in plan.verbs:
            verb = VERBS[name]
            for victim in (each for each in plan.victims if each in verb.victims):
                traced = self._points(verb, victim, tell)
                found += [
                    Trial(verb=name, victim=victim, fault=fault, point=point, then=then)
                    for fault in plan.faults
                    if verb.call is not None or fault.is_kill
                    for point in _drawn(choose(traced, verb, fault), plan.points, dice)
                    for then in plan.thens
                ]
        if not found:
            raise Invalid("nothing is left to try: no point of these verbs suits these faults")
        if plan.limit is not None and plan.limit < len(found):
            found = [found[at] for at in sorted(dice.sample(range(len(found)), plan.limit))]
        return found

    def _points(self, verb: Verb, victim: Victim, tell: Tell) -> list[Point]:
        if (verb.name, victim) not in self._found:
            points = effects(self.stage, verb, prepare(self.stage, verb), victim)
            self._found[verb.name, victim] = points
            tell(f"{verb.name}: {len(points)} calls of the {victim} were traced")
            self._clear()
        return self._found[verb.name, victim]

    def _clear(self) -> None:
        self.stage.start()
        for name in SUBJECTS:
            self.stage.must("DEL", name)
        left = self.stage.left()
        if left:
            raise WeftError("the verb leaves something without any fault: " + "; ".join(left))

    def _settled(self, trial: Trial) -> Result:
        """A trial whose point was met, or that missed it time and again."""
        for _ in range(_TRIES):
            result = self.play(trial)
            if result.left:
                self._datagrams += self.stage.traffic.counted().sent
                self._renew()
            if result.outcome != "missed":
                break
        return result

    def play(self, trial: Trial) -> Result:
        """One trial. A trial that leaves something has spoilt the stage."""
        verb = VERBS[trial.verb]
        where = ""
        problems: list[str] = []
        retried = False
        try:
            prepared = prepare(self.stage, verb)
            struck = strike(self.stage, prepared, trial.victim, trial.point, trial.fault)
            where = struck.where
            scene = Scene(self.stage, verb, prepared, struck)
            scene.play(trial.then, killed=trial.fault.is_kill)
            problems, retried = scene.problems, scene.retried
        except (WeftError, OSError) as error:
            problems = [f"the trial could not be ended: {error}"]
        return Result(trial=trial, where=where, retried=retried, left=tuple(problems))


def _drawn(
    points: list[Point], wanted: int | tuple[Point, ...] | None, dice: random.Random
) -> Iterable[Point]:
    if wanted is None:
        return points
    if isinstance(wanted, int):
        at = sorted(dice.sample(range(len(points)), min(wanted, len(points))))
        return [points[each] for each in at]
    known = {each.spelled: each for each in points}
    return [known.get(each.spelled, each) for each in wanted]
