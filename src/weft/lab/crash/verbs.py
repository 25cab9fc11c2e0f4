"""The verbs of a sweep: what stands before each, who can be struck in it, what it asks.

CNI's verbs that change or look at an attachment; a DEL while no agent runs - the launcher's own
work; the start of an agent that finds an unfinished ADD and a queued DEL; and the two commands
that work on a node without an agent. Those have a stage without bystanders (`is_bare`), because
they take everything away.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from weft.lab.crash.stage import BYSTANDERS, SUBJECTS, Stage
from weft.lab.crash.tracing import MAIN, Injection, Watching
from weft.lab.runtime import Json
from weft.model.errors import WeftError

Victim = Literal["launcher", "agent"]
THENS = ("del", "add", "gc", "restart", "again")
Asked = tuple[dict[str, str], bytes]


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One verb. `attached`: the pods that have their attachment before it; `gone`: the agent is
    killed before it; `call`: what the launcher is called with, None: nothing is called;
    `command`: arguments of `weft agent`, where that is what is struck; `thens`: what may follow."""

    name: str
    attached: tuple[str, ...] = ()
    gone: bool = False
    call: str | None
    command: tuple[str, ...] = ()
    victims: tuple[Victim, ...] = ("launcher", "agent")
    thens: tuple[str, ...] = THENS[:-1]

    @property
    def removes(self) -> bool:
        """Whether nothing may be left of the subjects when it has succeeded."""
        return self.call in ("DEL", "GC")

    @property
    def is_bare(self) -> bool:
        """Whether it is played on a stage without bystanders."""
        return bool(self.command)

    @property
    def fails(self) -> bool:
        """Whether errnos are swept over it: a start is killed only."""
        return self.call is not None or bool(self.command)

    @property
    def keeps(self) -> bool:
        """Whether what was attached has to be so afterwards, whatever happens."""
        return self.call == "CHECK"


_FIRST = SUBJECTS[:1]
VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(name="ADD", call="ADD"),
        Verb(name="DEL", call="DEL", attached=_FIRST),
        Verb(name="CHECK", call="CHECK", attached=_FIRST),
        Verb(name="GC", call="GC", attached=SUBJECTS),
        Verb(name="DEL-ALONE", call="DEL", attached=_FIRST, gone=True, victims=("launcher",)),
        Verb(name="START", call=None, attached=SUBJECTS[1:], victims=("agent",)),
        Verb(
            name="TEARDOWN",
            call=None,
            command=("--teardown",),
            attached=SUBJECTS,
            gone=True,
            victims=("agent",),
            thens=("again", "restart"),
        ),
        Verb(
            name="CLOSE-BOOT",
            call=None,
            command=("--close-boot",),
            victims=("agent",),
            thens=("again", "restart"),
        ),
    )
}
_HALF_WAY = Injection("setns", "inject=setns:signal=SIGKILL:when=1")
"""In an ADD the pod's namespace is entered when the link has been made."""
_DEATH_LIMIT = 10.0  # seconds


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What stands: the results of the subjects' ADDs, and the call to make."""

    results: dict[str, Json]
    asked: Asked | None


def prepare(stage: Stage, verb: Verb) -> Prepared:
    """Make what has to stand before the verb."""
    if verb.attached:
        stage.start()
    results = {name: stage.must("ADD", name).json or {} for name in verb.attached}
    asked: Asked | None = None
    subject = SUBJECTS[0]
    if verb.call == "GC":
        asked = stage.request("GC", keep=BYSTANDERS)
    elif verb.call == "CHECK":
        asked = stage.request("CHECK", subject, previous=results[subject])
    elif verb.call is not None:
        asked = stage.request(verb.call, subject)
    if verb.gone:
        stage.kill()
    if verb.name == "START":
        _leave_unfinished(stage)
        results.clear()  # with its DEL the promise has ended
    return Prepared(results=results, asked=asked)


def _leave_unfinished(stage: Stage) -> None:
    """For an agent that starts: an ADD that was begun, and a DEL that was queued."""
    with Watching(stage.pid, stage.log, only=MAIN, injection=_HALF_WAY):
        stage.send("ADD", SUBJECTS[0])
        if not stage.ended(_DEATH_LIMIT):
            raise WeftError("the agent was not killed in the midst of an ADD")
    stage.must("DEL", SUBJECTS[1])
