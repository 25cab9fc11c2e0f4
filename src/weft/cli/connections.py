"""`weft get connections`: who talks to whom, live.

There may be very many: they come in pieces, and each is printed before the next is asked for. Only
the first piece decides how wide the columns begin. The agent's side: `agent.connections`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated

import msgspec
import typer

from weft.cli.client import Client
from weft.cli.columns import GAP, plain
from weft.cli.completing import complete_namespace, complete_pod
from weft.cli.names import parse_selector
from weft.cli.options import client_of
from weft.cli.output import Output, Sheet, as_text, complain, echo, name_of
from weft.model.errors import Invalid
from weft.model.names import printable
from weft.wire.api import ConnectionsParams, Plain
from weft.wire.views import VIEWS

LOOK_EVERY = 2.0  # seconds between two looks of --watch
NOT_COUNTED = (
    "note: this node does not count bytes and packets; to count those of connections that begin "
    "from now on: sysctl -w net.netfilter.nf_conntrack_acct=1"
)
_KIND = VIEWS["Connection"]


Pods = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[POD]...",
        help="Only those of these pods: NAMESPACE/NAME, NAME, the host's link, or the beginning of "
        "a container id.",
        autocompletion=complete_pod,
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--port",
        "--protocol",
        metavar="WHAT",
        help="Only of this port of the server, as it was asked for or as it is; only of this "
        "protocol; or of both, e.g. 53/udp.",
        show_default=False,
    ),
]


def connections(
    ctx: typer.Context,
    pods: Pods = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NAME",
            help="Only pods of this namespace.",
            autocompletion=complete_namespace,
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option("-l", "--selector", metavar="LABELS", help="Only pods with these labels."),
    ] = None,
    only: Only = None,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="Form.")] = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Then look again and show what changed.")
    ] = False,
) -> None:
    """Show the live connections of this node's pods.

    One line each, as the kernel tracks it: FROM and SOURCE are the client, TO and TARGET the
    server that answers; either may be a pod, this node, or somebody elsewhere (-). TRANSLATED says
    where the client had asked for another address (`to`, a published port for instance), and under
    which address the server sees it (`as`). BYTES are those from the client and those to it, where
    the node counts them. Connections without a pod are not shown. --watch looks every two seconds
    and prints what is new, what has another state, and what is gone.

    \b
    Examples:
      weft get connections                       of all pods of this node
      weft get connections shop/web-0            of one pod
      weft get connections -n shop -l app=web    of some
      weft get connections --port 8080 -o wide   to one port, with packets and timeouts
      weft get connections --protocol udp -w     and how they change
      weft get connections -o json               as data
    """
    port, protocol = parse_only(only or ())
    params = ConnectionsParams(
        namespace=namespace,
        pods=tuple(pods or ()),
        selector=parse_selector(selector),
        port=port,
        protocol=protocol,
    )
    client = client_of(ctx)
    if watch:
        _follow(client, params, output)
    elif output in (Output.JSON, Output.YAML):
        _as_data(_pieces(client, params), output)
    else:
        lines = _Lines(output)
        for piece in _pieces(client, params):
            lines.show(piece)
        lines.end()


def parse_only(words: Sequence[str]) -> tuple[int | None, str | None]:
    """Port and protocol of `443`, `udp`, `53/udp`, in as many words. Raises Invalid for two ports
    or two protocols."""
    port: int | None = None
    protocol: str | None = None
    for part in (part for word in words for part in word.split("/")):
        if part.isascii() and part.isdigit() and len(part) <= 5:
            if port not in (None, int(part)):
                raise _invalid(f"ports {port} and {part} at once")
            port = int(part)
        elif part:
            if protocol not in (None, part):
                raise _invalid(f"protocols {protocol} and {printable(part)} at once")
            protocol = part
        else:
            raise _invalid("an empty port or protocol")
    return port, protocol


def _invalid(why: str) -> Invalid:
    return Invalid(
        f"--port, --protocol: {why}; write one port, one protocol, or e.g. 53/udp",
        field="--port",
        reason="invalid-argument",
    )


def _pieces(client: Client, params: ConnectionsParams) -> Iterator[tuple[Plain, ...]]:
    return (found.items for found in client.stream("connections", params))


class _Lines:
    """A table that is printed as it comes; its columns widen, and never shrink again."""

    def __init__(self, form: Output | None) -> None:
        self._names = form is Output.NAME
        self._sheet = Sheet(_KIND, wide=form is Output.WIDE, age=False)
        self._widths: list[int] = []
        self._uncounted = False

    def show(self, items: Sequence[Plain], mark: str = "") -> None:
        """One line each, with a word behind it."""
        if self._names:
            for item in items:
                echo(name_of(item["kind"], item["metadata"]["name"]))
            return
        rows = [[plain(cell) or "-" for cell in self._sheet.row(item)] for item in items]
        if not self._widths and rows:
            rows.insert(0, self._sheet.headings)
            self._widths = [0] * len(rows[0])
        for column, width in enumerate(self._widths):
            self._widths[column] = max(width, *(len(row[column]) for row in rows), 0)
        self._uncounted |= any("octets" not in item["spec"] for item in items)
        for row in rows:
            cells = [f"{cell:<{width}}" for cell, width in zip(row, self._widths, strict=True)]
            echo(GAP.join([*cells, mark]).rstrip())

    def end(self) -> None:
        """What is to be said of the whole."""
        if not self._widths and not self._names:
            complain("No connections.")
        if self._uncounted:
            complain(NOT_COUNTED)


def _as_data(pieces: Iterator[tuple[Plain, ...]], form: Output) -> None:
    """One `List`, as `weft get` prints it, without ever having it whole."""
    items = chain.from_iterable(pieces)
    first = next(items, None)  # an error comes before the first word
    if form is Output.JSON:
        echo('{\n  "apiVersion": "v1",\n  "kind": "List",\n  "items": [')
        if first is not None:
            typer.echo("    " + msgspec.json.encode(first).decode(), nl=False)
            for item in items:
                typer.echo(",\n    " + msgspec.json.encode(item).decode(), nl=False)
            echo("")
        echo("  ]\n}")
        return
    if first is None:
        echo("apiVersion: v1\nkind: List\nitems: []")
        return
    echo("apiVersion: v1\nkind: List\nitems:")
    for item in chain((first,), items):
        echo(as_text([item], "yaml"))


def _follow(client: Client, params: ConnectionsParams, form: Output | None) -> None:
    """What there is, then what became of it, until interrupted."""
    lines = _Lines(form)
    before: dict[str, Plain] = {}
    while True:
        now: dict[str, Plain] = {}
        for piece in _pieces(client, params):
            for item in piece:
                name = item["metadata"]["name"]
                now[name] = item
                if name not in before or _state(before[name]) != _state(item):
                    _show_change(lines, item, "MODIFIED" if name in before else "ADDED", form)
        for name in before.keys() - now.keys():
            _show_change(lines, before[name], "DELETED", form)
        before = now
        time.sleep(LOOK_EVERY)


def _state(item: Plain) -> str:
    return str(item["spec"].get("state", ""))


def _show_change(lines: _Lines, item: Plain, what: str, form: Output | None) -> None:
    if form in (Output.JSON, Output.YAML):
        change = {"type": what, "object": item}
        echo(msgspec.json.encode(change).decode() if form is Output.JSON else _document(change))
    else:
        lines.show([item], "(gone)" if what == "DELETED" else "")


def _document(change: Plain) -> str:
    return f"---\n{as_text(change, 'yaml')}"
