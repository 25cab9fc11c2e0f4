"""Who notices that the agent is stuck.

`Beat` makes the loop leave a mark once a second. `Watchdog` is a thread that looks for it: as long
as the loop turns it feeds the supervisor's watchdog; when the loop has been silent for the limit
it writes where every thread is and ends the process, for the supervisor to start it again. What
the kernel holds stays meanwhile, so containers notice nothing.

The thread counts looks of its own, not seconds of a clock: a process that was stopped, or a
machine that was suspended, has not been stuck. A stopped process, and one in which no thread gets
Python's lock, cannot help itself: then the supervisor's watchdog, which nobody feeds, does it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from weft.agent.supervision import Supervision
from weft.observe.counts import LAG_BOUNDS, Histogram

PERIOD = 1.0  # seconds between two beats, and between two looks
STUCK = 3.0  # seconds of silence after which the agent counts as stuck
EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h
WRITING = 5  # seconds that the report may take: its reader may be what everybody waits for


class Beat:
    """The loop's pulse, and how late it comes."""

    def __init__(self) -> None:
        self.lag = Histogram(LAG_BOUNDS)
        self.count = 0
        self._last = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on; called on the loop."""
        loop = asyncio.get_running_loop()
        self._turn(loop, loop.time())

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def silence(self) -> float:
        """Seconds since the last beat; any thread may ask."""
        return time.monotonic() - self._last

    def _turn(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.lag.observe(max(0.0, now - due))
        self._last = time.monotonic()
        self.count += 1
        self._timer = loop.call_at(now + PERIOD, self._turn, loop, now + PERIOD)


class Watchdog:
    """The thread that looks. `state` says in a line how the agent is, for the supervisor."""

    def __init__(
        self,
        beat: Beat,
        supervision: Supervision,
        limit: float,
        state: Callable[[], str],
        give_up: Callable[[float], None] | None = None,
    ) -> None:
        """`limit` in seconds. `give_up` is called with the seconds of silence; by default it
        ends the process."""
        self._beat = beat
        self._supervision = supervision
        self._limit = limit
        self._state = state
        self._give_up = give_up or end_process
        self._seen = -1
        self._missed = 0
        self._fed = 0.0
        self._told = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="weft-watchdog", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(PERIOD)

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD):
            self.look()

    def look(self) -> None:
        """One look: feed, wait, or give up."""
        count = self._beat.count
        if count != self._seen:
            self._seen, self._missed = count, 0
            self._feed()
            return
        self._missed += 1
        silence = self._missed * PERIOD
        if silence >= self._limit and not self._ended.is_set():
            self._give_up(silence)

    def _feed(self) -> None:
        state, now = self._state(), time.monotonic()
        if state != self._told:
            self._told = state
            self._supervision.notify(f"STATUS={state}")
        patience = self._supervision.watchdog
        # three chances within the supervisor's patience: one datagram may find its queue full
        if patience and now - self._fed >= patience / 4 - PERIOD / 2:
            self._fed = now
            self._supervision.notify("WATCHDOG=1")


def end_process(silence: float) -> None:
    """Write where every thread is, and end. Never returns."""
    signal.alarm(WRITING)  # ends the process in any case, should standard error be blocked
    text = (
        f"weft agent: the loop has not turned for {silence:.0f} s; "
        "where every thread is stands below; ending, to be started again\n"
    )
    try:
        os.write(2, text.encode())
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    finally:
        os._exit(EXIT_STATUS)
