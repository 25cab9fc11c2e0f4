"""`weft lab crash-sweep`: what is left when a verb is killed or fails half way? Nothing."""

from __future__ import annotations

import os
from typing import Annotated, Literal, get_args

import typer
from rich.console import Console

from weft.lab.crash import report
from weft.lab.crash.faults import faults
from weft.lab.crash.plan import Plan
from weft.lab.crash.sweep import sweep
from weft.lab.crash.tracing import Point, spelled, strace
from weft.lab.crash.verbs import THENS, VERBS, Victim
from weft.model.errors import Invalid

_VICTIMS: tuple[Victim, ...] = get_args(Victim)


def crash_sweep(
    verb: Annotated[
        list[str] | None, typer.Option(help=f"Only these verbs: {', '.join(VERBS)}.")
    ] = None,
    victim: Annotated[
        list[str] | None, typer.Option(help="Who is struck: launcher, agent; both by default.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="kill (the default), errno (all errnos), or one: ENOSPC, EIO, ENOMEM, EMFILE, "
            "EINTR, ENOBUFS; with + a call that keeps failing."
        ),
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(help=f"What comes after: {', '.join(THENS)}; all by default."),
    ] = None,
    points: Annotated[
        str, typer.Option(help="all, how many of each verb, or points like main:sendto:3.")
    ] = "all",
    sample: Annotated[
        str,
        typer.Option(metavar="N[:SEED]", help="At most N trials in all, drawn by the seed (1)."),
    ] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Kill or fail a verb at every system call with an effect, and look at what is left.

    Makes a node of its own and needs strace. Exit status 1: something was left, or lost.

    \b
    Examples:
      weft lab crash-sweep                              every kill, ten minutes or so
      weft lab crash-sweep --verb ADD --victim agent
      weft lab crash-sweep --fault errno --then del --sample 200
    """
    if os.geteuid() != 0:
        raise Invalid("a lab is made of network namespaces: run this as root")
    if output not in {"table", "json"}:
        raise Invalid(f"-o {output}: must be table or json", field="output")
    strace()
    victims = _chosen("victim", victim, _VICTIMS)
    plan = Plan(
        verbs=_chosen("verb", verb, tuple(VERBS)),
        victims=tuple(each for each in _VICTIMS if each in victims),
        faults=faults(fault or ["kill"]),
        thens=_chosen("then", then, THENS),
        points=_points(points),
        **_sample(sample),
    )
    errors = Console(stderr=True)
    found = sweep(plan, lambda line: errors.print(line, markup=False, highlight=False))
    if output == "json":
        typer.echo(report.as_json(found))
    else:
        report.table(found, Console())
    raise typer.Exit(1 if found.failures else 0)


def _chosen(
    option: Literal["verb", "victim", "then"], words: list[str] | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    for word in words or ():
        if word not in known:
            raise Invalid(f"--{option} {word}: must be one of {', '.join(known)}", field=option)
    return tuple(words or known)


def _sample(text: str) -> dict[str, int]:
    """`200` or `200:7` as fields of the plan."""
    if not text:
        return {}
    count, _, seed = text.partition(":")
    numbers = (count, seed or "1")
    if not all(each.isascii() and each.isdigit() for each in numbers) or int(count) < 1:
        raise Invalid(
            f"--sample {text}: must be a number of trials, or N:SEED such as 200:7", field="sample"
        )
    return {"limit": int(numbers[0]), "seed": int(numbers[1])}


def _points(text: str) -> int | tuple[Point, ...] | None:
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    return tuple(spelled(each) for each in text.split(","))
