"""The commands of the command line, in one table, and the program around them.

A further command is one file and one line here. Help is plain text: it is quick, and reads the
same in a pipe. `lab`, `conformance` and `agent` are large and loaded only when they are used;
the lines of `_LOADED_LATE` stand for them in the help.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from weft import __version__
from weft.cli import (
    completion,
    connections,
    describe,
    doctor,
    explain,
    get,
    importing,
    install,
    ipam,
    label,
    logs,
    manifests,
    status,
    upgrade,
    version,
)
from weft.cli.client import SOCKET, Client
from weft.wire.views import VIEWS, names_of

_LOADED_LATE = {
    "lab": ("weft.cli.lab", "Nodes and pods as namespaces, to try things on."),
    "conformance": (
        "weft.cli.conformance",
        "Test any CNI plugin against the specification.",
    ),
    "break-glass": (
        "weft.cli.break_glass.command",
        "Take weft's packet rules away in an emergency.",
    ),
    "oci-hook": (
        "weft.cli.oci_hook",
        "Print what makes runc, crun and other OCI runtimes call weft.",
    ),
    "support": (
        "weft.cli.support.command",
        "Collect what a bug report needs into one archive, without secrets.",
    ),
}
_OPEN = {"ignore_unknown_options": True, "allow_extra_args": True}


_WITH_VALUE = ("-n", "--namespace", "-l", "--selector", "-o", "--output")


def own_kind(words: Sequence[str]) -> int | None:
    """Where, among the words of `weft get ...`, the kind stands that has a command of its own."""
    at = 1
    while at < len(words):
        if words[at] in _WITH_VALUE:
            at += 1
        elif not words[at].startswith("-"):
            return at if words[at].casefold() in names_of(VIEWS["Connection"]) else None
        at += 1
    return None


class Root(TyperGroup):
    """The root command: gives the real command for a late one, except when listing all."""

    listing = False

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words call; of `get`, a kind may have one of its own."""
        if args[:1] == ["get"] and (at := own_kind(args)) is not None:
            args = [f"get {VIEWS['Connection'].plural}", *args[1:at], *args[at + 1 :]]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, loaded now if it is a late one."""
        if cmd_name in _LOADED_LATE and not self.listing:
            module = import_module(_LOADED_LATE[cmd_name][0])
            command = typer.main.get_command(module.app)
            command.name = cmd_name
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands, for which a line of help is enough."""
        self.listing = True
        try:
            super().format_commands(ctx, formatter)
        finally:
            self.listing = False


app = typer.Typer(
    cls=Root,
    name="weft",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

COMMANDS = (
    ("status", status.status),
    ("doctor", doctor.doctor),
    ("get", get.get),
    ("describe", describe.describe),
    ("apply", manifests.apply),
    ("delete", manifests.delete),
    ("label", label.label),
    ("logs", logs.logs),
    ("explain", explain.explain),
    ("install", install.install),
    ("uninstall", install.uninstall),
    ("import", importing.import_),
    ("upgrade", upgrade.upgrade),
    ("version", version.version),
    ("completion", completion.completion),
)
for _name, _command in COMMANDS:
    app.command(_name)(_command)
app.command("get connections", hidden=True)(connections.connections)
app.add_typer(ipam.app, name="ipam")


def _late(ctx: typer.Context) -> None:
    raise RuntimeError(f"{ctx.info_name} stands in for a command that is loaded late")


for _name, (_, _help) in _LOADED_LATE.items():
    app.command(_name, help=_help)(_late)


@app.command("agent", context_settings=_OPEN, add_help_option=False)
def agent(ctx: typer.Context) -> None:
    """Run the agent in the foreground.

    Every other command talks to it.

    \b
    Examples:
      weft agent
      weft agent --config /etc/weft/weft.yaml
    """
    from weft.agent.service import main

    raise typer.Exit(main(ctx.args))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"weft {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    socket: Annotated[
        str,
        typer.Option("--socket", metavar="PATH", envvar="WEFT_SOCKET", help="The agent's socket."),
    ] = SOCKET,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Print the release and exit."
        ),
    ] = False,
) -> None:
    """weft: a container network for Kubernetes and every other CNI runtime.

    \b
    Examples:
      weft status                         can this node attach containers?
      weft get attachments                what is attached
      weft apply -f pool.yaml             more addresses
      weft explain exhausted              what a reason means
      weft COMMAND --help                 examples for each command
    """
    ctx.obj = Client(socket)


def command() -> Any:
    """The root command."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    if completion.VARIABLE in os.environ:
        completion.answer(command())
        return 0
    try:
        command()(args=list(arguments), prog_name="weft")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    return 0
