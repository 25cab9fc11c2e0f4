"""Benchmark `churn`: thousands of attachments come and go, and what of that stays.

ADDs and DELs go in turn, so that at the peak as many are attached as a full node has. Before and
after, with nothing attached, the agent's memory, descriptors and threads are read, and the whole
node: its links, routes, rules, sysctls and files must be the same, or the benchmark is broken. A
first round of the same size comes before "before": it brings the agent to what the work needs.
"""

from __future__ import annotations

import os
import time

from bench.footprint import pss
from bench.lines import Unit, line
from bench.run import PATIENCE, Run
from bench.scene import Place, say
from bench.worker import Worker
from weft.agent.watch import SWEEP
from weft.lab import snapshot
from weft.model.errors import WeftError

GROWTH = 1.05
SLACK = 1.0
"""Memory may be so many times what it was, and so many MiB."""
_COOL = 3.0


class Truth:
    """The node, seen from inside."""

    def __init__(self) -> None:
        self._before: snapshot.Snapshot = {}

    def remember(self) -> None:
        """The node as it is now."""
        self._before = _taken()

    def left(self) -> list[str]:
        """What is not as it was."""
        return snapshot.settled(self._before, _taken)


def _taken() -> snapshot.Snapshot:
    """Without the blocks of addresses that the node has taken: those it keeps for the next pods."""
    found = snapshot.take()
    for text in list(found["nftables"]):
        if text.startswith("set ") and '"name": "blocks' in text:
            del found["nftables"][text]
    return found


def churn(run: Run) -> None:
    """Rounds of as many as live at a time."""
    total, living, width = run.effort.churn, run.effort.living, run.effort.width
    begin = time.monotonic()
    place = run.scene.with_agent((4, 6))
    worker = run.scene.beside(place)
    truth = run.scene.within(place, Truth)
    say(f"churn: the first {living}")
    _go(worker, living, width)
    _go(worker, 0, width)
    worker.ask("drop", within=PATIENCE)
    # the agent's first sweep opens what it keeps
    time.sleep(max(_COOL, begin + SWEEP + _COOL - time.monotonic()))
    truth.ask("remember", within=PATIENCE)
    before = _tally(place)
    each: list[list[float]] = []
    for number in range(total // living):
        say(f"churn: {living * (number + 1)} of {total}")
        each.append(_go(worker, living, width))
    peak = pss(place.agent)
    each.append(_go(worker, 0, width))
    worker.ask("drop", within=PATIENCE)
    time.sleep(_COOL)
    if left := truth.ask("left", within=PATIENCE):
        raise WeftError(f"{total} attachments left {len(left)} things: {'; '.join(left[:4])}")
    _report(run, f"{total:,} ADDs and DELs, {living:,} at a time", before, _tally(place))
    run.lines += [
        line("churn", "memory (PSS) at the peak", [[peak]], unit="MiB"),
        line("churn", "an ADD or a DEL among them", each),
    ]


def _go(worker: Worker, count: int, width: int) -> list[float]:
    done = worker.ask("churn", count, width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} failed, the first: {done['failures'][0]}")
    found: list[float] = done["each"]
    return found


Tally = dict[str, tuple[float, Unit]]


def _tally(place: Place) -> Tally:
    """Of the agent, idle. A caller has its answer before the agent has seen that it went."""
    here = f"/proc/{place.agent}"
    return {
        "memory (PSS)": (pss(place.agent), "MiB"),
        "descriptors": (float(len(os.listdir(f"{here}/fd"))), "count"),
        "threads": (float(len(os.listdir(f"{here}/task"))), "count"),
    }


def _report(run: Run, title: str, before: Tally, after: Tally) -> None:
    for name, (was, unit) in before.items():
        limit = was * GROWTH + SLACK if unit == "MiB" else was
        run.lines += [
            line("churn", f"{name} before", [[was]], unit=unit),
            line("churn", f"{name} after {title}", [[after[name][0]]], unit=unit, target=limit),
        ]
