"""`weft explain`: what a reason or a CNI error code means. Needs no agent."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.cli.columns import coloured, table
from weft.cli.completing import complete_reason
from weft.cli.output import echo
from weft.model.errors import Invalid
from weft.model.names import did_you_mean, printable
from weft.model.reasons import REASONS

CODES = {
    1: "incompatible CNI version",
    2: "unsupported field in the network configuration",
    3: "container unknown or does not exist",
    4: "invalid necessary environment variables",
    5: "I/O failure",
    6: "failed to decode content",
    7: "invalid network config",
    8: "invalid network namespace (not of the specification; the Go libraries use it)",
    11: "try again later",
    50: "the plugin is not available: it cannot serve ADD requests",
    51: "the plugin is not available, and existing containers may have limited connectivity",
    999: "everything else (not of the specification; the Go libraries use it)",
}
"""CNI specification 1.1.0, section "Error"."""


def explain(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[REASON|CODE]",
            help="A reason, or a CNI error code.",
            autocompletion=complete_reason,
        ),
    ] = None,
) -> None:
    """Explain a reason or a CNI error code.

    Without an argument, all reasons are listed.

    \b
    Examples:
      weft explain exhausted
      weft explain 11
      weft explain
    """
    if word is None:
        rows = [[name, str(each.cni), each.summary] for name, each in sorted(REASONS.items())]
        echo(table(["REASON", "CNI CODE", "MEANING"], rows))
    elif word.isascii() and word.isdigit():
        echo(_of_code(int(word)))
    elif word in REASONS:
        echo(_of_reason(word))
    else:
        hint = did_you_mean(word, REASONS) or "; `weft explain` lists all"
        raise Invalid(f"there is no reason {printable(word)}{hint}", reason="invalid-argument")


def _of_reason(name: str) -> str:
    reason = REASONS[name]
    when = (
        "before anything was changed" if reason.early else "after work had begun, which is undone"
    )
    return "\n".join(
        (
            coloured(name, "bold"),
            f"  Meaning:   {reason.summary}",
            f"  To do:     {reason.action}",
            f"  CNI code:  {reason.cni} ({CODES.get(reason.cni, 'of this plugin')})",
            f"  Decided:   {when}",
        )
    )


def _of_code(code: int) -> str:
    reasons = [name for name, reason in REASONS.items() if reason.cni == code]
    if code not in CODES and not reasons:
        known = ", ".join(str(each) for each in CODES)
        raise Invalid(
            f"weft has no CNI error code {code}; it uses {known}", reason="invalid-argument"
        )
    parts = [f"{coloured(f'CNI error code {code}', 'bold')}: {CODES.get(code, 'of this plugin')}"]
    return "\n\n".join([*parts, *(_of_reason(name) for name in reasons)])
