"""`weft completion`: the script that makes a shell complete weft's commands."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from weft.cli.output import echo

VARIABLE = "_WEFT_COMPLETE"


class Shell(enum.StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", show_default=False)],
) -> None:
    """Print the completion script of a shell.

    It completes commands, options, kinds, names of objects, and reasons.

    \b
    Examples:
      source <(weft completion bash)      for this shell only
      weft completion bash > /etc/bash_completion.d/weft
      weft completion fish > ~/.config/fish/completions/weft.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # re-export

    echo(get_completion_script(prog_name="weft", complete_var=VARIABLE, shell=shell.value))
