"""`weft conformance`: black-box tests of the CNI protocol, aimed at any plugin or chain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from weft.lab.conformance import report
from weft.lab.conformance.groups import GROUPS
from weft.lab.conformance.run import Plan, conduct
from weft.model.errors import Invalid, WeftError

app = typer.Typer(
    help="Test any CNI plugin or chain against the specification.",
    rich_markup_mode=None,
    add_completion=False,
)


@app.command()
def conformance(
    conflist: Annotated[Path, typer.Option(help="The network configuration list to test.")],
    bin_: Annotated[
        list[Path], typer.Option("--bin", help="A directory with plugins; may be repeated.")
    ],
    setup: Annotated[
        str, typer.Option(help="A daemon the chain needs; runs on the kit's node until the end.")
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only these groups: {', '.join(GROUPS)}.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML to this file.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    count: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[WHAT=]N",
            help="How much: containers at once (16; also without WHAT), frames= random forged "
            "sources a test (64), mutants= damaged requests (64), seconds= until an answer to "
            "bad input counts as a hang (10). May be repeated.",
        ),
    ] = None,
) -> None:
    """Test any CNI plugin or chain against the specification, on a node of the kit's own.

    Exit status: 0 nothing failed, 1 something did, 2 there was nothing to test.

    \b
    Examples:
      weft conformance --conflist /etc/cni/net.d/10-net.conflist --bin /opt/cni/bin
      weft conformance --conflist weft.conflist --bin /opt/cni/bin --setup 'weft agent'
      weft conformance --conflist f --bin d --only spoofing --count frames=1000 --junit out.xml
    """
    errors = Console(stderr=True)
    if output not in {"table", "json"}:
        errors.print(f"-o {output}: must be table or json")
        raise typer.Exit(2)
    if os.geteuid() != 0:
        errors.print("the kit builds network namespaces: run it as root")
        raise typer.Exit(2)
    try:
        plan = Plan(
            conflist=conflist.read_bytes(),
            bins=tuple(str(path.resolve()) for path in bin_),
            setup=setup,
            only=tuple(only or ()),
            **_sizes(count or ()),
        )
        found = conduct(plan)
    except (OSError, WeftError) as failure:
        errors.print(f"conformance: {failure}", markup=False)
        raise typer.Exit(2) from failure
    if junit is not None:
        junit.write_bytes(report.junit(found))
    if output == "json":
        typer.echo(report.as_json(found))
    else:
        report.table(found, Console())
    raise typer.Exit(1 if found.failed else 0)


_SIZES = {
    "containers": ("count", 2, 1000),
    "frames": ("frames", 1, 100_000),
    "mutants": ("mutants", 1, 1_000_000),
    "seconds": ("limit", 1, 60),
}


def _sizes(words: Sequence[str]) -> dict[str, Any]:
    """`16`, `frames=500`, ... as fields of the plan."""
    found: dict[str, Any] = {}
    for word in words:
        what, _, number = word.rpartition("=")
        field, least, most = _SIZES.get(what or "containers", ("", 0, 0))
        if not field or not (number.isascii() and number.isdigit()):
            raise Invalid(
                f"--count {word}: must be a number, or one of "
                f"{', '.join(f'{name}=N' for name in _SIZES)}",
                field="count",
            )
        if not least <= int(number) <= most:
            raise Invalid(f"--count {word}: must be from {least} to {most}", field="count")
        found[field] = int(number)
    return found
