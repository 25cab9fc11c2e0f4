"""Streams of changes for `weft get --watch`.

Objects are followed through the store's own watch, so nothing is missed between the list and the
first change. Attachments and events have no history: they are looked at twice a second while
somebody watches, and not at all otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

from weft.agent.resources import prefix_of, selects, views_of
from weft.agent.services import Services
from weft.model.errors import WeftError
from weft.model.kinds import Kind, encode_object, from_bytes
from weft.model.metadata import API_VERSION, Object
from weft.store.contract import Entry, Event
from weft.wire.api import Plain, WatchItem, WatchParams
from weft.wire.views import find_shown_kind, is_view

LOOK_EVERY = 0.5  # seconds, for what has no history


class Streams:
    """The method `watch`."""

    def __init__(self, services: Services, *, look_every: float = LOOK_EVERY) -> None:
        self._services = services
        self._look_every = look_every

    def watch(self, params: WatchParams) -> AsyncGenerator[WatchItem, None]:
        """What there is (unless `after` is given), then every change; ends only by an error."""
        kind = find_shown_kind(params.kind)
        return self._views(kind, params) if is_view(kind) else self._objects(kind, params)

    async def _objects(self, kind: Kind, params: WatchParams) -> AsyncGenerator[WatchItem, None]:
        store = self._services.store
        prefix = prefix_of(kind, params.namespace)
        shown: set[str] = set()
        after = params.after
        if after is None:
            listing = await store.list(prefix)
            after = listing.revision
            for entry in listing.items:
                item = _chosen(entry.key, entry.value, entry.revision, params)
                if item is not None:
                    shown.add(entry.key)
                    yield WatchItem(type="ADDED", object=encode_object(item), revision=after)
        elif after >= 0:
            listing = await store.list(prefix)
            shown = _shown_at(listing.items, after, params)
        changes = store.watch(prefix, after)
        try:
            async for event in changes:
                change = _change(kind, event, params, shown)
                if change is not None:
                    yield change
        finally:
            await changes.aclose()

    async def _views(self, kind: Kind, params: WatchParams) -> AsyncGenerator[WatchItem, None]:
        before: dict[str, Object] = {}
        while True:
            now = {
                item.metadata.name: item
                for item in await views_of(self._services, kind, params.namespace)
                if params.name in (None, item.metadata.name) and selects(params.selector, item)
            }
            for name, item in now.items():
                if before.get(name) != item:
                    word: Literal["ADDED", "MODIFIED"] = "MODIFIED" if name in before else "ADDED"
                    yield WatchItem(type=word, object=encode_object(item))
            # an event that falls out of memory is forgotten, not undone
            for name in () if kind.kind == "Event" else before.keys() - now.keys():
                yield WatchItem(type="DELETED", object=encode_object(before[name]))
            before = now
            await asyncio.sleep(self._look_every)


def _shown_at(entries: tuple[Entry, ...], after: int, params: WatchParams) -> set[str]:
    """Keys that the watcher has from its own list: those not written since."""
    old = [entry for entry in entries if entry.revision <= after]
    return {
        entry.key
        for entry in old
        if _chosen(entry.key, entry.value, entry.revision, params) is not None
    }


def _chosen(key: str, value: bytes, revision: int, params: WatchParams) -> Object | None:
    """The object if name and selector choose it; None also for what cannot be read."""
    if params.name is not None and key.rpartition("/")[2] != params.name:
        return None
    try:
        item = from_bytes(value, revision)
    except WeftError:
        return None  # `weft get` without --watch reports it
    return item if selects(params.selector, item) else None


def _change(kind: Kind, event: Event, params: WatchParams, shown: set[str]) -> WatchItem | None:
    item = (
        _chosen(event.key, event.value, event.revision, params) if event.value is not None else None
    )
    if item is not None:
        word: Literal["ADDED", "MODIFIED"] = "MODIFIED" if event.key in shown else "ADDED"
        shown.add(event.key)
        return WatchItem(type=word, object=encode_object(item), revision=event.revision)
    if event.key not in shown:
        return None
    shown.discard(event.key)
    return WatchItem(type="DELETED", object=_remains(kind, event.key), revision=event.revision)


def _remains(kind: Kind, key: str) -> Plain:
    """What is known of an object that is gone: its name."""
    parts = key.split("/")[2:]
    metadata = {"name": parts[-1]} | ({"namespace": parts[0]} if kind.namespaced else {})
    return {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata}
