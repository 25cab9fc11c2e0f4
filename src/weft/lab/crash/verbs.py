"""The verbs of a sweep: what stands before each, who can be struck in it, what it asks.

CNI's verbs that change or look at an attachment, a DEL while no agent runs - the launcher's own
work - and the start of an agent that finds an unfinished DEL.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from weft.lab.crash.stage import BYSTANDERS, SUBJECTS, Stage
from weft.lab.runtime import Json

Victim = Literal["launcher", "agent"]
Asked = tuple[dict[str, str], bytes]


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One verb. `attached`: the pods that have their attachment before it; `gone`: the agent is
    killed before it; `call`: what the launcher is called with, None: nothing is called."""

    name: str
    attached: tuple[str, ...] = ()
    gone: bool = False
    call: str | None
    victims: tuple[Victim, ...] = ("launcher", "agent")

    @property
    def removes(self) -> bool:
        """Whether nothing may be left of the subjects when it has succeeded."""
        return self.call in ("DEL", "GC")

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
        Verb(name="START", call=None, attached=_FIRST, gone=True, victims=("agent",)),
    )
}


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What stands: the results of the subjects' ADDs, and the call to make."""

    results: dict[str, Json]
    asked: Asked | None


def prepare(stage: Stage, verb: Verb) -> Prepared:
    """Make what has to stand before the verb."""
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
    if verb.call is None:
        stage.must("DEL", subject)  # queued: the agent that starts has something to finish
        results.clear()  # and with that DEL the promise has ended
    return Prepared(results=results, asked=asked)
