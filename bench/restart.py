"""Benchmark `restart`: an agent that ends and starts again beside its attachments.

Ready is the first STATUS that succeeds, counted from the exec of the agent: the interpreter's start
is inside. Half of the ends are by kill -9. What the start sent to the kernel again is the agent's
own count (`start` in `weft status -o json`): the adoption of protected tables is in it, and so is
whatever its first comparison with the kernel mended. A container must be able to talk after every
start.
"""

from __future__ import annotations

import os
import signal
import time

import msgspec

from bench.footprint import attached
from bench.lines import line
from bench.run import PATIENCE, Run
from bench.scene import Place, say
from bench.worker import Worker
from weft.lab import cluster
from weft.model.errors import WeftError
from weft.wire.status import Start, Status

ATTACHMENTS = 1000
READY = 2.0
REWRITTEN = 1.0
"""Seconds to the first request; percent of the rows that stand."""
_LIMIT = 60.0
_AGAIN = 0.005


def restart(run: Run) -> None:
    """Start again and again, with attachments of both families."""
    place = run.scene.with_agent((4, 6))
    worker = run.scene.beside(place)
    say(f"restart: attaching {ATTACHMENTS}")
    attached(worker, ATTACHMENTS, run.effort.width)
    times: dict[str, list[float]] = {"SIGKILL": [], "SIGTERM": []}
    shares: list[float] = []
    pid = place.agent
    for number in range(run.effort.restarts):
        say(f"restart: {number + 1} of {run.effort.restarts}")
        how = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
        os.kill(pid, how)
        os.waitpid(pid, 0)
        pid, took = _started(place, worker)
        times[how.name].append(took)
        worker.ask("talk")
        start = _report(place)
        if start.standing < ATTACHMENTS:
            raise WeftError(f"only {start.standing} rows stand after a start")
        shares.append(100 * start.written / start.standing)
    rows = f"{ATTACHMENTS:,} attachments"
    for name, taken in times.items():
        if taken:
            run.lines.append(
                line("restart", f"ready after {name}, {rows}", [taken], target=READY,
                     of_worst=True)
            )  # fmt: skip
    run.lines.append(
        line("restart", f"rows written again, {rows}", [shares], unit="%", target=REWRITTEN,
             of_worst=True, note=f"the last time {start.written} of {start.standing} rows")
    )  # fmt: skip
    done = worker.ask("detach", run.effort.width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
    worker.ask("drop", within=PATIENCE)
    run.scene.settle()


def _started(place: Place, worker: Worker) -> tuple[int, float]:
    """Process id, and the seconds until it served."""
    begin = time.perf_counter()
    child = cluster.launch_agent(place.node)
    while not worker.ask("serves"):
        if child.poll() is not None or time.perf_counter() - begin > _LIMIT:
            said = place.node.path(cluster.AGENT_LOG).read_text(errors="replace")[-800:]
            raise WeftError(f"the agent does not serve after its restart:\n{said}")
        time.sleep(_AGAIN)
    return int(child.pid), time.perf_counter() - begin


def _report(place: Place) -> Start:
    command = [*cluster.agent_command()[:-1], "status", "-o", "json"]
    done = place.node.run(command)
    if done.returncode != 0:
        raise WeftError(f"weft status failed: {done.stderr.decode(errors='replace')[-500:]}")
    return msgspec.json.decode(done.stdout, type=Status).start
