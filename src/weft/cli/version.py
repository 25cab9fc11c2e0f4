"""`weft version`: releases of both ends, and of the protocols between them."""

from __future__ import annotations

from typing import Any

import typer

from weft import __version__
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, echo
from weft.model.errors import WeftError
from weft.wire.api import API_FORMAT, Nothing
from weft.wire.local import VERSION


def version(ctx: typer.Context, output: Report = None) -> None:
    """Print the release of the command line and of the agent.

    An agent that does not answer is no error here.

    \b
    Examples:
      weft version
      weft version -o json
    """
    found: dict[str, Any] = {
        "weft": __version__,
        "api": API_FORMAT,
        "localProtocol": VERSION,
        "agent": None,
    }
    try:
        status = client_of(ctx).call("status", Nothing())
    except WeftError as error:
        agent = f"unknown: {error.message}"
        found["agentError"] = error.message
    else:
        agent = f"{status.version} on node {status.node}"
        found["agent"] = {"version": status.version, "node": status.node}
    if output is not None:
        echo(as_text(found, output))
        return
    echo(f"weft    {__version__}")
    echo(f"agent   {agent}")
