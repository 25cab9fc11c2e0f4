"""One operation at a time for an attachment, and DEL wins over ADD.

CNI forbids runtimes to run two operations for one container at once, yet they do when they restart
or time out. Operations of one key take turns; an ADD that is still waiting when a DEL for the same
key arrives is refused, because whoever asked for the DEL has given up on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from weft.model.attachment import AttachmentKey
from weft.model.errors import NotReady


class Turns:
    """Who works on which attachment."""

    def __init__(self) -> None:
        self._running: dict[AttachmentKey, asyncio.Future[None]] = {}
        self._deletions: dict[AttachmentKey, int] = {}  # DELs that have arrived and not ended
        self._latest: dict[AttachmentKey, int] = {}  # number of the last of them
        self._arrivals = 0

    def free(self, key: AttachmentKey) -> bool:
        """Whether nobody works on this attachment and nobody waits to delete it."""
        return key not in self._running and key not in self._deletions

    @asynccontextmanager
    async def adding(self, key: AttachmentKey) -> AsyncIterator[None]:
        """The turn of an ADD or CHECK. Raises NotReady (`busy`) if a DEL arrives before it."""
        seen = self._arrivals
        while (running := self._running.get(key)) is not None:
            await asyncio.shield(running)
            if self._latest.get(key, 0) > seen:
                raise NotReady(
                    f"a DEL for {key} overtook this ADD; ask again if the container still lives",
                    reason="busy",
                )
        with self._held(key):
            yield

    @asynccontextmanager
    async def deleting(self, key: AttachmentKey) -> AsyncIterator[None]:
        """The turn of a DEL."""
        self._deletions[key] = self._deletions.get(key, 0) + 1
        self._arrivals += 1
        self._latest[key] = self._arrivals
        try:
            while (running := self._running.get(key)) is not None:
                await asyncio.shield(running)
            with self._held(key):
                yield
        finally:
            left = self._deletions[key] - 1
            if left:
                self._deletions[key] = left
            else:
                del self._deletions[key], self._latest[key]

    def _held(self, key: AttachmentKey) -> _Held:
        return _Held(self._running, key)


class _Held:
    __slots__ = ("_future", "_key", "_running")

    def __init__(
        self, running: dict[AttachmentKey, asyncio.Future[None]], key: AttachmentKey
    ) -> None:
        self._running = running
        self._key = key
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> None:
        self._running[self._key] = self._future

    def __exit__(self, *_: object) -> None:
        del self._running[self._key]
        self._future.set_result(None)
