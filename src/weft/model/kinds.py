"""The table of kinds: one line each, and the way between plain data and an object.

A further kind is one file and one line of `KINDS`. Everything that treats kinds alike (store
keys, `weft get`, decoding, the reference page) reads this table. Text to plain data:
`manifests.py`; fields of the structs: the kinds' own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from weft.model.errors import Invalid
from weft.model.ip_block import IPBlock, check_block
from weft.model.ip_pool import IPPool, block_length, check_pool, check_pool_change
from weft.model.metadata import API_VERSION, DEFAULT_NAMESPACE, Object, check_metadata
from weft.model.names import did_you_mean, printable
from weft.model.node import Node, check_node, is_ready
from weft.model.pod import Namespace, Pod, check_namespace, check_pod
from weft.model.selectors import describe
from weft.model.strict import convert_strictly

Column = tuple[str, Callable[[Any], str]]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind is called, stored, checked and shown. `check*` raise `Invalid`."""

    kind: str
    plural: str
    short: tuple[str, ...]
    namespaced: bool
    struct: type[Object]
    check: Callable[[Any], None]
    check_change: Callable[[Any, Any], None] = lambda old, new: None
    columns: tuple[Column, ...]
    wide: tuple[Column, ...] = ()


def _joined(values: Any) -> str:
    return ",".join(values) or "-"


KINDS: dict[str, Kind] = {
    kind.kind: kind
    for kind in (
        Kind(
            kind="IPPool",
            plural="ippools",
            short=("pool", "pools", "ipp"),
            namespaced=False,
            struct=IPPool,
            check=check_pool,
            check_change=check_pool_change,
            columns=(
                ("CIDR", lambda pool: pool.spec.cidr),
                ("BLOCK SIZE", lambda pool: str(block_length(pool))),
                ("DISABLED", lambda pool: str(pool.spec.disabled).lower()),
            ),
            wide=(
                ("NODES", lambda pool: describe(pool.spec.node_selector)),
                ("NAMESPACES", lambda pool: describe(pool.spec.namespace_selector)),
                ("EXCLUDES", lambda pool: _joined(pool.spec.excludes)),
                ("RESERVATIONS", lambda pool: str(len(pool.spec.reservations))),
            ),
        ),
        Kind(
            kind="IPBlock",
            plural="ipblocks",
            short=("block", "blocks", "ipb"),
            namespaced=False,
            struct=IPBlock,
            check=check_block,
            columns=(
                ("CIDR", lambda block: block.spec.cidr),
                ("POOL", lambda block: block.spec.pool),
                ("NODE", lambda block: block.spec.node),
            ),
            wide=(("SEQUENCE", lambda block: str(block.spec.sequence)),),
        ),
        Kind(
            kind="Node",
            plural="nodes",
            short=("no",),
            namespaced=False,
            struct=Node,
            check=check_node,
            columns=(
                ("READY", is_ready),
                ("VERSION", lambda node: (node.status.version if node.status else "") or "-"),
                ("FAMILIES", lambda node: _joined(node.status.families if node.status else ())),
            ),
            wide=(
                ("ADDRESSES", lambda node: _joined(node.spec.addresses)),
                ("MTU", lambda node: str(node.status.mtu if node.status else "-")),
                ("KERNEL", lambda node: (node.status.kernel if node.status else "") or "-"),
            ),
        ),
        Kind(
            kind="Pod",
            plural="pods",
            short=("po",),
            namespaced=True,
            struct=Pod,
            check=check_pod,
            columns=(
                ("ADDRESSES", lambda pod: _joined(pod.status.addresses if pod.status else ())),
                ("NODE", lambda pod: (pod.status.node if pod.status else "") or "-"),
            ),
            wide=(("LABELS", lambda pod: _labels(pod.metadata.labels)),),
        ),
        Kind(
            kind="Namespace",
            plural="namespaces",
            short=("ns",),
            namespaced=False,
            struct=Namespace,
            check=check_namespace,
            columns=(("LABELS", lambda namespace: _labels(namespace.metadata.labels)),),
        ),
    )
}


