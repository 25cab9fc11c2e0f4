"""The command line of the bench: `./dev bench [NAME...] [--quick] [-o json]`.

Exit status: 0 also for missed targets, 1 for a broken function, 2 for wrong usage, 130 when
interrupted. The report goes to standard output, progress to standard error.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import msgspec

from bench.catalogue import BENCHMARKS, ON_REQUEST
from bench.lines import Report, table
from bench.run import Run
from bench.scene import FULL, QUICK, Effort, Scene, say
from weft.model.errors import WeftError

NICE = -15


def main(argv: Sequence[str]) -> int:
    """Run what was asked for; returns the exit status."""
    words = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    words.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    words.add_argument("--quick", action="store_true", help="fewer rounds: about 10 minutes")
    words.add_argument("--rounds", type=int, help="rounds of everything that is compared")
    words.add_argument("--parallel", type=int, help="processes at a time in a burst")
    words.add_argument("-o", dest="output", choices=("table", "json"), default="table")
    asked = words.parse_args(argv)
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        words.error(
            f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}"
        )
    if os.geteuid() != 0:
        words.error("needs root, for network namespaces; ./dev bench sees to that")
    signal.signal(signal.SIGTERM, _end)
    report = conduct(tuple(asked.names), effort(asked.quick, asked.rounds, asked.parallel))
    if asked.output == "json":
        print(msgspec.json.format(msgspec.json.encode(_plain(report)), indent=2).decode())
    else:
        print(text(report))
    return 1 if report.broken else 0


def _end(number: int, _: FrameType | None) -> None:
    # so that the scene is given back: SIGTERM alone would leave agents behind
    raise KeyboardInterrupt(number)


def effort(quick: bool, rounds: int | None, parallel: int | None) -> Effort:
    """How much is measured."""
    made = QUICK if quick else FULL
    if rounds is not None:
        made = msgspec.structs.replace(made, rounds=max(1, rounds), bursts=max(1, rounds))
    if parallel is not None:
        made = msgspec.structs.replace(made, width=max(1, parallel))
    return made


def _raised() -> int:
    """Raise the priority of everything the bench starts, agents and chains alike, so that other
    work on the machine disturbs the figures less; the nice value that came of it."""
    try:
        return os.nice(NICE)
    except PermissionError:  # a container without CAP_SYS_NICE
        return os.nice(0)


def conduct(names: tuple[str, ...], amount: Effort) -> Report:
    """Run benchmarks in the catalogue's order; one that breaks does not keep others from it."""
    wanted = [n for n in BENCHMARKS if (n in names if names else n not in ON_REQUEST)]
    begin = time.monotonic()
    broken = []
    priority = _raised()
    with Scene(amount) as scene:
        run = Run(scene, amount)
        for name in wanted:
            say(f"{name} ({time.monotonic() - begin:.0f} s so far)")
            try:
                BENCHMARKS[name](run)
            except WeftError as error:
                say(f"{name} is broken: {error.message}")
                broken.append(f"{name}: {error.message}")
    return Report(
        machine={
            "kernel": platform.release(),
            "cores": str(os.cpu_count()),
            "python": platform.python_version(),
            "load": f"{os.getloadavg()[0]:.1f}",
            "nice": str(priority),
        },
        settings={name: str(getattr(amount, name)) for name in amount.__struct_fields__},
        lines=tuple(run.lines),
        broken=tuple(broken),
        seconds=round(time.monotonic() - begin, 1),
    )


def _plain(report: Report) -> object:
    """As built-in values, each line with its verdict."""
    made = msgspec.to_builtins(report)
    for shown, row in zip(made["lines"], report.lines, strict=True):
        shown["verdict"] = row.verdict
    return made


def text(report: Report) -> str:
    """The report for a person."""
    said = [f"weft bench: {', '.join(f'{k} {v}' for k, v in report.machine.items())}"]
    if report.lines:
        said.append(table(report.lines))
    missed = [row.what for row in report.lines if row.verdict == "missed"]
    met = sum(row.verdict == "met" for row in report.lines)
    void = sum(row.verdict == "void" for row in report.lines)
    said.append(f"{met} targets met, {len(missed)} missed, {void} void, {report.seconds:.0f} s")
    said += [f"missed: {what}" for what in missed]
    said += [f"BROKEN: {what}" for what in report.broken]
    return "\n".join(said)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
