"""One verb with one fault in it, and one without any that tells where faults can be.

The agent is traced only for the length of the verb, so what comes before and after runs at its
usual speed and without faults.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from weft.lab.crash import program, tracing
from weft.lab.crash.effects import can_fail, is_effect
from weft.lab.crash.faults import Fault
from weft.lab.crash.plan import Trial
from weft.lab.crash.stage import Stage
from weft.lab.crash.tracing import Point, Watching
from weft.lab.crash.verbs import VERBS, Prepared, Verb, Victim
from weft.lab.invocation import Call

AFTERMATH = 0.08  # seconds after the answer in which an agent still works for a verb
_LATE = 0.3  # seconds after the answer in which the point has to come


class Struck(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `said` None: nothing was called; `where`: the call that was struck, empty
    where the verb never came to it; `died`: the agent did; `mute`: the launcher could not speak."""

    said: Call | None
    where: str
    died: bool = False
    mute: bool = False


def effects(stage: Stage, verb: Verb, prepared: Prepared, victim: Victim) -> list[Point]:
    """Play the verb unharmed; every call that was traced."""
    stage.log.unlink(missing_ok=True)
    if victim == "launcher":
        assert prepared.asked is not None
        stage.deliver_traced(*prepared.asked)
        return tracing.read(stage.log)
    if prepared.asked is None:
        return program.points(stage, verb)
    with Watching(stage.pid, stage.log):
        stage.deliver(*prepared.asked)
        time.sleep(AFTERMATH)
    return tracing.read(stage.log, stage.pid)


def choose(points: list[Point], fault: Fault) -> list[Point]:
    """Those of the traced calls that this kind of fault strikes, each once: threads that make the
    same calls are struck alike."""
    chosen = {
        each.spelled: each
        for each in points
        if (is_effect(each.call, each.words) if fault.is_kill else can_fail(each.call))
        and fault.strikes(each.call)
    }
    return list(chosen.values())


def strike(stage: Stage, prepared: Prepared, trial: Trial) -> Struck:
    """Play the verb with the fault at that point."""
    point, fault = trial.point, trial.fault
    stage.log.unlink(missing_ok=True)
    injection = fault.injection(point.call, point.number)
    if trial.victim == "launcher":
        assert prepared.asked is not None
        said = stage.deliver_traced(*prepared.asked, injection)
        mute = tracing.is_mute(stage.log)
        return Struck(said=said, where=tracing.struck(stage.log), mute=mute)
    if prepared.asked is None:
        where = program.strike(stage, VERBS[trial.verb], point, injection)
        return Struck(said=None, where=where, died=not stage.is_running)
    with Watching(stage.pid, stage.log, only=point.thread, injection=injection):
        said = stage.deliver(*prepared.asked)
        if fault.is_kill:
            stage.ended(_LATE)
        else:
            _await_fault(stage.log)
            if fault.lasts:
                time.sleep(AFTERMATH)
    return Struck(said=said, where=tracing.struck(stage.log), died=not stage.is_running)


def _await_fault(log: Path) -> None:
    deadline = time.monotonic() + _LATE
    while not tracing.struck(log) and time.monotonic() < deadline:
        time.sleep(0.005)
