"""One verb with one fault in it, and one without any that tells where faults can be.

The agent is traced only for the length of the verb, so what comes before and after runs at its
usual speed and without faults.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from weft.lab.crash import tracing
from weft.lab.crash.effects import can_fail, is_effect
from weft.lab.crash.faults import Fault
from weft.lab.crash.stage import Stage
from weft.lab.crash.tracing import Injection, Point, Watching
from weft.lab.crash.verbs import Prepared, Verb, Victim
from weft.lab.invocation import Call
from weft.model.errors import NotReady

AFTERMATH = 0.08  # seconds after the answer in which an agent still works for a verb
_LATE = 0.3  # seconds after the answer in which the point has to come
_START_LIMIT = 30.0
_HELD = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


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
        with _starting(stage, None):
            _await_service(stage)
        found = tracing.read(stage.log, stage.pid)
        served = [each.call for each in found].index("accept4")
        return found[:served]
    with Watching(stage.pid, stage.log):
        stage.deliver(*prepared.asked)
        time.sleep(AFTERMATH)
    return tracing.read(stage.log, stage.pid)


def choose(points: list[Point], verb: Verb, fault: Fault) -> list[Point]:
    """Those of the traced calls that this kind of fault strikes. Threads that only come with the
    agent's start cannot be addressed alone, and are left to the other verbs."""
    wanted = is_effect if fault.is_kill else can_fail
    return [
        each
        for each in points
        if wanted(each.call, each.words)
        and fault.strikes(each.call)
        and (verb.call is not None or each.thread == tracing.MAIN)
    ]


def strike(stage: Stage, prepared: Prepared, victim: Victim, point: Point, fault: Fault) -> Struck:
    """Play the verb with the fault at that point."""
    stage.log.unlink(missing_ok=True)
    injection = fault.injection(point.call, point.number)
    if victim == "launcher":
        assert prepared.asked is not None
        said = stage.deliver_traced(*prepared.asked, injection)
        mute = tracing.is_mute(stage.log)
        return Struck(said=said, where=tracing.struck(stage.log), mute=mute)
    if prepared.asked is None:
        with _starting(stage, injection):
            _await_service(stage)
        return Struck(said=None, where=tracing.struck(stage.log), died=not stage.is_running)
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


@contextmanager
def _starting(stage: Stage, injection: Injection | None) -> Iterator[None]:
    """An agent that starts, traced from its first call on."""
    stage.launch(_HELD)
    deadline = time.monotonic() + _START_LIMIT
    while not _is_stopped(stage.pid):
        if time.monotonic() > deadline:
            raise NotReady("the agent did not begin to start")
        time.sleep(0.001)
    with Watching(stage.pid, stage.log, injection=injection):
        os.kill(stage.pid, signal.SIGCONT)
        yield


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def _await_service(stage: Stage) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while stage.is_running and not stage.serves():
        if time.monotonic() > deadline:
            raise NotReady("the traced agent does not serve")
        time.sleep(0.01)
