"""Text to plain data: JSON or YAML of several documents, as hostile as it may come.

Refused with a clear message: more than 1 MiB, nesting beyond 64, aliases that multiply (the
"billion laughs"), duplicate and non-string keys, NaN and infinities, tags. YAML is read with the
core schema of YAML 1.2: only true and false are booleans, so that `ipv4: on` and a label `no`
stay text, and dates stay text. PyYAML is imported inside the function: the agent reads no YAML
after its start. Plain data to objects: `kinds.py`; to settings: `settings.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from weft.model.errors import Invalid
from weft.model.names import printable

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 200_000  # scalars, lists and mappings with every alias written out
MAX_DOCUMENTS = 10_000


def read_manifests(
    text: str | bytes, *, source: str = "manifest", reason: str = "invalid-object"
) -> list[dict[str, Any]]:
    """Every object in the text, the items of a `kind: List` one by one; empty documents skipped.

    Raises `Invalid` (with `reason`); `source` is what messages call the text.
    """
    try:
        documents = _documents(_checked_text(text))
        objects: list[dict[str, Any]] = []
        for document in documents:
            objects.extend(_objects_in(document))
        if len(objects) > MAX_DOCUMENTS:
            raise _Refused(f"{len(objects)} objects; at most {MAX_DOCUMENTS} are allowed")
    except _Refused as refused:
        raise Invalid(f"{source}: {refused}", field=source, reason=reason) from None
    return objects


class _Refused(ValueError):
    """Why a text is not read; private to this file."""


def _checked_text(text: str | bytes) -> str:
    size = len(text)
    if size <= MAX_BYTES and isinstance(text, str):
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _Refused(f"{size} bytes; at most {MAX_BYTES} are allowed")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused(f"not UTF-8 at byte {error.start}") from None


def _documents(text: str) -> list[Any]:
    documents = [_read_json(text)] if text.lstrip()[:1] in ("{", "[") else None
    if documents is None or documents == [_NOT_JSON]:
        documents = _read_yaml(text)
    for document in documents:
        _check_values(document)
    return documents


_NOT_JSON: Any = object()


def _read_json(text: str) -> Any:
    """The value, or `_NOT_JSON`: YAML in flow style begins with the same brackets."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise _Refused(f"nested deeper than {MAX_DEPTH}") from None
    except _Refused:
        raise
    except ValueError:
        return _NOT_JSON


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # set.add in a condition
        raise _Refused(f"the key {printable(twice)} stands there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"{name} is not a usable number")


def _objects_in(document: Any) -> Iterable[dict[str, Any]]:
    if document is None:
        return
    if not isinstance(document, dict):
        raise _Refused(f"a document must be a mapping, found {type(document).__name__}")
    if document.get("kind") != "List":
        yield document
        return
    items = document.get("items")
    if not isinstance(items, list):
        raise _Refused("items: a List must have a list of items")
    for item in items:
        if not isinstance(item, dict):
            raise _Refused(f"items: an item must be a mapping, found {type(item).__name__}")
        yield item


def _check_values(document: Any) -> None:
    """Depth, count and numbers of the value as it would be written out, without recursion."""
    count = 0
    pending: list[tuple[Any, int]] = [(document, 1)]
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH}")
        if count > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values")
        match value:
            case dict():
                pending.extend((each, depth + 1) for each in value.values())
            case list():
                pending.extend((each, depth + 1) for each in value)
            case float() if not math.isfinite(value):
                raise _Refused(f"{value} is not a usable number")
            case _:
                pass


def _read_yaml(text: str) -> list[Any]:
    import yaml

    loader = _yaml_loader()
    try:
        _check_events(yaml.parse(text, Loader=loader))
        return list(yaml.load_all(text, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        if "nesting depth" in problem:  # a limit of PyYAML's own, since 6.0.4
            raise _Refused(f"nested deeper than {MAX_DEPTH}") from None
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _Refused(f"{where}{printable(problem, 200)[1:-1]}") from None
    except RecursionError:
        raise _Refused(f"nested deeper than {MAX_DEPTH}") from None
    except _Refused:
        raise
    except ValueError as error:  # a number with more digits than Python converts
        raise _Refused(printable(str(error), 200)[1:-1]) from None


def _check_events(events: Iterable[Any]) -> None:
    """Refuse depth and multiplied aliases while the text is still a flat stream of events."""
    import yaml

    sizes: dict[str, int] = {}  # anchor -> values it stands for; open ones are absent
    stack: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        size = 1
        match event:
            case yaml.events.DocumentStartEvent():
                sizes = {}
                continue
            case yaml.events.MappingStartEvent() | yaml.events.SequenceStartEvent():
                stack.append((event.anchor, total))
                if len(stack) > MAX_DEPTH:
                    raise _Refused(f"nested deeper than {MAX_DEPTH}")
            case yaml.events.MappingEndEvent() | yaml.events.SequenceEndEvent():
                anchor, before = stack.pop()
                if anchor is not None:
                    sizes[anchor] = total - before
                continue
            case yaml.events.AliasEvent():
                if event.anchor not in sizes:
                    name = printable(str(event.anchor))
                    raise _Refused(f"alias {name} is unknown or inside itself")
                size = sizes[event.anchor]
            case yaml.events.ScalarEvent():
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            case _:
                continue
        total += size
        if total > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values with aliases written out")


def _yaml_loader() -> Any:
    """A loader of plain data with the core schema; libyaml's scanner where it is built in."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # the base is chosen above
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
            keys: set[str] = set()
            for key_node, _ in node.value:
                tag = key_node.tag
                if tag == "tag:yaml.org,2002:merge":
                    raise _Refused(f"line {key_node.start_mark.line + 1}: no merge keys")
                if tag != "tag:yaml.org,2002:str":
                    shown = printable(str(key_node.value))
                    line = key_node.start_mark.line + 1
                    raise _Refused(f"line {line}: the key {shown} is not text; quote it")
                if key_node.value in keys:
                    shown = printable(key_node.value)
                    line = key_node.start_mark.line + 1
                    raise _Refused(f"line {line}: the key {shown} stands there twice")
                keys.add(key_node.value)
            found: dict[str, Any] = super().construct_mapping(node, deep=deep)
            return found

    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            "-+.0123456789",
        ),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", "<"),
    ):
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})\Z"), list(first)
        )
    return Loader
