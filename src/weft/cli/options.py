"""Arguments and options that several commands share, spelt as kubectl spells them."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.cli.client import SOCKET, Client
from weft.cli.completing import complete_namespace, complete_target
from weft.cli.output import Data

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND [NAME]... | KIND/NAME...",
        help="Kind, plural or short name, and names; several kinds with commas.",
        autocompletion=complete_target,
        show_default=False,
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="Namespace of the objects.",
        autocompletion=complete_namespace,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "-f",
        "--filename",
        metavar="FILE|-|DIR",
        help="YAML or JSON: a file, standard input, or every .yaml, .yml and .json of a "
        "directory. May be repeated.",
        show_default=False,
    ),
]
Recursive = Annotated[
    bool, typer.Option("-R", "--recursive", help="Also the directories below a directory.")
]
Report = Annotated[Data | None, typer.Option("-o", "--output", help="The whole answer as data.")]


def client_of(ctx: typer.Context) -> Client:
    """The client of this run: the root command's --socket decides which agent."""
    found = ctx.find_root().obj
    return found if isinstance(found, Client) else Client(SOCKET)
