"""Tasks that go on whatever they meet.

What the agent does beside its requests - looking, sweeping, following the store - must not end
because of one failure that nobody foresaw: it would end silently, and nothing would be mended any
more until the next start. A task that failed is an event, its traceback a line of the log, and it
begins again, the later the more often it fails in a row.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable

from weft.agent.events import Log

FIRST, LONGEST = 1.0, 30.0
"""Seconds until a task begins again: at first, and at most; each time twice as long."""


def tend(
    name: str, work: Callable[[], Awaitable[None]], log: Log, *, first: float = FIRST
) -> asyncio.Task[None]:
    """Do `work` in a task until it returns or is cancelled. `name` says what it does, for people;
    `first`: seconds until it begins again after its first failure."""
    return asyncio.get_running_loop().create_task(_tended(name, work, log, first))


async def _tended(name: str, work: Callable[[], Awaitable[None]], log: Log, first: float) -> None:
    pause = first
    while True:
        began = time.monotonic()
        try:
            await work()
            return
        except Exception as error:
            if time.monotonic() - began > LONGEST:
                pause = first
            tell_failure(log, name, error, pause)
        await asyncio.sleep(pause)
        pause = min(LONGEST, pause * 2)


def tell_failure(log: Log, name: str, error: Exception, pause: float) -> None:
    """An event and a line about a failure that nobody foresaw; `pause`: seconds until the next
    attempt."""
    words = f"{name}: {type(error).__name__}: {error}; again in {pause:.0f} s"
    log.event("error", "TaskFailed", "agent", words)
    log.line("error", "a task failed", task=name, at="".join(traceback.format_exception(error)))
