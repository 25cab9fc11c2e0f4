"""Benchmark `ports`: what published ports cost an ADD, and whether it matters how many there are.

First one host port beside the reference chain with one. Then nodes on which 0, 1,000 and 10,000
ports are published already, each with ADDs of 0, 10 and 100 ports in turn with the others': a
port's cost is what an ADD of 100 takes longer than one without, divided by 100. Published ports
are of both families, so each is an element in two maps. What is attached to begin with has 100
ports a container, and stays.
"""

from __future__ import annotations

from bench.figures import median, pooled, ratio
from bench.lines import line, peer
from bench.run import PATIENCE, Block, Run, interleaved, single, times
from bench.scene import say
from bench.worker import Worker
from weft.model.errors import WeftError

OF_CHAIN = 0.07
A_PORT = 50e-6
NO_SLOPE = 1.1
"""An ADD with 100 ports where most are published, in multiples of the same where none are."""
PUBLISHED = (0, 1000, 10_000)
ASKED = (0, 10, 100)
EACH = 100
"""Ports of each container that stays."""


def ports(run: Run) -> None:
    """One port beside the chain, then many beside many."""
    run.calm()
    _beside_chain(run)
    _many(run)


def _beside_chain(run: Run) -> None:
    workers = {name: run.side(name) for name in ("chain v4", "weft v4")}
    found = _measured(
        run,
        {f"{name}, {asked}": (worker, asked) for name, worker in workers.items()
         for asked in (0, 1)},
        "one host port",
    )  # fmt: skip
    mine, theirs = times(found["weft v4, 1"], "add"), times(found["chain v4, 1"], "add")
    run.lines.append(
        line("ports", "ADD v4 with one host port", mine, target=OF_CHAIN, void=run.void,
             peer=peer("chain v4", theirs, ratio(mine, theirs)))
    )  # fmt: skip
    for name, what in (("weft v4", "ADD v4: one host port beside none"),
                       ("chain v4", "the chain's ADD v4: one host port beside none")):  # fmt: skip
        one, none = times(found[f"{name}, 1"], "add"), times(found[f"{name}, 0"], "add")
        run.lines.append(
            line("ports", what, one, peer=peer(name, none, ratio(one, none)), void=run.void)
        )
    for worker in workers.values():
        worker.ask("drop")


def _many(run: Run) -> None:
    workers = {count: _published(run, count) for count in PUBLISHED}
    found = _measured(
        run,
        {_name(asked, count): (worker, asked) for count, worker in workers.items()
         for asked in ASKED},
        "many host ports",
    )  # fmt: skip
    for count in PUBLISHED:
        many, none = (times(found[_name(asked, count)], "add") for asked in (ASKED[-1], 0))
        costs = [(median(a) - median(b)) / ASKED[-1] for a, b in zip(many, none, strict=True)]
        whole = (median(pooled(many)) - median(pooled(none))) / ASKED[-1]
        run.lines.append(
            line("ports", f"a port of {ASKED[-1]}, {count:,} published", [costs], p50=whole,
                 target=A_PORT, note="p99 and worst are of rounds")
        )  # fmt: skip
    for asked in ASKED:
        base = times(found[_name(asked, 0)], "add")
        for count in PUBLISHED[1:]:
            mine = times(found[_name(asked, count)], "add")
            run.lines.append(
                line("ports", f"ADD with {asked} ports, {count:,} published", mine,
                     target=NO_SLOPE, void=run.void,
                     peer=peer("none published", base, ratio(mine, base)))
            )  # fmt: skip
    for worker in workers.values():
        done = worker.ask("detach", run.effort.width, within=PATIENCE)
        if done["failures"]:
            raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
        worker.ask("drop")
    run.scene.settle()


def _published(run: Run, count: int) -> Worker:
    """A node of both families with so many ports published."""
    say(f"ports: publishing {count:,}")
    worker = run.scene.weft((4, 6))
    done = worker.ask("stay", count // EACH, EACH, run.effort.width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} ADDs failed: {done['failures'][0]}")
    return worker


def _measured(run: Run, sides: dict[str, tuple[Worker, int]], what: str) -> dict[str, list[Block]]:
    """All sides in turn, each a worker and how many ports its ADDs ask for."""
    samples = run.effort.rounds * run.effort.turns + 1
    for worker in {id(worker): worker for worker, _ in sides.values()}.values():
        mine = sum(each is worker for each, _ in sides.values())
        worker.ask("prepare", samples * mine, within=PATIENCE)
    measures = {name: single(worker, asked) for name, (worker, asked) in sides.items()}
    for measure in measures.values():
        measure(True)
    return interleaved(measures, run.effort, what)


def _name(asked: int, published: int) -> str:
    return f"{asked} beside {published}"