def find_kind(word: str) -> Kind:
    """The kind with this name, plural or short name, in any case; else `Invalid`."""
    folded = word.casefold()
    for kind in KINDS.values():
        if folded in (kind.kind.casefold(), kind.plural, *kind.short):
            return kind
    known = [name for kind in KINDS.values() for name in (kind.kind, kind.plural, *kind.short)]
    hint = did_you_mean(word, known) or f"; known are {', '.join(KINDS)}"
    raise Invalid(f"no kind is called {printable(word)}{hint}", field="kind", reason="unknown-kind")


def decode_object(data: Mapping[str, Any]) -> Object:
    """A manifest's plain data as a checked object; `Invalid` names the field.

    A namespaced object without a namespace goes to `default`.
    """
    if not isinstance(data, dict):
        raise _invalid("", "an object must be a mapping with apiVersion, kind and metadata")
    kind = _kind_of(data)
    decoded = convert_strictly(data, kind.struct, reason="invalid-object")
    if kind.namespaced and not decoded.metadata.namespace:
        metadata = msgspec.structs.replace(decoded.metadata, namespace=DEFAULT_NAMESPACE)
        decoded = msgspec.structs.replace(decoded, metadata=metadata)
    check_object(decoded)
    return decoded


def check_object(item: Object) -> None:
    """Raise `Invalid` for the first thing wrong with the object."""
    kind = KINDS[item.kind]
    check_metadata(item.metadata, namespaced=kind.namespaced)
    kind.check(item)


def encode_object(item: Object) -> dict[str, Any]:
    """The object as plain data, apiVersion and kind first, without fields left at default."""
    plain = cast(dict[str, Any], msgspec.json.decode(msgspec.json.encode(item)))
    ordered = {"apiVersion": item.api_version, "kind": item.kind}
    return ordered | {key: value for key, value in plain.items() if key not in ordered}


def to_bytes(item: Object) -> bytes:
    """What the store keeps: compact JSON. The revision is the store's, so it is left out."""
    metadata = msgspec.structs.replace(item.metadata, resource_version="")
    return msgspec.json.encode(encode_object(msgspec.structs.replace(item, metadata=metadata)))


def from_bytes(value: bytes, revision: int) -> Object:
    """The object that the store keeps, with its revision; `Invalid` if it is none."""
    try:
        data = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid("", f"the stored value is not JSON: {error}") from error
    item = decode_object(data)
    metadata = msgspec.structs.replace(item.metadata, resource_version=str(revision))
    return msgspec.structs.replace(item, metadata=metadata)


def key_of(kind: str, name: str, namespace: str = "") -> str:
    """The store's key of an object: `/plural/name` or `/plural/namespace/name`."""
    entry = KINDS[kind]
    return f"/{entry.plural}/{namespace}/{name}" if entry.namespaced else f"/{entry.plural}/{name}"


def object_key(item: Object) -> str:
    """The store's key of this object."""
    return key_of(item.kind, item.metadata.name, item.metadata.namespace)


def prefix_of_kind(kind: str, namespace: str = "") -> str:
    """What the keys of all objects of a kind begin with, or of those in one namespace."""
    prefix = f"/{KINDS[kind].plural}/"
    return f"{prefix}{namespace}/" if namespace else prefix


def _labels(labels: Mapping[str, str]) -> str:
    return _joined([f"{key}={value}" for key, value in labels.items()])


def _kind_of(data: Mapping[str, Any]) -> Kind:
    version, name = data.get("apiVersion"), data.get("kind")
    if version != API_VERSION:
        shown = printable(version) if isinstance(version, str) else "nothing usable"
        raise _invalid("apiVersion", f"must be {API_VERSION}, found {shown}")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        shown = printable(name) if isinstance(name, str) else "nothing usable"
        hint = did_you_mean(name, KINDS) if isinstance(name, str) else ""
        hint = hint or f"; known are {', '.join(KINDS)}"
        raise Invalid(f"kind: found {shown}{hint}", field="kind", reason="unknown-kind")
    return kind


def _invalid(field: str, message: str) -> Invalid:
    where = f"{field}: " if field else ""
    return Invalid(f"{where}{message}", field=field, reason="invalid-object")
