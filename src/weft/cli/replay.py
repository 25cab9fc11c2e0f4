"""`weft lab replay`: would this plugin work under CRI-O, nerdctl, Mesos, ...?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weft.lab.replay.conduct import Plan, Played, conduct
from weft.lab.replay.table import PERSONAS
from weft.model.errors import Invalid

_COLOURS = {"pass": "green", "fail": "red", "not applicable": "yellow"}


def replay(
    runtime: Annotated[
        list[str] | None,
        typer.Argument(help=f"Which; all by default: {', '.join(PERSONAS)}."),
    ] = None,
    conflist: Annotated[
        Path | None, typer.Option(help="Another network's list, in place of weft's.")
    ] = None,
    bin_: Annotated[
        Path | None, typer.Option("--bin", help="The directory with that network's plugins.")
    ] = None,
    setup: Annotated[
        str, typer.Option(help="A daemon those plugins need; runs on the kit's node.")
    ] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Call the plugins exactly as container runtimes do, and see what each makes of it.

    Makes a node of its own. Exit status 1: a runtime would not work. -o json has every execution
    with its environment and input.

    \b
    Examples:
      weft lab replay
      weft lab replay nerdctl crio -o json
      weft lab replay --conflist /etc/cni/net.d/10-net.conflist --bin /opt/cni/bin
    """
    if os.geteuid() != 0:
        raise Invalid("a lab is made of network namespaces: run this as root")
    if output not in {"table", "json"}:
        raise Invalid(f"-o {output}: must be table or json", field="output")
    if (conflist is None) != (bin_ is None):
        raise Invalid("--conflist and --bin belong together: give both or none", field="conflist")
    if setup and conflist is None:
        raise Invalid("--setup is for another network's plugins: give --conflist", field="setup")
    plan = Plan(
        runtimes=tuple(dict.fromkeys(runtime or ())),
        conflist=None if conflist is None else _read(conflist),
        plugins="" if bin_ is None else str(bin_.resolve()),
        setup=setup,
    )
    errors = Console(stderr=True)
    found = conduct(plan, lambda line: errors.print(line, markup=False, highlight=False))
    if output == "json":
        typer.echo(_json(found))
    else:
        _table(found, Console())
    raise typer.Exit(1 if any(played.failed for played in found) else 0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"--conflist {path}: {error.strerror}", field="conflist") from error


def _json(found: list[Played]) -> str:
    """Everything; what went in and came out as text."""
    shown = [
        {
            "runtime": played.runtime,
            "findings": played.findings,
            "calls": [
                {
                    **msgspec.structs.asdict(call),
                    "stdin": call.stdin.decode(errors="replace"),
                    "stdout": call.stdout.decode(errors="replace"),
                    "stderr": call.stderr.decode(errors="replace"),
                }
                for call in played.calls
            ],
        }
        for played in found
    ]
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _table(found: list[Played], console: Console) -> None:
    """A line a step, and one that counts."""
    shown = Table("runtime", "step", "verdict", "reason")
    for played in found:
        for number, finding in enumerate(played.findings):
            shown.add_row(
                PERSONAS[played.runtime].title if number == 0 else "",
                Text(finding.title),
                Text(finding.verdict, style=_COLOURS[finding.verdict]),
                Text(finding.reason),
            )
        shown.add_section()
    console.print(shown)
    steps = sum(len(played.findings) for played in found)
    executed = sum(len(played.calls) for played in found)
    good = sum(not played.failed for played in found)
    console.print(
        f"{good} of {len(found)} runtimes as they need it; {steps} steps, {executed} executions"
    )
