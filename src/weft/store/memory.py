"""A store in memory: for tests, labs and as the shortest statement of the contract.

Nothing survives the process. The durable one is `sqlite.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from weft.model.errors import NotReady
from weft.store.contract import (
    Change,
    Entry,
    Event,
    Listing,
    Watch,
    check_changes,
    compacted,
    conflict,
    holds,
)
from weft.store.held import Held
from weft.store.watchers import QUEUE_LIMIT, Watchers, under

HISTORY_LIMIT = 10_000


class MemoryStore:
    """A `Store` whose life is the process's."""

    def __init__(self, *, history: int = HISTORY_LIMIT, queue: int = QUEUE_LIMIT) -> None:
        self._entries: dict[str, Entry] = {}
        self._revision = 0
        self._compacted = 0  # changes up to this revision are no longer in the history
        self._history: deque[Sequence[Event]] = deque()
        self._history_events = 0
        self._history_limit = history
        self._watchers = Watchers(queue)
        self._held = Held(self.commit)
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none."""
        self._check_open()
        return self._entries.get(key)

    async def list(self, prefix: str) -> Listing:
        """All entries whose key begins with `prefix`, by key. O(n log n) in all entries."""
        self._check_open()
        items = sorted(
            (entry for key, entry in self._entries.items() if key.startswith(prefix)),
            key=lambda entry: entry.key,
        )
        return Listing(items=tuple(items), revision=self._revision)

    async def commit(self, changes: Sequence[Change]) -> int:
        """Make all changes or none; returns the store's revision afterwards."""
        self._check_open()
        check_changes(changes)
        for change in changes:
            entry = self._entries.get(change.key)
            found = None if entry is None else entry.revision
            if not holds(change.expected, found):
                raise conflict(change, found)
        effective = [
            change for change in changes if change.value is not None or change.key in self._entries
        ]
        if not effective:
            return self._revision
        self._revision += 1
        events = []
        for change in effective:
            if change.value is None:
                del self._entries[change.key]
            else:
                self._entries[change.key] = Entry(
                    key=change.key, value=change.value, revision=self._revision
                )
            events.append(Event(key=change.key, value=change.value, revision=self._revision))
        self._remember(events)
        self._watchers.publish(events)
        return self._revision

    def watch(self, prefix: str, after: int) -> Watch:
        """Every change under `prefix` later than the revision `after`, from this call on."""
        self._check_open()
        if not self._compacted <= after <= self._revision:
            return self._watchers.refuse(prefix, compacted(after, self._compacted))
        backlog: list[Event] = []
        for events in self._history:
            if events[0].revision > after:
                backlog.extend(under(prefix, events))
        return self._watchers.subscribe(prefix, backlog)

    async def hold(self, key: str, value: bytes, seconds: float) -> None:
        """Write an entry that goes by itself unless it is held again within that time."""
        await self._held.hold(key, value, seconds)

    async def close(self) -> None:
        """End all watches. Idempotent."""
        self._closed = True
        self._held.close()
        self._watchers.close()

    def _remember(self, events: Sequence[Event]) -> None:
        self._history.append(events)
        self._history_events += len(events)
        while self._history_events > self._history_limit:
            dropped = self._history.popleft()
            self._history_events -= len(dropped)
            self._compacted = dropped[0].revision

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the store is closed", reason="store-unavailable")
