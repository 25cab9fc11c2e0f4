"""`weft describe`: one object in full, with the events about it."""

from __future__ import annotations

from typing import Any

import typer

from weft.cli.client import Client
from weft.cli.columns import age, coloured, plain, table
from weft.cli.names import Named, parse_targets
from weft.cli.options import Namespace, Targets, client_of
from weft.cli.output import complain, echo, name_of
from weft.model.metadata import DEFAULT_NAMESPACE
from weft.wire.api import EventsParams, GetParams, ListParams, Plain

INDENT = "  "
MOST_EVENTS = 500


def describe(
    ctx: typer.Context, targets: Targets, namespace: Namespace = DEFAULT_NAMESPACE
) -> None:
    """Show everything about objects, and the events about them.

    Without a name, all objects of the kind are described.

    \b
    Examples:
      weft describe ippool default
      weft describe pod web-0 -n shop
      weft describe attachment 3f2a91     by link, pod (NAMESPACE/NAME) or container id
    """
    client = client_of(ctx)
    described = [
        text for each in parse_targets(targets) for text in _described(client, each, namespace)
    ]
    if described:
        echo("\n\n".join(described))
    else:
        complain("No resources found.")


def _described(client: Client, each: Named, namespace: str) -> list[str]:
    if each.name is None:
        within = namespace if each.kind.namespaced else None
        items = client.call("list", ListParams(kind=each.kind.kind, namespace=within)).items
    else:
        within = namespace if each.kind.namespaced else ""
        items = [
            client.call("get", GetParams(kind=each.kind.kind, name=each.name, namespace=within))
        ]
    events = client.call("events", EventsParams(limit=MOST_EVENTS)).items if items else ()
    return [_text(item, [event for event in events if _is_about(event, item)]) for item in items]


def _is_about(event: Plain, item: Plain) -> bool:
    """Whether the event names the object by name, kind/name, link, container or key."""
    metadata, spec = item.get("metadata", {}), item.get("spec", {})
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    names = {name, name_of(item["kind"], name), f"{item['kind']} {name}"}
    if namespace:
        names.add(f"{namespace}/{name}")
    if item["kind"] == "Attachment":
        key = (spec.get("network", ""), spec.get("container", ""), spec.get("ifname", ""))
        names |= {"/".join(key), key[1], spec.get("pod", "")}
    return event.get("spec", {}).get("about") in names - {""}


def _text(item: Plain, events: list[Plain]) -> str:
    metadata = item.get("metadata", {})
    fields: list[tuple[str, Any]] = [("Name", metadata.get("name")), ("Kind", item.get("kind"))]
    if metadata.get("namespace"):
        fields.append(("Namespace", metadata["namespace"]))
    fields += [("Labels", metadata.get("labels")), ("Annotations", metadata.get("annotations"))]
    if created := metadata.get("creationTimestamp"):
        fields.append(("Created", f"{created} ({age(created)} ago)"))
    fields += [("Spec", item[part]) for part in ("spec",) if item.get(part)]
    fields += [("Status", item[part]) for part in ("status",) if item.get(part)]
    width = max(len(name) for name, _ in fields) + 3
    lines = []
    for name, value in fields:
        if isinstance(value, dict | list) and value:
            lines += [coloured(f"{name}:", "bold"), *_nested(value, 1)]
        else:
            lines.append(coloured(f"{name + ':':<{width}}", "bold") + _scalar(value))
    lines.append(coloured("Events:", "bold") + ("" if events else "  <none>"))
    if events:
        rows = [
            [age(event["metadata"].get("creationTimestamp", "")), *_cells(event["spec"])]
            for event in events
        ]
        shown = table(["LAST SEEN", "LEVEL", "REASON", "COUNT", "MESSAGE"], rows)
        lines += [INDENT + line for line in shown.splitlines()]
    return "\n".join(lines)


def _cells(spec: Plain) -> list[str]:
    return [
        str(spec.get("level", "")),
        str(spec.get("reason", "")),
        str(spec.get("count", 1)),
        str(spec.get("message", "")),
    ]


def _nested(value: Any, depth: int) -> list[str]:
    """A mapping or list, one line a leaf; names in words: `blockSize` becomes `Block Size`."""
    lines: list[str] = []
    pairs = value.items() if isinstance(value, dict) else (("-", each) for each in value)
    for name, inner in pairs:
        label = name if name == "-" or depth > 1 else _words(name)
        colon = "" if label == "-" else ":"
        if isinstance(inner, dict | list) and inner:
            lines += [f"{INDENT * depth}{plain(label)}{colon}", *_nested(inner, depth + 1)]
        else:
            lines.append(f"{INDENT * depth}{plain(label)}{colon}  {_scalar(inner)}")
    return lines


def _words(name: str) -> str:
    spaced = "".join(f" {each}" if each.isupper() else each for each in name)
    return spaced[:1].upper() + spaced[1:] if name.isalnum() and name.isascii() else name


def _scalar(value: Any) -> str:
    if value is None or value in ({}, []):
        return "<none>"
    if isinstance(value, bool):
        return str(value).lower()
    return plain(str(value))
