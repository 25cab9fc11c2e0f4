"""What comes after a struck command of `weft agent`, on a stage without bystanders.

The same command is given again, or an agent is started and used; in the end the node is given
back, and must then hold exactly what a teardown without any fault leaves.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from weft.lab.crash.stage import SUBJECTS, Stage
from weft.lab.crash.verbs import Verb
from weft.model.errors import WeftError

_MUTE = 120
"""Python's own status of a program that could not write out what it had said (`write` fails)."""


class Returned:
    """The play after one fault; `problems` gathers what is wrong; nothing is tried twice."""

    def __init__(self, stage: Stage, verb: Verb) -> None:
        self.stage = stage
        self.verb = verb
        self.problems: list[str] = []
        self.retried = False

    def play(self, then: str, *, killed: bool) -> None:
        """The follow-up of that name, with all checks before and after."""
        status = self.stage.status
        if status not in (0, 1, _MUTE) and not killed:
            self.problems.append(f"{' '.join(self.verb.command)} ended with status {status}")
        if status == 0:
            self.fulfilled("although it succeeded: ")
        if not self.problems:
            FOLLOW_UPS[then](self)
        if not self.problems:
            self.end(killed=killed)

    def fulfilled(self, when: str = "") -> None:
        """What the command promises is so."""
        if self.verb.name == "TEARDOWN":
            self.problems += [f"{when}{line}" for line in self.stage.left()]
        elif (found := self.stage.barrier()) != self.stage.closed:
            lines = difflib.ndiff(self.stage.closed, found)
            self.problems += [f"{when}not closed: {each}" for each in lines if each[0] in "+-"]

    def attach(self) -> None:
        """An attachment that is made, looked at and taken away, after whatever was there."""
        stage, name = self.stage, SUBJECTS[0]
        stage.must("DEL", name)
        result = stage.must("ADD", name).json or {}
        stage.must("CHECK", name, previous=result)
        stage.must("DEL", name)

    def end(self, *, killed: bool) -> None:
        """Back to where the next trial begins."""
        self.stage.give_back()
        self.problems += self.stage.left()
        unforeseen = self.stage.unforeseen()
        if killed:
            self.problems += [f"the agent's log: {line}" for line in unforeseen]


def _then_again(scene: Returned) -> None:
    try:
        scene.stage.command(*scene.verb.command)
    except WeftError as error:
        scene.problems.append(f"when it was given again: {error}")
    else:
        scene.fulfilled("when it was given again: ")


def _then_restart(scene: Returned) -> None:
    scene.stage.start()
    scene.attach()


FOLLOW_UPS: dict[str, Callable[[Returned], None]] = {
    "again": _then_again,
    "restart": _then_restart,
}
