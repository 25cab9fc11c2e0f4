"""What the agent does so that a burst does not leave it large: few threads, memory given back.

A runtime that restarts asks for a thousand ADDs and DELs within seconds. Meanwhile messages, rows
and links of all of them are in memory; afterwards hardly anything of it is, but the C library keeps
the pages. `confine` bounds what threads can hold each, `Thrift` gives back what is free once it is
quiet, because it costs a few milliseconds during which others may wait for memory.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from weft.kernel import heap

WORKERS = 6
"""Threads for what may block besides deletions, on machines of any size: asyncio itself would make
up to 32. They are the sweep, a comparison, a flush of the store, the status of the node and others'
firewalls; each runs once at a time."""


SWITCH = 0.0001
"""Seconds for which a worker that computes may keep the loop waiting for the interpreter's lock. An
ADD gives the lock away with each of some twenty system calls, and with three more for each of its
ports; at Python's own 5 ms one beside a worker that reads 44,000 elements back takes a tenth of a
second and more."""


def confine(loop: asyncio.AbstractEventLoop) -> None:
    """Bound the loop's workers, the memory that they keep and how long they hold it up; before
    there are threads."""
    heap.keep_small()
    sys.setswitchinterval(SWITCH)
    loop.set_default_executor(ThreadPoolExecutor(WORKERS, thread_name_prefix="weft-worker"))


class Thrift:
    """`look` about once a second."""

    def __init__(self, requests: Callable[[], int]) -> None:
        """`requests`: how many have been answered until now."""
        self._requests = requests
        self._last = self._cleaned = requests()

    async def look(self) -> bool:
        """Give memory back if requests came since the last time and none since the last look;
        whether it was done."""
        now = self._requests()
        quiet, self._last = now == self._last, now
        if not quiet or now == self._cleaned:
            return False
        self._cleaned = now
        await asyncio.to_thread(heap.give_back)
        return True
