"""`weft agent` itself under a fault: while it starts, or as a command that ends.

A point of the main thread is met by stopping the program before its first call; one of its other
threads by holding these as they begin.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.lab import cluster
from weft.lab.crash import tracing
from weft.lab.crash.newcomers import Newcomers
from weft.lab.crash.stage import Stage
from weft.lab.crash.tracing import MAIN, Injection, Point, Watching
from weft.lab.crash.verbs import Verb
from weft.model.errors import NotReady

_LIMIT = 60.0  # seconds in which it serves, or ends; traced it is slow
_MODULE = re.compile(r"__pycache__|/python[0-9.]*/")
_AFTERMATH = 0.3  # seconds in which threads still work for a start
_LATE = 1.5  # as long does a fault wait for its point: a busy machine is slower another time
_STOPPED = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


def points(stage: Stage, verb: Verb) -> list[Point]:
    """The calls of the main thread from the settings on, without those by which Python loads its
    modules, until an agent serves or to a command's end."""
    with _stopped(stage, verb, None):
        _run(stage, verb)
    found = tracing.read(stage.log)
    settings = f'{cluster.SETTINGS.name}"'
    begun = next((at for at, each in enumerate(found) if settings in each.words), 0)
    found = [each for each in found[begun:] if _MODULE.search(each.words) is None]
    served = [at for at, each in enumerate(found) if each.call == "accept4"]
    return found[: served[0]] if served else found


def points_of_threads(stage: Stage, verb: Verb) -> list[Point]:
    """The calls of all threads but the main one."""
    with Newcomers(stage.log) as newcomers:
        _launch(stage, verb, newcomers, _AFTERMATH)
        return newcomers.points()


def strike(stage: Stage, verb: Verb, point: Point, injection: Injection) -> str:
    """Run it with the fault; the call that was struck, empty where it never came to it."""
    if point.thread == MAIN:
        with _stopped(stage, verb, injection):
            _run(stage, verb)
        return tracing.struck(stage.log)
    with Newcomers(stage.log, injection) as newcomers:
        _launch(stage, verb, newcomers, _LATE)
        return newcomers.struck()


def _launch(stage: Stage, verb: Verb, newcomers: Newcomers, patience: float) -> None:
    stage.launch(
        arguments=verb.command, program=newcomers.command, descriptors=newcomers.descriptors
    )
    _run(stage, verb, newcomers.attend)
    deadline = time.monotonic() + patience
    while stage.is_running and time.monotonic() < deadline:
        newcomers.attend()
        time.sleep(0.005)


@contextmanager
def _stopped(stage: Stage, verb: Verb, injection: Injection | None) -> Iterator[None]:
    """The program, traced from its first call on."""
    stage.launch(_STOPPED, arguments=verb.command)
    deadline = time.monotonic() + _LIMIT
    while not _is_stopped(stage.pid):
        if time.monotonic() > deadline:
            raise NotReady("the agent did not begin to start")
        time.sleep(0.001)
    with Watching(stage.pid, stage.log, only=MAIN, injection=injection):
        os.kill(stage.pid, signal.SIGCONT)
        yield


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def _run(stage: Stage, verb: Verb, attend: Callable[[], None] = lambda: None) -> None:
    """Until the program serves, or has ended."""
    deadline = time.monotonic() + _LIMIT
    while stage.is_running and (verb.command or not stage.serves()):
        if time.monotonic() > deadline:
            raise NotReady("the traced agent neither serves nor ends")
        attend()
        time.sleep(0.005)
