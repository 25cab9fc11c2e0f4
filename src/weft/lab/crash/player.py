"""One stage and the trials that are played on it, each with the verdict that follows."""

from __future__ import annotations

import os
from contextlib import ExitStack

import msgspec

from weft.lab.crash import program
from weft.lab.crash.aftermath import Scene
from weft.lab.crash.plan import Result, Trial
from weft.lab.crash.returned import Returned
from weft.lab.crash.scope import Scope
from weft.lab.crash.stage import SUBJECTS, Stage
from weft.lab.crash.strike import effects, strike
from weft.lab.crash.tracing import Point
from weft.lab.crash.verbs import VERBS, Verb, Victim, prepare
from weft.model.errors import WeftError

_TRIES = 8  # a point that a busy machine moved away is looked for again


class Played(msgspec.Struct, frozen=True):
    """A result, and the datagrams that the bystanders exchanged meanwhile."""

    result: Result
    datagrams: int


class Player(Scope):
    """Stages, made when they are needed and anew when a trial has spoilt one; for the length of a
    `with` block."""

    def __init__(self, number: int = 0) -> None:
        """`number`: of this player among those of a process's children."""
        self._name = f"crash-{os.getpid()}-{number}"
        self._made = 0
        self._stack = ExitStack()
        self._stages: dict[bool, tuple[Stage, ExitStack]] = {}

    def close(self) -> None:
        """Give the stages back."""
        self._stack.close()
        self._stages.clear()

    def stage(self, *, bare: bool = False) -> Stage:
        """The stage of that kind."""
        if bare not in self._stages:
            self._made += 1
            stack = self._stack.enter_context(ExitStack())
            made = stack.enter_context(Stage(f"{self._name}-{self._made}", bare=bare))
            self._stages[bare] = made, stack
        return self._stages[bare][0]

    def _spoilt(self, verb: Verb) -> None:
        _, stack = self._stages.pop(verb.is_bare)
        stack.close()

    def answer(self, asked: bytes) -> bytes:
        """A trial's result, in octets."""
        return msgspec.msgpack.encode(self.settle(msgspec.msgpack.decode(asked, type=Trial)))

    def points(self, verb: Verb, victim: Victim) -> list[Point]:
        """Every call that was traced while the verb was played unharmed."""
        stage = self.stage(bare=verb.is_bare)
        found = effects(stage, verb, prepare(stage, verb), victim)
        self._clear(stage, verb)
        if verb.call is None:
            prepare(stage, verb)
            found += program.points_of_threads(stage, verb)
            self._clear(stage, verb)
        return found

    def _clear(self, stage: Stage, verb: Verb) -> None:
        if verb.is_bare:
            if stage.differs():
                stage.give_back()
        else:
            stage.start()
            for name in SUBJECTS:
                stage.must("DEL", name)
        left = stage.left()
        if left:
            raise WeftError("the verb leaves something without any fault: " + "; ".join(left))

    def settle(self, trial: Trial) -> Played:
        """A trial whose point was met, or that missed it time and again."""
        verb = VERBS[trial.verb]
        datagrams = 0
        for _ in range(_TRIES):
            stage = self.stage(bare=verb.is_bare)
            before = stage.traffic.counted().sent
            result = self.play(stage, trial)
            datagrams += stage.traffic.counted().sent - before
            if result.left:
                self._spoilt(verb)
            if result.outcome != "missed":
                break
        return Played(result, datagrams)

    def play(self, stage: Stage, trial: Trial) -> Result:
        """One trial. A trial that leaves something has spoilt the stage."""
        verb = VERBS[trial.verb]
        where = ""
        problems: list[str] = []
        retried = False
        try:
            prepared = prepare(stage, verb)
            struck = strike(stage, prepared, trial)
            where = struck.where
            scene = Returned(stage, verb) if verb.is_bare else Scene(stage, verb, prepared, struck)
            scene.play(trial.then, killed=trial.fault.is_kill)
            problems, retried = scene.problems, scene.retried
        except (WeftError, OSError) as error:
            problems = [f"the trial could not be ended: {error}"]
        return Result(trial=trial, where=where, retried=retried, left=tuple(problems))
