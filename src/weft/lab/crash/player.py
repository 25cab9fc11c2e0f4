"""One stage and the trials that are played on it, each with the verdict that follows."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType

import msgspec

from weft.lab.crash.aftermath import Scene
from weft.lab.crash.plan import Result, Trial
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


class Player:
    """A stage, made anew when a trial has spoilt it; for the length of a `with` block."""

    def __init__(self, number: int = 0) -> None:
        """`number`: of this player among those of a process's children."""
        self._name = f"crash-{os.getpid()}-{number}"
        self._stages = 0
        self._stack = ExitStack()

    def __enter__(self) -> Player:
        self._renew()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _renew(self) -> None:
        self._stack.close()
        self._stages += 1
        self.stage = self._stack.enter_context(Stage(f"{self._name}-{self._stages}"))

    def answer(self, asked: bytes) -> bytes:
        """A trial's result, in octets."""
        return msgspec.msgpack.encode(self.settle(msgspec.msgpack.decode(asked, type=Trial)))

    def points(self, verb: Verb, victim: Victim) -> list[Point]:
        """Every call that was traced while the verb was played unharmed."""
        found = effects(self.stage, verb, prepare(self.stage, verb), victim)
        self.stage.start()
        for name in SUBJECTS:
            self.stage.must("DEL", name)
        left = self.stage.left()
        if left:
            raise WeftError("the verb leaves something without any fault: " + "; ".join(left))
        return found

    def settle(self, trial: Trial) -> Played:
        """A trial whose point was met, or that missed it time and again."""
        datagrams = 0
        for _ in range(_TRIES):
            before = self.stage.traffic.counted().sent
            result = self.play(trial)
            datagrams += self.stage.traffic.counted().sent - before
            if result.left:
                self._renew()
            if result.outcome != "missed":
                break
        return Played(result, datagrams)

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
