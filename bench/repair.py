"""Benchmark `repair`: what others damage on the host, and how long it stays damaged.

Every kind of `bench.damages` is done to a container's half on the host by `ip`, `nft` or `sysctl`,
on a node where foreign things stand, too, and with rules that are not protected, because protected
ones cannot be damaged. Counted from the start of the damaging command until what it may have
touched is seen as it was; then a whole snapshot of the node must be as before, or the benchmark is
broken. What is seen is read by the same programs: a sample is longer than the repair by one look.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.damages import DAMAGES, FOREIGN, FOREIGN_RULES, Damage
from bench.footprint import attached
from bench.lines import line
from bench.run import Run
from bench.scene import say
from bench.worker import Worker
from weft.lab import snapshot
from weft.model.errors import WeftError

REPAIRED = 1.0
UNPROTECTED = "ruleset:\n  protected: never\n"
REST = 0.6
"""Seconds after each: damage without a pause is a fight, which the agent backs off from."""
_LIMIT = 20.0
_CALM = 2.0
_RULES = ("nftables",)
_OTHERS = ("links", "addresses", "routes", "routes6", "neighbours", "sysctls")


class Beset:
    """A node with foreign things, seen from inside."""

    def __init__(self) -> None:
        Path("/run/foreign.nft").write_text(FOREIGN_RULES)
        _shell(FOREIGN + "nft -f /run/foreign.nft")
        time.sleep(_CALM)  # the agent takes in what the host has got
        self._before: snapshot.Snapshot = {}

    def remember(self) -> None:
        """The node is as it should be now."""
        self._before = snapshot.take()

    def hurt(self, command: str, parts: Sequence[str]) -> float:
        """Seconds from the start of the command until all is as remembered, seen in `parts`; then
        everything must be. Raises WeftError where it is not."""
        begin = time.perf_counter()
        _shell(command)
        took, wrong = 0.0, self._differing(parts)
        while wrong and took < _LIMIT:
            # what was right before the others were may have gone wrong with them
            wrong = self._differing(wrong) or self._differing(parts)
            took = time.perf_counter() - begin
        took = took or time.perf_counter() - begin
        if left := snapshot.settled(self._before, snapshot.take):
            raise WeftError(f"not mended after {took:.1f} s: {'; '.join(left[:4])}")
        return took

    def _differing(self, parts: Sequence[str]) -> list[str]:
        return [name for name in parts if snapshot.part(name) != self._before[name]]


def repair(run: Run) -> None:
    """Every kind so many times, in their order."""
    place = run.scene.with_agent((4, 6), UNPROTECTED)
    worker = run.scene.beside(place)
    attached(worker, 2, 2)
    words = worker.ask("words")
    beset = run.scene.within(place, Beset)
    beset.ask("remember")
    found: dict[str, list[float]] = {}
    for number in range(run.effort.damages):
        say(f"repair: {len(DAMAGES)} kinds, round {number + 1} of {run.effort.damages}")
        for damage in DAMAGES:
            found.setdefault(_group(damage), []).append(_once(beset, damage, words))
            time.sleep(REST)
    title = f"{len(DAMAGES)} kinds of damage"
    run.lines.append(line("repair", title, [*found.values()], target=REPAIRED, of_p99=True))
    run.lines += [line("repair", f"... of {name}", [taken]) for name, taken in found.items()]
    done = worker.ask("detach", 2)
    if done["failures"]:
        raise WeftError(f"{len(done['failures'])} DELs failed: {done['failures'][0]}")
    worker.ask("drop")


def _once(beset: Worker, damage: Damage, words: Mapping[str, str]) -> float:
    parts = _RULES if damage.rules else _OTHERS
    try:
        return float(beset.ask("hurt", damage.command.format(**words), parts))
    except WeftError as error:
        raise WeftError(f"{damage.name}: {error.message}") from error


def _group(damage: Damage) -> str:
    """What it is done to."""
    if damage.rules:
        return "packet rules"
    words = {"ip link": "links", "ip addr": "links", "sysctl": "sysctls"}
    for start, name in words.items():
        if damage.command.startswith(start):
            return name
    return "neighbours" if " neigh " in damage.command else "routes"


def _shell(command: str) -> None:
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=30)
    if done.returncode != 0:
        raise WeftError(f"{command!r} failed: {done.stderr.decode(errors='replace')[:300]}")
