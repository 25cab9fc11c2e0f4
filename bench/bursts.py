"""Benchmark `burst`: many ADDs at once, then as many DELs, beside the chain.

At most `width` processes run at a time, on both sides alike. A burst is one sample: its makespan
from the first exec to the last exit. No attachment may fail, some must be able to talk, and one
second after the last DEL nothing may be left; otherwise the benchmark is broken.
"""

from __future__ import annotations

from functools import partial

import msgspec

from bench.figures import ratio
from bench.lines import line, peer
from bench.run import PATIENCE, Block, Run, interleaved, times
from bench.worker import Worker
from weft.model.errors import WeftError

ADD_OF_CHAIN = 0.08
DEL_OF_CHAIN = 0.05


def burst(run: Run) -> None:
    """Each count; DEL has a target at 500 only."""
    run.calm()
    for count in run.effort.counts:
        mine, theirs = run.side("weft v4"), run.side("chain v4")
        found = interleaved(
            {
                "weft": partial(_once, run, mine, count),
                "chain": partial(_once, run, theirs, count),
            },
            msgspec.structs.replace(run.effort, rounds=run.effort.bursts, turns=1),
            f"{count} at once",
            within=run.effort.budget,
        )
        for verb in ("add", "del"):
            target = ADD_OF_CHAIN if verb == "add" else DEL_OF_CHAIN if count == 500 else None
            _report(run, f"{count} {verb.upper()}s", verb, found, target)


def _once(run: Run, worker: Worker, count: int, _: bool) -> Block:
    """One burst, always checked; raises WeftError when anything failed or is left."""
    worker.ask("prepare", count)
    done = worker.ask("burst", count, run.effort.width, within=PATIENCE)
    worker.ask("drop")
    run.scene.settle()
    failures = [*done["add"]["failures"], *done["del"]["failures"]]
    if failures:
        raise WeftError(f"{len(failures)} of {count} failed, the first: {failures[0]}")
    if done["del"]["left"]:
        left = done["del"]["left"]
        raise WeftError(f"a second after {count} DELs are left: {', '.join(left[:5])} ...")
    return {
        "add": [done["add"]["makespan"]],
        "del": [done["del"]["makespan"]],
        "add each": done["add"]["each"],
        "del each": done["del"]["each"],
    }


def _report(
    run: Run, what: str, verb: str, found: dict[str, list[Block]], target: float | None
) -> None:
    for key, title, limit in ((verb, "makespan", target), (f"{verb} each", "each", None)):
        mine, theirs = times(found["weft"], key), times(found["chain"], key)
        run.lines.append(
            line(
                "burst",
                f"{what}, {title}",
                mine,
                peer=peer("chain v4", theirs, ratio(mine, theirs)),
                target=limit,
                void=run.void,
            )
        )
