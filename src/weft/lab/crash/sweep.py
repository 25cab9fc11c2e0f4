"""All faults at all points of all verbs.

A verb is first played unharmed to find its points, once for each who can be struck; then once for
each point, fault and follow-up. What a plan leaves out of that is drawn by its seed, so a sample
can be played again. A sample's point that a busy machine moved away, time and again, gives way to
another of the same verb. A few trials are played here, on one stage; many by a crew.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import msgspec

from weft.lab.crash.crew import Crew
from weft.lab.crash.plan import Plan, Report, Trial
from weft.lab.crash.player import Played, Player
from weft.lab.crash.scope import Scope
from weft.lab.crash.strike import choose
from weft.lab.crash.tracing import Point
from weft.lab.crash.verbs import VERBS, Victim
from weft.model.errors import Invalid

_FEW = 60  # trials for which a crew is not worth its stages
_STAGES_A_CORE = 2  # a trial waits about as long as it works
_DRAWS = 4  # times that another point is drawn for one that was missed
Tell = Callable[[str], None]


def sweep(plan: Plan, tell: Tell = lambda line: None) -> Report:
    """Carry a plan out. `tell` gets a line of progress now and then."""
    with Sweeper() as sweeper:
        return sweeper.carry_out(plan, tell)


class Sweeper(Scope):
    """Carries plans out. One stage is kept from one plan to the next, as long as one is enough."""

    def __init__(self, stages: int | None = None) -> None:
        """`stages`: so many for a plan of many trials; by default as the machine's cores bear."""
        self._count = stages or _STAGES_A_CORE * len(os.sched_getaffinity(0))
        self._stack = ExitStack()
        self._own: Player | None = None
        self._found: dict[tuple[str, Victim], list[Point]] = {}

    @property
    def player(self) -> Player:
        """The one whose stage is in this process."""
        if self._own is None:
            self._own = self._stack.enter_context(Player())
        return self._own

    def close(self) -> None:
        """Give the stage back; another is made when it is needed."""
        self._stack.close()
        self._own = None

    def carry_out(self, plan: Plan, tell: Tell) -> Report:
        """See `sweep`."""
        trials, spare = self._trials(plan, tell)
        played: dict[int, Played] = {}
        failed = datagrams = 0
        due = dict(enumerate(trials))
        for _ in range(1 + _DRAWS):
            for number, each in self._played(due):
                played[number] = each
                failed += bool(each.result.left)
                datagrams += each.datagrams
                if each.result.left or len(played) % 25 == 0 or len(played) == len(trials):
                    tell(f"{len(played)} of {len(trials)} trials, {failed} failed")
            due = others(played, spare)
            if not due:
                break
        return Report(
            results=tuple(played[number].result for number in range(len(trials))),
            seed=plan.seed,
            datagrams=datagrams,
        )

    def _played(self, trials: dict[int, Trial]) -> Iterator[tuple[int, Played]]:
        """The number of each trial and what came of it, in any order."""
        if len(trials) <= _FEW or self._count == 1:
            for number, trial in trials.items():
                yield number, self.player.settle(trial)
            return
        self.close()
        numbers = list(trials)
        asked = [msgspec.msgpack.encode(trial) for trial in trials.values()]
        with Crew(self._count, Player) as crew:
            for place, answer in crew.play(asked):
                yield numbers[place], msgspec.msgpack.decode(answer, type=Played)

    def _trials(self, plan: Plan, tell: Tell) -> tuple[list[Trial], list[Trial]]:
        """What to play, and what the plan's limit leaves out, in the order of a draw."""
        dice = random.Random(plan.seed)  # noqa: S311 - a sample that can be drawn again
        found = []
        for name in plan.verbs:
            verb = VERBS[name]
            for victim in (each for each in plan.victims if each in verb.victims):
                if (name, victim) not in self._found:
                    self._found[name, victim] = self.player.points(verb, victim)
                    count = len(self._found[name, victim])
                    tell(f"{name}: {count} calls of the {victim} were traced")
                traced = self._found[name, victim]
                found += [
                    Trial(verb=name, victim=victim, fault=fault, point=point, then=then)
                    for fault in plan.faults
                    if verb.fails or fault.is_kill
                    for point in _drawn(choose(traced, fault), plan.points, dice)
                    for then in plan.thens
                    if then in verb.thens
                ]
        if not found:
            raise Invalid("nothing is left to try: no point of these verbs suits these faults")
        if plan.limit is None or plan.limit >= len(found):
            return found, []
        drawn = dice.sample(range(len(found)), plan.limit)
        spare = [each for at, each in enumerate(found) if at not in set(drawn)]
        dice.shuffle(spare)
        return [found[at] for at in sorted(drawn)], spare


def others(played: dict[int, Played], spare: list[Trial]) -> dict[int, Trial]:
    """Another trial of the same verb, victim and fault for each that missed its point, taken from
    `spare`, or of the same verb and victim, as long as there is one."""
    found: dict[int, Trial] = {}
    for number in sorted(played):
        result = played[number].result
        if result.outcome != "missed":
            continue
        missed = result.trial
        alike = [t for t in spare if (t.verb, t.victim) == (missed.verb, missed.victim)]
        same = [t for t in alike if t.fault == missed.fault and t.point != missed.point]
        if alike:
            found[number] = (same or alike)[0]
            spare.remove(found[number])
    return found


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
