"""One run of the bench: what benchmarks share, the interleaving, and the A/A run before all.

A ratio is worth no more than the machine's calm, so before the first comparison the same thing is
measured against itself, interleaved like everything else. If that ratio is not 1.00 within the
bound, twice, every comparison of the run is marked void.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from bench.figures import Ratio, ratio
from bench.lines import Line, line, peer
from bench.scene import Effort, Scene, say
from bench.worker import Worker

Block = dict[str, list[float]]
Measure = Callable[[bool], Block]
"""Measures once; True: checks as well that what was measured works."""
TRIES = 2
PATIENCE = 300.0
REST = 0.03


class Run:
    """A scene, how much is measured, and what has been measured so far."""

    def __init__(self, scene: Scene, effort: Effort) -> None:
        self.scene = scene
        self.effort = effort
        self.lines: list[Line] = []
        self.void = False
        self._calm: Ratio | None = None
        self._kept: dict[str, Worker] = {}
        self._blocks: dict[str, list[Block]] | None = None

    def side(self, name: str) -> Worker:
        """A worker that several benchmarks use, made when it is first asked for."""
        make: dict[str, Callable[[], Worker]] = {
            "weft v4": lambda: self.scene.weft((4,)),
            "weft dual": lambda: self.scene.weft((4, 6)),
            "chain v4": lambda: self.scene.chain((4,)),
            "chain dual": lambda: self.scene.chain((4, 6)),
            "floor v4": lambda: self.scene.floor((4,)),
            "floor dual": lambda: self.scene.floor((4, 6)),
        }
        if name not in self._kept:
            say(f"making the node of {name}")
            self._kept[name] = make[name]()
        return self._kept[name]

    def blocks(self) -> dict[str, list[Block]]:
        """Blocks of ADD and DEL of all sides by name, measured once a run."""
        if self._blocks is None:
            self.calm()
            names = ("chain v4", "weft v4", "floor v4", "floor dual", "weft dual", "chain dual")
            workers = {name: self.side(name) for name in names}
            samples = self.effort.rounds * self.effort.turns
            for worker in workers.values():
                worker.ask("prepare", samples + 1, within=PATIENCE)
            sides = {name: single(worker) for name, worker in workers.items()}
            for measure in sides.values():
                measure(True)  # the first of everything is not what runtimes wait for
            self._blocks = interleaved(sides, self.effort, "one attachment at a time")
            for worker in workers.values():
                worker.ask("drop")
            self.scene.settle()
        return self._blocks

    def calm(self) -> None:
        """The A/A run; once a run."""
        if self._calm is not None:
            return
        worker = self.side("weft v4")
        worker.ask("prepare", 2 * self.effort.rounds * self.effort.turns, within=PATIENCE)
        measure = single(worker)
        measure(True)
        for _ in range(TRIES):
            found = interleaved({"A": measure, "A again": measure}, self.effort, "A/A")
            first, second = times(found["A"], "add"), times(found["A again"], "add")
            calm = self._calm = ratio(first, second)
            self.void = abs(calm.value - 1) > self.effort.bound
            if not self.void:
                break
        bound = f"{1 - self.effort.bound:.2f} to {1 + self.effort.bound:.2f}"
        note = f"must be {bound}" + ("; it is not: every ratio is void" if self.void else "")
        say(f"A/A ratio {calm.value:.3f}, {note}")
        self.lines.append(
            line("a/a", "ADD v4", first, peer=peer("itself", second, calm), note=note)
        )
        worker.ask("drop")


def single(worker: Worker, ports: int = 0) -> Measure:
    """One sample of a side, with the check that it works where asked; with host ports where there
    are any. A short rest before it: what the kernel does in the background for the side before
    would be counted here."""

    def measure(check: bool) -> Block:
        time.sleep(REST)
        block: Block = worker.ask("block", 1, check, *((ports,) if ports else ()))
        return block

    return measure


def interleaved(
    sides: Mapping[str, Measure], effort: Effort, what: str, *, within: float | None = None
) -> dict[str, list[Block]]:
    """Measure every side in turn, forwards and backwards (A B, B A, ...); each is checked once a
    round. `within`: seconds after which no further round begins."""
    begin = time.monotonic()
    found: dict[str, list[Block]] = {name: [] for name in sides}
    forwards = list(sides)
    for number in range(effort.rounds):
        if number and within is not None and time.monotonic() - begin > within:
            break
        say(f"{what}: round {number + 1} of {effort.rounds}")
        for blocks in found.values():
            blocks.append({})
        for turn in range(effort.turns):
            for name in forwards if (number + turn) % 2 == 0 else reversed(forwards):
                for key, samples in sides[name](turn == 0).items():
                    found[name][-1].setdefault(key, []).extend(samples)
    return found


def times(blocks: list[Block], key: str) -> list[list[float]]:
    """The samples of one kind, round by round."""
    return [block[key] for block in blocks]
