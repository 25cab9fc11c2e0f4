"""`-o json|yaml|wide|name`: objects and reports as text.

`-o yaml` and `-o json` of several objects give one `List`, so that the text can be edited and
applied again. YAML is imported when it is asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import typer

from weft.cli.columns import age, table
from weft.model.errors import WeftError
from weft.model.kinds import Kind
from weft.wire.api import Plain
from weft.wire.views import decode_shown


class Output(enum.StrEnum):
    """Forms of a list of objects."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class Data(enum.StrEnum):
    """Forms of a report."""

    JSON = "json"
    YAML = "yaml"


def as_text(data: Any, form: str) -> str:
    """Plain data or a struct as `json` or `yaml`, without a newline at the end."""
    builtins = msgspec.to_builtins(data)
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(builtins), indent=2).decode()
    import yaml

    text = yaml.safe_dump(builtins, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return str(text).rstrip("\n")


def as_list(items: Sequence[Plain]) -> Plain:
    """Several objects as one, the way kubectl does it."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def name_of(kind: Kind | str, name: str) -> str:
    """`ippool/default`: what commands print, and what they take."""
    word = kind if isinstance(kind, str) else kind.kind
    return f"{word.lower()}/{name}"


_TELLING = ("Attachment", "Event", "Connection")
"""Kinds whose columns tell more than their names."""


class Sheet:
    """Rows of one kind for `weft get`. Objects this release cannot read keep name and age."""

    def __init__(
        self,
        kind: Kind,
        *,
        wide: bool = False,
        namespaces: bool = False,
        labels: bool = False,
        age: bool = True,
    ) -> None:
        self.kind = kind
        self._columns = [*kind.columns, *(kind.wide if wide else ())]
        self._namespaces = namespaces and kind.namespaced
        self._labels = labels
        self._named = kind.kind not in _TELLING
        self._aged = age and kind.kind != "Event"

    @property
    def headings(self) -> list[str]:
        """The first line."""
        headings = ["NAMESPACE"] if self._namespaces else []
        headings += ["NAME"] if self._named else []
        headings += ["LAST SEEN"] if self.kind.kind == "Event" else []
        headings += [heading for heading, _ in self._columns]
        headings += ["AGE"] if self._aged else []
        return headings + (["LABELS"] if self._labels else [])

    def row(self, data: Plain) -> list[str]:
        """One object's line."""
        metadata = data.get("metadata", {})
        since = age(str(metadata.get("creationTimestamp", "")))
        cells = [str(metadata.get("namespace", ""))] if self._namespaces else []
        cells += [str(metadata.get("name", ""))] if self._named else []
        cells += [since] if self.kind.kind == "Event" else []
        cells += self._cells(data)
        cells += [since] if self._aged else []
        if self._labels:
            labels = metadata.get("labels", {})
            cells.append(",".join(f"{key}={value}" for key, value in labels.items()) or "<none>")
        return cells

    def _cells(self, data: Plain) -> list[str]:
        try:
            item = decode_shown(data)
        except WeftError:
            return ["?"] * len(self._columns)  # made by another release
        read: list[Callable[[Any], str]] = [read for _, read in self._columns]
        return [each(item) for each in read]

    def text(self, items: Sequence[Plain], *, header: bool = True) -> str:
        """The whole table."""
        return table(self.headings, [self.row(item) for item in items], header=header)


def echo(text: str) -> None:
    """A text on standard output."""
    typer.echo(text)


def complain(text: str) -> None:
    """A text on standard error."""
    typer.echo(text, err=True)
