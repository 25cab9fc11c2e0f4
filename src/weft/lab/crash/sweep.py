"""All faults at all points of all verbs.

A verb is first played unharmed to find its points, once for each who can be struck; then once for
each point, fault and follow-up. What a plan leaves out of that is drawn by its seed, so a sample
can be played again. A few trials are played here, on one stage; many by a crew.
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
from weft.lab.crash.strike import choose
from weft.lab.crash.tracing import Point
from weft.lab.crash.verbs import VERBS, Victim
from weft.model.errors import Invalid

_FEW = 60  # trials for which a crew is not worth its stages
_STAGES_A_CORE = 2  # a trial waits about as long as it works
Tell = Callable[[str], None]


def sweep(plan: Plan, tell: Tell = lambda line: None) -> Report:
    """Carry a plan out. `tell` gets a line of progress now and then."""
    with Sweeper() as sweeper:
        return sweeper.carry_out(plan, tell)


class Sweeper:
    """Carries plans out. One stage is kept from one plan to the next, as long as one is enough."""

    def __init__(self, stages: int | None = None) -> None:
        """`stages`: so many for a plan of many trials; by default as the machine's cores bear."""
        self._count = stages or _STAGES_A_CORE * len(os.sched_getaffinity(0))
        self._stack = ExitStack()
        self._own: Player | None = None
        self._found: dict[tuple[str, Victim], list[Point]] = {}

    def __enter__(self) -> Sweeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    @property
    def player(self) -> Player:
        """The one whose stage is in this process."""
        if self._own is None:
            self._own = self._stack.enter_context(Player())
        return self._own

    def _leave(self) -> None:
        self._stack.close()
        self._own = None

    def carry_out(self, plan: Plan, tell: Tell) -> Report:
        """See `sweep`."""
        trials = self._trials(plan, tell)
        played: dict[int, Played] = {}
        failed = 0
        for number, each in self._played(trials):
            played[number] = each
            failed += bool(each.result.left)
            if each.result.left or len(played) % 25 == 0 or len(played) == len(trials):
                tell(f"{len(played)} of {len(trials)} trials, {failed} failed")
        return Report(
            results=tuple(played[number].result for number in range(len(trials))),
            seed=plan.seed,
            datagrams=sum(each.datagrams for each in played.values()),
        )

    def _played(self, trials: list[Trial]) -> Iterator[tuple[int, Played]]:
        """The number of each trial and what came of it, in any order."""
        if len(trials) <= _FEW or self._count == 1:
            for number, trial in enumerate(trials):
                yield number, self.player.settle(trial)
            return
        self._leave()
        asked = [msgspec.msgpack.encode(trial) for trial in trials]
        with Crew(self._count, Player) as crew:
            for number, answer in crew.play(asked):
                yield number, msgspec.msgpack.decode(answer, type=Played)

    def _trials(self, plan: Plan, tell: Tell) -> list[Trial]:
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
        if plan.limit is not None and plan.limit < len(found):
            found = [found[at] for at in sorted(dice.sample(range(len(found)), plan.limit))]
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
