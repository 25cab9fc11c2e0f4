"""`weft doctor`: what is wrong with this node, and the command that would mend it.

Half of it is the agent's own view, the other half is read here, so that there is an answer when
no agent runs too. Nothing is changed, unless `--fix` says so. The checks: `checks_*.py`; what may
be mended by machine, and how: `mending.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from weft.cli import checks_firewalls, checks_host, checks_leftovers, checks_runtime
from weft.cli.client import Client
from weft.cli.columns import coloured, plain
from weft.cli.machine import Machine
from weft.cli.mending import Attempt, Consent, ask, mend, planned, runner
from weft.cli.options import Report, client_of
from weft.cli.output import Data, as_text, complain, echo
from weft.model.errors import Invalid, WeftError
from weft.wire.api import Finding, Findings, Nothing

CHECKS = (
    *checks_runtime.CHECKS,
    *checks_host.CHECKS,
    *checks_firewalls.CHECKS,
    *checks_leftovers.CHECKS,
)
LEVEL = 6  # width of the column of levels


class Mended(Findings, frozen=True, kw_only=True):
    """What `--fix -o json` tells: what was tried, and what is not in order after it."""

    attempts: tuple[Attempt, ...] = ()


Foreign = Annotated[
    list[str] | None,
    typer.Option(
        "--foreign",
        metavar="OWNER",
        help="With --fix --yes: also what belongs to OWNER, as the finding calls it, or as its id "
        "does (-o json). May be repeated.",
        show_default=False,
    ),
]


def doctor(
    ctx: typer.Context,
    output: Report = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only what is not in order.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what a command can mend, after a question each.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("-y", "--yes", help="With --fix: ask nothing. What belongs to others stays."),
    ] = False,
    foreign: Foreign = None,
) -> None:
    """Find what is wrong with this node, and mend it if you like.

    Says what would mend it, as far as a command can; those that --fix may run are marked. Without
    --fix nothing is changed. With it, each command is shown before it runs, and everything is
    looked at again afterwards. What belongs to other programs - another container network's link,
    another firewall's chain, another configuration - is touched only after a question that names
    whose it is, or with --foreign. Exit status 1 when something is bad in the end: pods get no
    working network.

    \b
    Examples:
      weft doctor
      weft doctor --quiet
      weft doctor -o json
      weft doctor --fix                          show each command, ask, run it, look again
      weft doctor --fix --yes                    ask nothing; leave alone what is not ours
      weft doctor --fix --yes --foreign flannel  and remove what flannel left
    """
    client = client_of(ctx)
    if fix:
        if foreign is not None and not yes:
            raise _only_with("--foreign", "--yes; without it every command is asked for")
        found = _mended(client, output, Consent(yes=yes, foreign=foreign or (), ask=ask))
    elif yes or foreign is not None:
        raise _only_with("--yes and --foreign", "--fix")
    else:
        found = diagnose(client)
        shown = tuple(each for each in found if not (quiet and each.level == "ok"))
        echo(as_text(Findings(items=shown), output) if output else findings_text(shown))
    if any(each.level == "bad" for each in found):
        raise typer.Exit(1)


def _only_with(what: str, other: str) -> Invalid:
    return Invalid(f"{what} goes only with {other}", field=what, reason="invalid-argument")


def _mended(client: Client, output: Data | None, consent: Consent) -> list[Finding]:
    """Mend, and say what is left."""
    if os.geteuid() != 0:
        raise WeftError("only root may mend a node; run it with sudo", reason="not-permitted")
    if output is not None and not consent.yes:
        raise _only_with("-o with --fix, which then asks no question,", "--yes")
    told = complain if output is not None else echo
    attempts, found = mend(lambda: diagnose(client), consent, runner(client.path), told)
    left = tuple(each for each in found if each.level != "ok")
    if output is not None:
        echo(as_text(Mended(attempts=tuple(attempts), items=left), output))
    else:
        if attempts:
            echo("")
        elif left:
            echo("Nothing of this can be mended by a command alone.")
        echo(findings_text(left))
    return found


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
    return [planned(each) for each in (*found, *_here(machine))]


def _here(machine: Machine) -> Iterator[Finding]:
    for check in CHECKS:
        try:
            yield from check(machine)
        except (OSError, ValueError, IndexError) as error:
            # a file of the machine with a form that no check expects must not hide the others
            name = check.__name__.replace("_", "-")
            yield Finding(id=name, level="warn", text=f"could not be judged: {error}")


def _mark(finding: Finding) -> str:
    if not finding.steps:
        return ""
    return f"  [--fix; changes {plain(finding.owner)}]" if finding.owner else "  [--fix]"


def findings_text(found: Sequence[Finding]) -> str:
    """One line a finding, a second one with what would mend it, and a sum."""
    lines = []
    for each in found:
        level = coloured(f"{each.level:<{LEVEL}}", each.level)
        lines.append(f"{level}{plain(each.text)}")
        if each.mend:
            lines.append(f"{'':<{LEVEL}}-> {plain(each.mend)}{_mark(each)}")
    bad = sum(each.level == "bad" for each in found)
    warn = sum(each.level == "warn" for each in found)
    lines.append(f"{bad} bad, {warn} to look at" if bad or warn else "Nothing is wrong.")
    return "\n".join(lines)
