"""Benchmark `agent`: what the resident agent costs, idle and with 1,000 attachments.

Memory is PSS: what the process would free if it ended. CPU time is the scheduler's own account in
nanoseconds, summed over threads, within a window in which nothing happens; a full run's window
holds two of the sweeps by which the agent looks for damage that nobody announced. The first sweep
after ADDs reads all that is new, once; it is over before the window begins.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from bench.lines import line
from bench.run import Run
from bench.scene import say
from bench.worker import Worker
from weft.agent.watch import SWEEP
from weft.model.errors import WeftError

ATTACHMENTS = 1000
PATIENCE = 300.0
LIMITS = {0: (45.0, 0.1), ATTACHMENTS: (80.0, 0.1)}
"""Attachments -> MiB of PSS, percent of one core."""


def agent(run: Run) -> None:
    """A new agent, alone and then with attachments."""
    place = run.scene.with_agent((4, 6))
    worker = run.scene.beside(place)
    for count, (memory, cpu) in LIMITS.items():
        if count:
            say(f"agent: attaching {count}")
            attached(worker, count, run.effort.width)
            time.sleep(SWEEP)
        run.scene.settle()
        state = f"{count:,} attachments" if count else "idle"
        say(f"agent: {state}, watching for {run.effort.window:.0f} s")
        used = cpu_share(place.agent, run.effort.window)
        run.lines += [
            line("agent", f"memory (PSS), {state}", [[pss(place.agent)]], unit="MiB",
                 target=memory),
            line("agent", f"CPU, {state}", [[used]], unit="%", target=cpu),
        ]  # fmt: skip
    done = worker.ask("detach", run.effort.width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
    worker.ask("drop")
    run.scene.settle()


def attached(worker: Worker, count: int, width: int) -> None:
    """Make namespaces and attach them. Raises WeftError unless all ADDs succeed."""
    worker.ask("prepare", count, within=PATIENCE)
    done = worker.ask("attach", count, width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} ADDs failed: {done['failures'][0]}")


def pss(pid: int) -> float:
    """Proportional set size of a process in MiB."""
    for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if text.startswith("Pss:"):
            return int(text.split()[1]) / 1024
    raise WeftError("the kernel tells no PSS (smaps_rollup)")


def cpu_share(pid: int, seconds: float) -> float:
    """Percent of one core that a process uses within the next seconds."""
    before, begin = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - begin)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9
