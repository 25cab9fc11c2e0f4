"""Benchmark `loading`: ADDs while 44,000 elements of maps are loaded beside them.

Three who load: `nft -f`, a table of its own in one transaction, and the same in slices of 2,000; a
runtime that attaches containers with 100 ports each, one after the other; and the agent itself, on
a node without protected rules, where somebody has emptied the maps of 22,000 ports of two families.
ADDs follow each other as long as that goes on, and as many with nothing beside them.
"""

from __future__ import annotations

from bench.lines import line
from bench.repair import UNPROTECTED
from bench.run import PATIENCE, Run
from bench.scene import say
from bench.worker import Worker
from weft.lab import cluster
from weft.model.errors import WeftError

P99 = 0.025
"""Seconds."""
ELEMENTS = 44_000
SLICE = 2000
EACH = 100
"""Ports of each container that stays, or that is attached as load."""
MOST = 1500
"""ADDs of one load: more are not measured, however long it goes on."""
_LOADED = "/run/elements.nft"
_HEAD = "table ip load { map ports { type inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service; }; }"  # noqa: E501
_AGAIN = f"""
said() {{ grep -c Repaired {cluster.AGENT_LOG} || true; }}
before=$(said)
nft 'flush map inet weft ports4; flush map inet weft ports6'
until [ "$(said)" -gt "$before" ]; do sleep 0.05; done
"""


def elements(start: int, count: int) -> str:
    """So many elements of the map, as nft reads them."""
    listed = (
        f"tcp . {1 + number % 60_000} . 10.{number >> 16}.{number >> 8 & 255}.{number & 255} "
        f": 10.1.{number >> 8 & 255}.{number & 255} . 80"
        for number in range(start, start + count)
    )
    return f"add element ip load ports {{ {', '.join(listed)} }}\n"


def loading(run: Run) -> None:
    """Others' elements first, then our own."""
    place = run.scene.with_agent((4, 6))
    worker = run.scene.beside(place)
    _measured(run, worker, "nothing", ["sleep", "2"])
    write = "nft -f {0} && nft delete table ip load"
    place.node.path(_LOADED).write_text(_HEAD + "\n" + elements(0, ELEMENTS))
    _measured(run, worker, "nft -f, one transaction", ["sh", "-ec", write.format(_LOADED)])
    slices = []
    for at in range(0, ELEMENTS, SLICE):
        slices.append(f"{_LOADED}.{at}")
        place.node.path(slices[-1]).write_text(elements(at, min(SLICE, ELEMENTS - at)))
    steps = [f"nft '{_HEAD}'", *(f"nft -f {name}" for name in slices), "nft delete table ip load"]
    _measured(run, worker, f"nft -f, slices of {SLICE:,}", ["sh", "-ec", "\n".join(steps)])
    worker.ask("drop")
    _own(run)


def _own(run: Run) -> None:
    place = run.scene.with_agent((4, 6), UNPROTECTED)
    worker = run.scene.beside(place)
    count = ELEMENTS // 2 // EACH
    say(f"loading: {count} ADDs of {EACH} ports")
    worker.ask("prepare", 2 * count, within=PATIENCE)
    taken = worker.ask("adds_beside", count, EACH, within=PATIENCE)
    _report(run, f"{count} ADDs of {EACH} ports", taken)
    _measured(run, worker, "repair of all ports", ["sh", "-ec", _AGAIN])
    done = worker.ask("detach", run.effort.width, within=PATIENCE)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
    worker.ask("drop")


def _measured(run: Run, worker: Worker, what: str, command: list[str]) -> None:
    """ADDs beside a command, `bursts` times."""
    samples = []
    for number in range(run.effort.bursts):
        say(f"loading: {what}, {number + 1} of {run.effort.bursts}")
        worker.ask("prepare", MOST, within=PATIENCE)
        samples.append(worker.ask("adds_while", command, MOST, within=PATIENCE))
        run.scene.settle()
    _report(run, what, *samples)


def _report(run: Run, what: str, *samples: list[float]) -> None:
    run.lines.append(line("loading", f"ADD dual beside {what}", samples, target=P99, of_p99=True))
