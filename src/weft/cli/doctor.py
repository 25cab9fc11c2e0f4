"""`weft doctor`: what is wrong with this node, and the command that would mend it.

Half of it is the agent's own view, the other half is read here, so that there is an answer when
no agent runs too. Nothing is changed. The checks: `checks_*.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from weft.cli import checks_firewalls, checks_host, checks_leftovers, checks_runtime
from weft.cli.client import Client
from weft.cli.columns import coloured, plain
from weft.cli.machine import Machine
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, echo
from weft.model.errors import WeftError
from weft.wire.api import Finding, Findings, Nothing

CHECKS = (
    *checks_runtime.CHECKS,
    *checks_host.CHECKS,
    *checks_firewalls.CHECKS,
    *checks_leftovers.CHECKS,
)
LEVEL = 6  # width of the column of levels


def doctor(
    ctx: typer.Context,
    output: Report = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only what is not in order.")
    ] = False,
) -> None:
    """Find what is wrong with this node.

    Says what would mend it, as far as a command can.
    Changes nothing. Exit status 1 when something is bad: pods get no working network.

    \b
    Examples:
      weft doctor
      weft doctor --quiet
      weft doctor -o json
    """
    found = diagnose(client_of(ctx))
    shown = [each for each in found if not (quiet and each.level == "ok")]
    if output is not None:
        echo(as_text(Findings(items=tuple(shown)), output))
    else:
        echo(findings_text(shown))
    if any(each.level == "bad" for each in found):
        raise typer.Exit(1)


def diagnose(client: Client, machine: Machine | None = None) -> list[Finding]:
    """All findings, the agent's first."""
    machine = machine or Machine(socket=client.path)
    found: list[Finding] = []
    try:
        machine.status = client.call("status", Nothing())
        found.append(Finding(id="agent", level="ok", text=f"the agent answers on {client.path}"))
        found += client.call("findings", Nothing()).items
    except WeftError as error:
        text, _, mend = error.message.partition("; start it with: ")
        found.append(Finding(id="agent", level="bad", text=text, mend=mend))
    return [*found, *_here(machine)]


def _here(machine: Machine) -> Iterator[Finding]:
    for check in CHECKS:
        try:
            yield from check(machine)
        except (OSError, ValueError, IndexError) as error:
            # a file of the machine with a form that no check expects must not hide the others
            name = check.__name__.replace("_", "-")
            yield Finding(id=name, level="warn", text=f"could not be judged: {error}")


def findings_text(found: Sequence[Finding]) -> str:
    """One line a finding, a second one with what would mend it, and a sum."""
    lines = []
    for each in found:
        level = coloured(f"{each.level:<{LEVEL}}", each.level)
        lines.append(f"{level}{plain(each.text)}")
        if each.mend:
            lines.append(f"{'':<{LEVEL}}-> {plain(each.mend)}")
    bad = sum(each.level == "bad" for each in found)
    warn = sum(each.level == "warn" for each in found)
    lines.append(f"{bad} bad, {warn} to look at" if bad or warn else "Nothing is wrong.")
    return "\n".join(lines)
