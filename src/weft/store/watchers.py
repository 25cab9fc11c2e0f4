"""The watchers of one store: bounded queues that end rather than grow.

Shared by the implementations that live in this process. Publishing never waits: a watcher whose
queue is full is ended with the reason `compacted`, and lists again. The contract they keep:
`contract.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from weft.model.errors import WeftError
from weft.store.contract import Event, fell_behind

QUEUE_LIMIT = 4096


class Subscription:
    """One watcher's queue. Made by `Watchers.subscribe`."""

    __slots__ = ("_closed", "_error", "_limit", "_owner", "_queue", "_wake", "prefix")

    def __init__(self, owner: Watchers, prefix: str, limit: int) -> None:
        self.prefix = prefix
        self._owner = owner
        self._limit = limit
        self._queue: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._error: WeftError | None = None
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._error is not None:
                raise self._error
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    async def aclose(self) -> None:
        """Stop watching; what was queued is dropped."""
        self._queue.clear()
        self._owner.forget(self)
        self.end()

    def allow(self, more: int) -> None:
        """That many events more than the limit may wait: a past that is longer than it."""
        self._limit += more

    def offer(self, events: Iterable[Event]) -> None:
        """Queue the events of one commit, or end the watcher when they do not fit."""
        self._queue.extend(events)
        if len(self._queue) > self._limit:
            self.fail(fell_behind(self._limit))
        self._signal()

    def fail(self, error: WeftError) -> None:
        """End the watcher with an error; what was queued is dropped."""
        self._queue.clear()
        self._error = error
        self._owner.forget(self)
        self._signal()

    def end(self) -> None:
        """No further events will come; queued ones are still given."""
        self._closed = True
        self._signal()

    def _signal(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Watchers:
    """All watchers of a store."""

    def __init__(self, limit: int = QUEUE_LIMIT) -> None:
        self._limit = limit
        self._all: dict[Subscription, None] = {}

    def subscribe(self, prefix: str, backlog: Sequence[Event]) -> Subscription:
        """A watcher that first gets `backlog`, which may exceed the limit by itself."""
        watcher = Subscription(self, prefix, self._limit + len(backlog))
        self._all[watcher] = None
        if backlog:
            watcher.offer(backlog)
        return watcher

    def refuse(self, prefix: str, error: WeftError) -> Subscription:
        """A watcher that gets nothing but the error."""
        watcher = Subscription(self, prefix, self._limit)
        watcher.fail(error)
        return watcher

    def publish(self, events: Sequence[Event]) -> None:
        """Give the events of one commit to everybody whose prefix they match."""
        for watcher in list(self._all):
            mine = under(watcher.prefix, events)
            if mine:
                watcher.offer(mine)

    def forget(self, watcher: Subscription) -> None:
        """The watcher has ended."""
        self._all.pop(watcher, None)

    def fail(self, error: WeftError) -> None:
        """End every watcher with an error."""
        for watcher in list(self._all):
            watcher.fail(error)

    def close(self) -> None:
        """The store has closed."""
        for watcher in list(self._all):
            watcher.end()
        self._all.clear()


def under(prefix: str, events: Sequence[Event]) -> list[Event]:
    """The events of ONE commit under `prefix`, with `more` false on the last of them only."""
    mine = [event for event in events if event.key.startswith(prefix)]
    return [
        Event(
            key=event.key,
            value=event.value,
            revision=event.revision,
            more=index < len(mine) - 1,
        )
        for index, event in enumerate(mine)
    ]
