"""What people may do with objects: list, get, apply, delete, label.

Each change is read, computed, and committed if nothing changed meanwhile; a conflict repeats it.
What a manifest says of uid, revision, times and status is not believed: those are the store's
side. Rules for whole kinds are in `_BY_AGENTS`; rules between pools at the end. How changes look
to watchers: `streams.py`; attachments and events: `shown.py`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from weft.agent.services import Services
from weft.agent.shown import (
    attachment_views,
    event_views,
    one_attachment,
    port_views,
    timestamp,
)
from weft.kernel import listeners
from weft.model.errors import Conflict, Invalid, NotFound, WeftError
from weft.model.ip_block import IPBlock
from weft.model.ip_pool import IPPool, overlaps, pool_prefix
from weft.model.kinds import (
    KINDS,
    Kind,
    check_object,
    decode_object,
    encode_object,
    from_bytes,
    key_of,
    object_key,
    prefix_of_kind,
    to_bytes,
)
from weft.model.metadata import DEFAULT_NAMESPACE, Metadata, Object
from weft.model.names import check_label_name, check_name, printable
from weft.model.selectors import Selector, matches
from weft.store.contract import ABSENT, MAX_CHANGES, Change, Entry, Store
from weft.wire.api import (
    ApplyParams,
    Changed,
    DeleteParams,
    EventsParams,
    GetParams,
    LabelParams,
    ListParams,
    Objects,
    Plain,
)
from weft.wire.views import find_shown_kind, is_view

ATTEMPTS = 8
T = TypeVar("T")

_BY_AGENTS = {
    "IPBlock": "blocks are claimed and given back by agents; to empty a pool, disable it "
    "(spec.disabled: true)",
    "Attachment": "an attachment comes and goes with its container; its pod can be labelled",
    "Event": "events are written by the agent",
}
_LABEL_MAKES = ("Pod", "Namespace")
"""Kinds that exist only for their labels in standalone mode: labelling makes the object."""


class Resources:
    """The methods list, get, apply, delete, label and events."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._turn = asyncio.Lock()  # pools are judged together: one change at a time

    @property
    def _store(self) -> Store:
        return self._services.store

    async def list(self, params: ListParams) -> Objects:
        """All objects of a kind that the namespace and selector choose."""
        kind = find_shown_kind(params.kind)
        if is_view(kind):
            items = await views_of(self._services, kind, params.namespace)
            chosen = [item for item in items if selects(params.selector, item)]
            return Objects(items=tuple(encode_object(item) for item in chosen))
        listing = await self._store.list(prefix_of(kind, params.namespace))
        found, unreadable = decode_all(listing.items)
        return Objects(
            items=tuple(encode_object(item) for item in found if selects(params.selector, item)),
            revision=listing.revision,
            unreadable=tuple(unreadable),
        )

    async def get(self, params: GetParams) -> Plain:
        """One object; raises NotFound."""
        kind = find_shown_kind(params.kind)
        if kind.kind == "Attachment":
            return encode_object(one_attachment(self._services.attachments, params.name))
        if is_view(kind):
            for item in await views_of(self._services, kind, None):
                if item.metadata.name == params.name:
                    return encode_object(item)
            raise _absent(kind, params.name)
        key = checked_key(kind, params.name, params.namespace)
        entry = await self._store.get(key)
        if entry is None:
            raise _absent(kind, params.name)
        return encode_object(from_bytes(entry.value, entry.revision))

    async def events(self, params: EventsParams) -> Objects:
        """The newest events, oldest of them first."""
        found = event_views(self._services.log.events, params.about, max(0, params.limit))
        return Objects(items=tuple(encode_object(item) for item in found))

    async def apply(self, params: ApplyParams) -> Changed:
        """Create the object, or make spec, labels and annotations what the manifest says.

        Labels and annotations that the manifest does not mention at all stay as they are.
        """
        _refuse_agents_kind(params.object.get("kind"), "applied")
        wanted = decode_object(params.object)

        async def attempt() -> Changed:
            key = object_key(wanted)
            entry = await self._store.get(key)
            if entry is None:
                _refuse_new_node(wanted)
                item = _born(wanted)
            else:
                item = _merged(from_bytes(entry.value, entry.revision), wanted, params.object)
            await self._judge(item)
            if entry is not None and to_bytes(item) == entry.value:
                return _changed(wanted, "unchanged")
            if not params.dry_run:
                await self._write(key, item, entry)
            return _changed(wanted, "created" if entry is None else "configured")

        return await self._in_turn(attempt)

    async def delete(self, params: DeleteParams) -> Changed:
        """Delete one object; a pool goes with its blocks, and only when nobody uses it."""
        kind = find_shown_kind(params.kind)
        _refuse_agents_kind(kind.kind, "deleted")
        if kind.kind == "Node" and params.name == self._services.node:
            raise Invalid(
                f"node {params.name} is this agent's own and would return at once; stop its "
                "agent first and delete the node from another one",
                field="params.name",
                reason="owned-by-agent",
            )
        key = checked_key(kind, params.name, params.namespace)

        async def attempt() -> Changed:
            entry = await self._store.get(key)
            if entry is None:
                raise _absent(kind, params.name)
            changes = [Change(key=key, value=None, expected=entry.revision)]
            if kind.kind == "IPPool" and not params.force:
                # forced: addresses stay with their pods, and so do the blocks they are from
                changes = [*await self._blocks_to_drop(params.name), *changes]
            for start in range(0, len(changes), MAX_CHANGES):  # the pool itself comes last
                await self._store.commit(changes[start : start + MAX_CHANGES])
            return Changed(
                kind=kind.kind,
                name=params.name,
                namespace=params.namespace if kind.namespaced else "",
                result="deleted",
            )

        return await self._in_turn(attempt)

    async def label(self, params: LabelParams) -> Changed:
        """Set and remove labels; without `overwrite` a label keeps the value that it has."""
        kind = find_shown_kind(params.kind)
        _refuse_agents_kind(kind.kind, "labelled")
        key = checked_key(kind, params.name, params.namespace)

        async def attempt() -> Changed:
            entry = await self._store.get(key)
            if entry is None and (kind.kind not in _LABEL_MAKES or not params.set):
                raise _absent(kind, params.name)
            item = (
                _born(_empty(kind, params.name, params.namespace))
                if entry is None
                else from_bytes(entry.value, entry.revision)
            )
            labels = _relabelled(dict(item.metadata.labels), params)
            if labels == item.metadata.labels:
                return _changed(item, "unchanged")
            metadata = msgspec.structs.replace(item.metadata, labels=labels)
            item = msgspec.structs.replace(item, metadata=metadata)
            check_object(item)
            await self._write(key, item, entry)
            return _changed(item, "labeled" if params.set else "unlabeled")

        return await self._in_turn(attempt)

    async def _in_turn(self, attempt: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            for _ in range(ATTEMPTS - 1):
                try:
                    return await attempt()
                except Conflict as error:
                    if error.reason != "conflict":
                        raise
            return await attempt()

    async def _write(self, key: str, item: Object, entry: Entry | None) -> None:
        expected = ABSENT if entry is None else entry.revision
        await self._store.commit([Change(key=key, value=to_bytes(item), expected=expected)])

    async def _judge(self, item: Object) -> None:
        """Whether the object goes together with the others."""
        if not isinstance(item, IPPool):
            return
        listing = await self._store.list(prefix_of_kind("IPPool"))
        others, _ = decode_all(listing.items)
        name = item.metadata.name
        pools = [each for each in others if isinstance(each, IPPool) and each.metadata.name != name]
        for pair in overlaps([*pools, item]):
            if name in pair:
                other = pair[0] if pair[1] == name else pair[1]
                range_ = next(pool_prefix(pool) for pool in pools if pool.metadata.name == other)
                raise Invalid(
                    f"spec.cidr: {item.spec.cidr} overlaps pool {other} ({range_})",
                    field="spec.cidr",
                    reason="pool-overlap",
                )

    async def _blocks_to_drop(self, pool: str) -> Sequence[Change]:
        """The pool's blocks, which go with it; raises Conflict while addresses are in use."""
        listing = await self._store.list(prefix_of_kind("IPBlock"))
        blocks = [
            (entry, item)
            for entry, item in decoded(listing.items)
            if isinstance(item, IPBlock) and item.spec.pool == pool
        ]
        use = next((each for each in self._services.ipam_show().pools if each.name == pool), None)
        others = [item for _, item in blocks if item.spec.node != self._services.node]
        in_use = []
        if use is not None and use.used:
            in_use.append(f"{use.used} of its addresses are in use on this node")
        if others:
            nodes = sorted({item.spec.node for item in others})
            in_use.append(f"{len(others)} of its blocks are held by {', '.join(nodes[:5])}")
        if in_use:
            raise Conflict(
                f"pool {pool}: {' and '.join(in_use)}; set spec.disabled: true and apply it, wait "
                "until `weft ipam show` says 0 used, then delete it (or --force: those pods keep "
                "their addresses)",
                reason="pool-in-use",
            )
        return [Change(key=entry.key, value=None, expected=entry.revision) for entry, _ in blocks]


async def views_of(services: Services, kind: Kind, namespace: str | None) -> Sequence[Object]:
    """All objects of a kind that is shown only."""
    if kind.kind == "Port":
        entries = list(services.ports)
        return port_views(entries, await asyncio.to_thread(listeners.everyone))
    if kind.kind == "Attachment":
        return attachment_views(services.attachments, namespace)
    if kind.kind == "Connection":
        raise Invalid(
            "connections may be too many for one answer; `weft get connections` takes them as a "
            "stream (method connections)",
            field="params.kind",
            reason="invalid-call",
        )
    return event_views(services.log.events)


def selects(selector: Selector | None, item: Object) -> bool:
    """Whether the selector chooses the object; what cannot be told is not chosen."""
    return matches(selector, item.metadata.labels) is True


def prefix_of(kind: Kind, namespace: str | None) -> str:
    """Where objects of the kind are kept; a namespace counts only where the kind has any."""
    return prefix_of_kind(kind.kind, namespace or "" if kind.namespaced else "")


def checked_key(kind: Kind, name: str, namespace: str) -> str:
    """The object's key; raises Invalid for a name that nothing can have."""
    check_name(name, "params.name")
    if kind.namespaced:
        namespace = namespace or DEFAULT_NAMESPACE
        check_label_name(namespace, "params.namespace")
    return key_of(kind.kind, name, namespace)


def decoded(entries: Sequence[Entry]) -> list[tuple[Entry, Object]]:
    """Entries with their objects, without those that cannot be read."""
    pairs = []
    for entry in entries:
        try:
            pairs.append((entry, from_bytes(entry.value, entry.revision)))
        except WeftError:
            continue  # quarantined alone: `decode_all` reports it
    return pairs


def decode_all(entries: Sequence[Entry]) -> tuple[list[Object], list[str]]:
    """The objects, and a line for each entry that is none."""
    found: list[Object] = []
    unreadable: list[str] = []
    for entry in entries:
        try:
            found.append(from_bytes(entry.value, entry.revision))
        except WeftError as error:
            unreadable.append(f"{entry.key}: {error.message}")
    return found, unreadable


def _changed(item: Object, result: Any) -> Changed:
    metadata = item.metadata
    return Changed(kind=item.kind, name=metadata.name, namespace=metadata.namespace, result=result)


def _absent(kind: Kind, name: str) -> NotFound:
    return NotFound(f"{kind.kind.lower()} {printable(name)} not found")


def _refuse_agents_kind(kind: Any, verb: str) -> None:
    why = _BY_AGENTS.get(kind) if isinstance(kind, str) else None
    if why is not None:
        raise Invalid(f"{kind} cannot be {verb}: {why}", field="kind", reason="owned-by-agent")


def _refuse_new_node(wanted: Object) -> None:
    if wanted.kind == "Node":
        raise Invalid(
            f"node {wanted.metadata.name} does not exist, and a node is created by its own "
            "agent; start `weft agent` there",
            field="kind",
            reason="owned-by-agent",
        )


def _empty(kind: Kind, name: str, namespace: str) -> Object:
    metadata: Plain = {"name": name}
    if kind.namespaced:
        metadata["namespace"] = namespace or DEFAULT_NAMESPACE
    return KINDS[kind.kind].struct(metadata=Metadata(**metadata))


def _born(wanted: Object) -> Object:
    metadata = msgspec.structs.replace(
        wanted.metadata,
        uid=str(uuid.uuid4()),
        creation_timestamp=timestamp(time.time()),
        generation=1,
        resource_version="",
    )
    return _with(wanted, metadata=metadata, status=None)


def _merged(old: Object, wanted: Object, written: Plain) -> Object:
    """The manifest over what is stored; raises Invalid where a field cannot be changed."""
    KINDS[old.kind].check_change(old, wanted)
    said = written.get("metadata", {})
    spec_changed = getattr(old, "spec", None) != getattr(wanted, "spec", None)
    metadata = msgspec.structs.replace(
        old.metadata,
        labels=wanted.metadata.labels if "labels" in said else old.metadata.labels,
        annotations=wanted.metadata.annotations
        if "annotations" in said
        else old.metadata.annotations,
        generation=old.metadata.generation + spec_changed,
        resource_version="",
    )
    return _with(wanted, metadata=metadata, status=getattr(old, "status", None))


def _with(item: Object, *, metadata: Metadata, status: Any) -> Object:
    """The object with other metadata and, where its kind has one, another status."""
    changes: Plain = {"metadata": metadata}
    if "status" in item.__struct_fields__:
        changes["status"] = status
    return msgspec.structs.replace(item, **changes)


def _relabelled(labels: dict[str, str], params: LabelParams) -> dict[str, str]:
    for key, value in params.set.items():
        if not params.overwrite and labels.get(key, value) != value:
            raise Invalid(
                f"label {key} already has the value {printable(labels[key])}; repeat with "
                "--overwrite to change it",
                field=f"metadata.labels.{key}",
                reason="label-exists",
            )
        labels[key] = value
    for key in params.remove:
        labels.pop(key, None)
    return labels
