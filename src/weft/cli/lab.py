"""`weft lab`: nodes and pods as namespaces on this machine, each node with a real agent."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from weft.cli.crash_sweep import crash_sweep
from weft.cli.replay import replay
from weft.lab import cluster, matrix
from weft.lab.cluster import Lab
from weft.model.errors import Invalid

app = typer.Typer(
    help="Build nodes and pods as namespaces on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
app.command("crash-sweep")(crash_sweep)
app.command("replay")(replay)
Name = Annotated[str, typer.Option("--name", help="Which lab; several can exist beside another.")]


def _needs_root() -> None:
    if os.geteuid() != 0:
        raise Invalid("a lab is made of network namespaces: run this as root")


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, max=16, help="How many nodes.")] = 1,
    pods: Annotated[int, typer.Option(min=0, max=50, help="How many pods a node.")] = 2,
    ipv4: Annotated[bool, typer.Option("--ipv4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 only.")] = False,
    dual: Annotated[bool, typer.Option("--dual", help="Both; this is the default.")] = False,
    bridge: Annotated[
        bool, typer.Option("--bridge", help="The pods of a node share a bridge.")
    ] = False,
    name: Name = "lab",
) -> None:
    """Make nodes with a switch between them, an agent on each, and attached pods.

    \b
    Examples:
      weft lab up
      weft lab up --nodes 2 --pods 3 --ipv6
      weft lab up --bridge
      weft lab up --name other
    """
    _needs_root()
    if sum((ipv4, ipv6, dual)) > 1:
        raise Invalid("--ipv4, --ipv6 and --dual exclude each other", field="family")
    family: cluster.Families = "ipv4" if ipv4 else "ipv6" if ipv6 else "dual"
    _show(cluster.up(name, nodes_=nodes, pods=pods, families=family, bridge=bridge))
    suffix = "" if name == "lab" else f" --name {name}"
    typer.echo(f"\nNext: weft lab matrix{suffix}; weft lab exec{suffix} n1/p1 -- ip addr")


def _show(lab: Lab) -> None:
    shown = Table("place", "addresses", title=f"lab {lab.name}")
    for end in matrix.ends(lab):
        shown.add_row(end.name, ", ".join(end.addresses))
    Console().print(shown)


@app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def exec_(
    place: Annotated[str, typer.Argument(help="n1, n1/p2, outside or switch.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    name: Name = "lab",
) -> None:
    """Run a command on a node, in a pod, at the outside host or the switch.

    \b
    Examples:
      weft lab exec n1/p1 -- ip addr
      weft lab exec n1 -- weft status
    """
    _needs_root()
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise Invalid("no command is given", field="command")
    raise typer.Exit(cluster.execute(cluster.load(name), place, words))


@app.command("matrix")
def matrix_(
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    name: Name = "lab",
) -> None:
    """Probe who reaches whom, and compare it with what is expected. Exit status 1: it differs.

    \b
    Examples:
      weft lab matrix
      weft lab matrix -o json
    """
    _needs_root()
    if output not in {"table", "json"}:
        raise Invalid(f"-o {output}: must be table or json", field="output")
    cells = matrix.observe(cluster.load(name))
    if output == "json":
        typer.echo(msgspec.json.encode(cells).decode())
    else:
        _table(cells)
    raise typer.Exit(0 if all(cell.is_right for cell in cells) else 1)


def _table(cells: list[matrix.Cell]) -> None:
    console = Console()
    shown = Table("from", "to", "IP", *matrix.PROTOCOLS, "why")
    rows: dict[tuple[str, str, int], list[matrix.Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.origin, cell.goal, cell.family), []).append(cell)
    for (origin, goal, family), row in rows.items():
        reasons = {cell.why for cell in row if cell.why}
        shown.add_row(origin, goal, f"v{family}", *map(_verdict, row), "; ".join(sorted(reasons)))
    console.print(shown)
    wrong = sum(not cell.is_right for cell in cells)
    console.print(f"{len(cells)} probes, {wrong} not as expected")


def _verdict(cell: matrix.Cell) -> str:
    seen = "reached" if cell.observed else "silent"
    if cell.is_right:
        return f"[green]{seen}[/]"
    return f"[red]{seen}, expected {'reached' if cell.expected else 'silent'}[/]"


@app.command()
def down(name: Name = "lab") -> None:
    """Give the lab back, also after a crash.

    \b
    Examples:
      weft lab down
      weft lab down --name other
    """
    _needs_root()
    cluster.down(name)
    typer.echo(f"lab {name} is gone")
