"""Benchmark `deadlines`: how soon weft says no.

Without an agent every verb has its answer within 2 s, and the right one: code 11 for ADD, CHECK
and GC, 50 for STATUS, success for DEL, which is queued. With every address in use an ADD has its
refusal within 1 s. A wrong answer is a broken function; a late one is a missed target.
"""

from __future__ import annotations

from typing import Any

from bench.lines import line
from bench.run import Run
from bench.scene import say
from weft.lab import cluster
from weft.model.errors import WeftError

ABSENT = {"ADD": 11, "CHECK": 11, "GC": 11, "STATUS": 50, "DEL": 0}
"""Verb -> the code that is right while no agent runs; 0: success."""
ABSENT_WITHIN = 2.0
EXHAUSTED_WITHIN = 1.0
COUNT = 20
POOL = "10.99.0.0/24"
FULL_POOL = 254
FURTHER = 200

_MANIFEST = f"""\
apiVersion: weft.dev/v1alpha1
kind: IPPool
metadata:
  name: small
spec:
  cidr: {POOL}
"""


def deadlines(run: Run) -> None:
    """Absence first, exhaustion after it."""
    _absent(run)
    _exhausted(run)


def _absent(run: Run) -> None:
    say("deadlines: no agent")
    worker = run.scene.without_agent()
    for verb, code in ABSENT.items():
        more: dict[str, Any] = {"cniVersion": "1.1.0"}
        if verb == "GC":
            more["cni.dev/valid-attachments"] = []
        if verb == "CHECK":
            more["prevResult"] = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
        answers = worker.ask("request", verb, COUNT, more)
        for _, status, said in answers:
            if (status, said) != (1 if code else 0, code):
                raise WeftError(f"{verb} without agent: exit {status}, code {said}, not {code}")
        _report(run, f"{verb} without agent", [took for took, _, _ in answers], ABSENT_WITHIN)
    worker.ask("drop")


def _exhausted(run: Run) -> None:
    say("deadlines: every address in use")
    place = run.scene.with_agent((4,))
    command = [*cluster.agent_command()[:-1], "apply", "-f", "-"]
    done = place.node.run(command, stdin=_MANIFEST.encode())
    if done.returncode != 0:
        raise WeftError(f"the pool cannot be made: {done.stderr.decode(errors='replace')}")
    worker = run.scene.beside(place, pools=["small"])
    filled = worker.ask("attach", FULL_POOL, run.effort.width)
    if filled["failures"]:
        raise WeftError(f"{POOL} does not hold {FULL_POOL}: {filled['failures'][0]}")
    answers = worker.ask("request", "ADD", FURTHER, {})
    for _, status, said in answers:
        if (status, said) != (1, 11):
            raise WeftError(f"ADD without addresses: exit {status}, code {said}, not 11")
    _report(run, "ADD, pool used up", [took for took, _, _ in answers], EXHAUSTED_WITHIN)
    done = worker.ask("detach", run.effort.width)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
    worker.ask("drop")


def _report(run: Run, what: str, samples: list[float], target: float) -> None:
    run.lines.append(line("deadlines", what, [samples], target=target, of_worst=True))
