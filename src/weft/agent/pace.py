"""Debug mode: who holds the loop.

Nothing but the kernel part of a verb may hold the loop for more than LIMIT; with WEFT_DEBUG_LOOP=1
every callback that does becomes a `SlowLoop` event, and the tests fail on them. The measure is the
thread's own processor time and not the wall's, so that a busy machine accuses nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from weft.agent.events import Log

LIMIT = 0.005  # seconds


def watch_loop(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """Time every callback of the loop from now on."""
    run: Callable[..., Any] = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        spent = time.thread_time() - begun
        if spent > LIMIT:
            log.event("warning", "SlowLoop", "agent", f"{handle!r:.160} took {spent * 1000:.1f} ms")

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]  # sees them all
    loop.call_soon(log.line, "info", "the loop is watched")
