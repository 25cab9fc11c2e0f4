"""What a sweep found, as a table for people and JSON for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from weft.lab.crash.plan import Report, Result

_OUTCOMES = ("passed", "retried", "missed", "failed")
_LINES_LEFT = 12
_WIDTH = 240  # of one line of what was left; JSON has it all
Row = tuple[str, str, str]


def rows(report: Report) -> dict[Row, Counter[str]]:
    """Trials by outcome, and points, of every verb, victim and fault."""
    found: dict[Row, Counter[str]] = {}
    points: dict[Row, set[str]] = {}
    for result in report.results:
        trial = result.trial
        row: Row = (trial.verb, trial.victim, trial.fault.word)
        found.setdefault(row, Counter())[result.outcome] += 1
        points.setdefault(row, set()).add(trial.point.spelled)
    for row, counted in found.items():
        counted["points"] = len(points[row])
    return found


def table(report: Report, console: Console) -> None:
    """Print a line for each verb, victim and fault, then every failure with what repeats it."""
    shown = Table("verb", "victim", "fault", "points", *_OUTCOMES, title="crash sweep")
    for row, counted in rows(report).items():
        failed = counted["failed"]
        shown.add_row(
            *row,
            str(counted["points"]),
            *(str(counted[outcome]) for outcome in _OUTCOMES[:-1]),
            f"[red]{failed}[/]" if failed else "0",
        )
    console.print(shown)
    for result in report.failures:
        _failure(result, console)
    console.print(
        f"{len(report.results)} trials (seed {report.seed}), {len(report.failures)} failed; the "
        f"bystanders exchanged {report.datagrams} datagrams meanwhile",
        highlight=False,
    )


def _failure(result: Result, console: Console) -> None:
    trial = result.trial
    lines = [
        f"\n{trial.verb}, {trial.fault.word} of the {trial.victim} at {trial.point.spelled}, "
        f"then {trial.then}:",
        f"  struck: {result.where[:_WIDTH] or 'nothing, the verb ended before'}",
        *(f"  left:   {line[:_WIDTH]}" for line in result.left[:_LINES_LEFT]),
        f"  again:  {trial.command}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def as_json(report: Report) -> str:
    """Totals by verb, victim and fault; each failure; the seed."""
    body: dict[str, Any] = {
        "seed": report.seed,
        "trials": len(report.results),
        "failed": len(report.failures),
        "datagrams": report.datagrams,
        "rows": [
            {
                "verb": verb,
                "victim": victim,
                "fault": fault,
                "points": counted["points"],
                **{outcome: counted[outcome] for outcome in _OUTCOMES},
            }
            for (verb, victim, fault), counted in rows(report).items()
        ],
        "failures": [
            {
                "command": result.trial.command,
                "struck": result.where,
                "left": result.left,
            }
            for result in report.failures
        ],
    }
    return msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
