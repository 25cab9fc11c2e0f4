"""`weft get`: lists of objects, one object, or how they change."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from weft.cli.client import Client
from weft.cli.columns import GAP, plain
from weft.cli.names import Named, parse_selector, parse_targets
from weft.cli.options import Namespace, Targets, client_of
from weft.cli.output import Output, Sheet, as_list, as_text, complain, echo, name_of
from weft.model.errors import Invalid, WeftError
from weft.model.metadata import DEFAULT_NAMESPACE
from weft.model.selectors import Selector
from weft.wire.api import GetParams, ListParams, Plain, WatchParams
from weft.wire.views import is_view


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, apart from the targets. `namespace` None: all of them."""

    namespace: str | None
    selector: Selector | None
    form: Output | None


def get(
    ctx: typer.Context,
    targets: Targets,
    namespace: Namespace = DEFAULT_NAMESPACE,
    everywhere: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="Objects of all namespaces.")
    ] = False,
    selector: Annotated[
        str | None,
        typer.Option("-l", "--selector", metavar="LABELS", help="e.g. app=web,tier!=db,!old"),
    ] = None,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="Form.")] = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Then go on and show every change.")
    ] = False,
) -> None:
    """Show objects: what people asked for, and what is attached.

    Kinds: ippools, ipblocks, nodes, pods, namespaces; and of this node only, attachments, ports,
    events and connections, which have options of their own: `weft get connections --help`. A kind
    may be given as singular, plural or short name.

    \b
    Examples:
      weft get ippools                    all pools
      weft get attachments -o wide        every interface that weft gave out here
      weft get pods -A -l app=web         pods of all namespaces with this label
      weft get ippool default -o yaml     one pool, to edit and apply again
      weft get events --watch             what happens, as it happens
    """
    wish = Wish(
        namespace=None if everywhere else namespace,
        selector=parse_selector(selector),
        form=output,
    )
    named = parse_targets(targets)
    if wish.selector is not None and any(each.name is not None for each in named):
        raise Invalid(
            "names and --selector cannot be combined", field="--selector", reason="invalid-argument"
        )
    client = client_of(ctx)
    if watch:
        _follow(client, named, wish)
    elif all(each.name is not None for each in named):
        _show_some(client, named, wish)
    else:
        _show_all(client, named, wish)


def _show_some(client: Client, named: list[Named], wish: Wish) -> None:
    """Objects by name; what is missing is said, the others are shown all the same."""
    found: list[tuple[Named, Plain]] = []
    missing: list[WeftError] = []
    for each in named:
        try:
            params = GetParams(
                kind=each.kind.kind,
                name=each.name or "",
                namespace=_namespace(each, wish) or DEFAULT_NAMESPACE
                if each.kind.namespaced
                else "",
            )
            found.append((each, client.call("get", params)))
        except WeftError as error:
            if error.reason != "not-found":
                raise
            missing.append(error)
    if len(named) == 1 and found and wish.form in (Output.JSON, Output.YAML):
        echo(as_text(found[0][1], wish.form))
    else:
        _print([(each, [item]) for each, item in found], wish)
    for each_missing in missing[:-1]:
        complain(f"error: {each_missing.message}")
    if missing:
        raise missing[-1]


def _show_all(client: Client, named: list[Named], wish: Wish) -> None:
    groups: list[tuple[Named, list[Plain]]] = []
    for each in named:
        params = ListParams(
            kind=each.kind.kind, namespace=_namespace(each, wish), selector=wish.selector
        )
        found = client.call("list", params)
        for line in found.unreadable:
            complain(f"warning: {plain(line)}")
        groups.append((each, list(found.items)))
    _print(groups, wish)


def _namespace(each: Named, wish: Wish) -> str | None:
    """The namespace to ask for; attachments have none, and are narrowed only when asked to be."""
    if each.kind.namespaced or wish.namespace != DEFAULT_NAMESPACE:
        return wish.namespace
    return None


def _print(groups: list[tuple[Named, list[Plain]]], wish: Wish) -> None:
    items = [item for _, found in groups for item in found]
    if wish.form in (Output.JSON, Output.YAML):
        echo(as_text(as_list(items), wish.form))
        return
    if wish.form is Output.NAME:
        for item in items:
            echo(name_of(item["kind"], item["metadata"]["name"]))
        return
    tables = []
    for kind in dict.fromkeys(each.kind.kind for each, _ in groups):
        of_kind = [(each, found) for each, found in groups if each.kind.kind == kind]
        rows = [item for _, found in of_kind for item in found]
        if rows:
            tables.append(_sheet(of_kind[0][0], wish).text(rows))
    if tables:
        echo("\n\n".join(tables))
    elif groups:
        narrowed = wish.namespace is not None and any(each.kind.namespaced for each, _ in groups)
        where = f" in {wish.namespace} namespace" if narrowed else ""
        complain(f"No resources found{where}.")


def _sheet(each: Named, wish: Wish) -> Sheet:
    return Sheet(each.kind, wide=wish.form is Output.WIDE, namespaces=wish.namespace is None)


def _follow(client: Client, named: list[Named], wish: Wish) -> None:
    """What there is, then every change, until interrupted."""
    if len(named) != 1:
        raise Invalid(
            "--watch follows one kind, or one object", field="--watch", reason="invalid-argument"
        )
    each = named[0]
    namespace = _namespace(each, wish)
    sheet = _sheet(each, wish)
    listed = client.call(
        "list", ListParams(kind=each.kind.kind, namespace=namespace, selector=wish.selector)
    )
    shown = [item for item in listed.items if each.name in (None, item["metadata"]["name"])]
    rows = [sheet.headings, *(sheet.row(item) for item in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if wish.form in (None, Output.WIDE):
        echo(_line(sheet.headings, widths))
    is_stored = not is_view(each.kind)
    if is_stored:
        for item in shown:
            _show_change(item, "ADDED", sheet, widths, wish.form)
    params = WatchParams(
        kind=each.kind.kind,
        namespace=namespace,
        name=each.name,
        selector=wish.selector,
        after=listed.revision if is_stored else None,  # what is not stored has no history
    )
    for change in client.stream("watch", params):
        _show_change(change.object, change.type, sheet, widths, wish.form)
    complain("The agent has stopped.")
    raise typer.Exit(1)


def _show_change(
    item: Plain, type_: str, sheet: Sheet, widths: list[int], form: Output | None
) -> None:
    if form is Output.JSON:
        echo(as_text(item, "json"))
    elif form is Output.YAML:
        echo(f"---\n{as_text(item, 'yaml')}")
    elif form is Output.NAME:
        echo(name_of(item["kind"], item["metadata"]["name"]))
    else:
        row = [plain(cell) or "-" for cell in sheet.row(item)]
        if type_ == "DELETED":
            row[-1] = f"{row[-1]} (deleted)"
        echo(_line(row, widths))


def _line(cells: list[str], widths: list[int]) -> str:
    """A line as wide as anything before it; widths grow, and never shrink again."""
    for index, cell in enumerate(cells):
        widths[index] = max(widths[index], len(cell))
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
    return GAP.join(padded).rstrip()
