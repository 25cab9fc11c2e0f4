"""What is held in a store of one process: entries that go by themselves unless held again.

Their time is the process's: a store that is opened again drops what the former process held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from weft.model.errors import Conflict, WeftError
from weft.store.contract import Change, check_held

AGAIN = 1.0  # seconds until a store that could not be written is asked again


class Held:
    """The timers of one store. Belongs to its event loop."""

    def __init__(self, commit: Callable[[Sequence[Change]], Awaitable[int]]) -> None:
        self._commit = commit
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._written: dict[str, tuple[bytes, int]] = {}  # key -> value, revision
        self._ending: set[asyncio.Task[None]] = set()

    async def hold(self, key: str, value: bytes, seconds: float) -> None:
        """As `Store.hold`. Writes only where the value is another."""
        check_held(key, seconds)
        if self._written.get(key, (None, 0))[0] != value:
            revision = await self._commit([Change(key=key, value=value)])
            self._written[key] = value, revision
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(seconds, self._begin_end, key)

    def close(self) -> None:
        """No more timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._ending:
            task.cancel()

    def _begin_end(self, key: str) -> None:
        del self._timers[key]
        task = asyncio.get_running_loop().create_task(self._end(key, self._written.pop(key)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, key: str, written: tuple[bytes, int]) -> None:
        try:
            await self._commit([Change(key=key, value=None, expected=written[1])])
        except Conflict:
            pass  # it is held again, or somebody else's now
        except WeftError:
            # the store cannot be written, and says so itself: later
            if key not in self._timers and key not in self._written:
                self._written[key] = written
                again = asyncio.get_running_loop().call_later(AGAIN, self._begin_end, key)
                self._timers[key] = again
