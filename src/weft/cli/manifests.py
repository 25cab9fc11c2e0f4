"""`weft apply` and `weft delete`: objects from files, one after the other.

A bad object does not stop the others: each gets its own line, and the exit status says whether
all went well. What is valid is for the agent to judge, so that there is one judge only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from weft.cli.columns import plain
from weft.cli.names import parse_targets
from weft.cli.options import Files, Namespace, Recursive, client_of
from weft.cli.output import complain, echo, name_of
from weft.model.errors import Invalid, WeftError
from weft.model.manifests import MAX_BYTES, read_manifests
from weft.model.metadata import DEFAULT_NAMESPACE
from weft.wire.api import ApplyParams, DeleteParams, Plain
from weft.wire.views import find_shown_kind

SUFFIXES = (".yaml", ".yml", ".json")
UNREACHABLE = ("agent-absent", "peer-fault")
"""Reasons that would be the same for every further object."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object of a file, or the reason why the file has none."""

    source: str
    data: Plain = {}
    error: WeftError | None = None


def apply(
    ctx: typer.Context,
    files: Files = None,
    recursive: Recursive = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the agent check everything, change nothing.")
    ] = False,
) -> None:
    """Create objects, or change them to what files say.

    Prints created, configured or unchanged for each. Spec, labels and annotations become what
    the file says; labels or annotations that a file does not mention at all stay as they are.
    A bad object does not stop the others; the exit status is then 1.

    \b
    Examples:
      weft apply -f pool.yaml
      weft apply -f pools/ -R --dry-run
      weft get ippool default -o yaml | weft apply -f -
    """
    client = client_of(ctx)

    def one(manifest: Manifest) -> None:
        done = client.call("apply", ApplyParams(object=manifest.data, dry_run=dry_run))
        tail = " (dry run)" if dry_run else ""
        echo(f"{name_of(done.kind, done.name)} {done.result}{tail}")
        for warning in done.warnings:
            complain(f"warning: {plain(warning)}")

    _each(_manifests(files, recursive), one)


def delete(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND NAME... | KIND/NAME...]", show_default=False),
    ] = None,
    files: Files = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    force: Annotated[bool, typer.Option("--force", help="Delete even what is in use.")] = False,
    tolerant: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there counts as deleted.")
    ] = False,
) -> None:
    """Delete objects, by name or by the files that made them.

    A pool whose addresses are in use is kept, with a word on how to drain it. Attachments
    cannot be deleted: they go with their containers.

    \b
    Examples:
      weft delete ippool extra
      weft delete pod/web-0 pod/web-1 -n shop
      weft delete -f pool.yaml --ignore-not-found
    """
    if bool(targets) == bool(files):
        raise Invalid(
            "name either objects (KIND NAME) or files (-f FILE)",
            field="argument",
            reason="invalid-argument",
        )
    client = client_of(ctx)

    def one(manifest: Manifest) -> None:
        params = _deletion(manifest.data, force)
        try:
            done = client.call("delete", params)
        except WeftError as error:
            if tolerant and error.reason == "not-found":
                return
            raise
        echo(f'{done.kind.lower()} "{plain(done.name)}" deleted')

    _each(_manifests(files, False) if files else _named(targets or [], namespace), one)


def _named(targets: list[str], namespace: str) -> Iterator[Manifest]:
    for each in parse_targets(targets):
        if each.name is None:
            raise Invalid(
                f"name the {each.kind.plural} to delete",
                field="argument",
                reason="invalid-argument",
            )
        metadata = {"name": each.name, "namespace": namespace if each.kind.namespaced else ""}
        yield Manifest(source="", data={"kind": each.kind.kind, "metadata": metadata})


def _deletion(data: Plain, force: bool) -> DeleteParams:
    """Which object a manifest names; the rest of it does not matter for a deletion."""
    kind, metadata = data.get("kind"), data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(kind, str) or not isinstance(name, str):
        raise Invalid(
            "an object needs kind and metadata.name", field="metadata.name", reason="invalid-object"
        )
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    known = find_shown_kind(kind)
    return DeleteParams(
        kind=known.kind,
        name=name,
        namespace=str(namespace or DEFAULT_NAMESPACE) if known.namespaced else "",
        force=force,
    )


def _each(manifests: Iterable[Manifest], act: Any) -> None:
    """Act on all; exit status 1 when one failed, at once when no other could fare better."""
    failed = False
    count = 0
    for manifest in manifests:
        count += 1
        try:
            if manifest.error is not None:
                raise manifest.error
            act(manifest)
        except WeftError as error:
            if error.reason in UNREACHABLE:
                raise
            failed = True
            complain(f"error: {_where(manifest)}{error.message}")
    if not count:
        raise Invalid("no objects were given", field="-f", reason="invalid-argument")
    if failed:
        raise typer.Exit(1)


def _where(manifest: Manifest) -> str:
    """`pool.yaml: ippool/default: `, as far as it is known."""
    parts = [manifest.source] if manifest.source else []
    kind, metadata = manifest.data.get("kind"), manifest.data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(kind, str) and isinstance(name, str) and manifest.source:
        parts.append(name_of(kind, name))
    return "".join(f"{plain(part)[:200]}: " for part in parts)


def _manifests(files: list[str] | None, recursive: bool) -> Iterator[Manifest]:
    if not files:
        raise Invalid(
            "no file is named; write -f FILE, -f DIR, or -f - for standard input",
            field="-f",
            reason="invalid-argument",
        )
    for word in files:
        for source, path in _sources(word, recursive):
            try:
                content = _content(path)
                objects = read_manifests(content, source=source)
            except WeftError as error:
                message = error.message.removeprefix(f"{source}: ")
                again = Invalid(message, field=source, reason=error.reason)
                yield Manifest(source=source, error=again)
                continue
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                yield Manifest(
                    source=source, error=Invalid(why, field=source, reason="invalid-argument")
                )
                continue
            for data in objects:
                yield Manifest(source=source, data=data)


def _sources(word: str, recursive: bool) -> list[tuple[str, Path | None]]:
    if word == "-":
        return [("standard input", None)]
    path = Path(word)
    if not path.is_dir():
        return [(word, path)]
    found = path.rglob("*") if recursive else path.glob("*")
    return [
        (str(each), each) for each in sorted(found) if each.suffix in SUFFIXES and each.is_file()
    ]


def _content(path: Path | None) -> bytes:
    """At most one byte more than is allowed, so that the reader can say that it is too much."""
    if path is None:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
