"""The figures behind `/metrics`: what the agent knows of itself, as samples of the catalogue.

Called in the scraping thread, never on the loop. Counters are copied in one step, which Python's
lock makes whole; what has to be walked through is asked of the loop, and is missing in a scrape
while the loop is stuck - that it is stuck is then the figure that matters. Dropped packets are
read from the kernel only here, with a socket of this thread's own.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from weft import __version__
from weft.cni.queue import SUFFIX
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.ipam import audit
from weft.observe.counts import Histogram
from weft.observe.exposition import Sample, Source
from weft.render.egress import REFUSED
from weft.render.ruleset import DROPS
from weft.render.sets import TABLE
from weft.rows.base import Place
from weft.wire.status import Start

if TYPE_CHECKING:
    from weft.agent.service import Service
    from weft.agent.watchdog import Beat

T = TypeVar("T")
STATES = ("intent", "ready", "leaving", "imported")


class OnLoop(Protocol):
    """Runs a function on the agent's loop and gives its answer. Raises TimeoutError."""

    def __call__(self, ask: Callable[[], T], /) -> T: ...


class Measures:
    """Samples of one agent."""

    def __init__(self, service: Service, beat: Beat, on_loop: OnLoop) -> None:
        self._service = service
        self._beat = beat
        self._on_loop = on_loop
        self.started = Start()

    @property
    def sources(self) -> Mapping[str, Source]:
        """Groups of samples by name; each fails alone."""
        return {
            "agent": self._agent,
            "readiness": self._readiness,
            "attachments": self._attachments,
            "calls": self._calls,
            "queue": self._queue,
            "pools": self._pools,
            "drops": self._drops,
            "kernel": self._kernel,
            "events": self._events,
        }

    def _agent(self) -> Iterator[Sample]:
        service = self._service
        version = platform.python_version()
        yield Sample("weft_build_info", (__version__, version), 1.0)
        yield Sample("weft_connections", (), float(len(service.server.connections)))
        yield Sample("weft_loop_lag_seconds", (), self._beat.lag)
        yield Sample("weft_loop_silence_seconds", (), self._beat.silence)
        yield Sample("weft_watchdog_limit_seconds", (), service.settings.watchdog.limit)

    def _readiness(self) -> Iterator[Sample]:
        try:
            ready = not self._on_loop(self._service.reporter.reasons)
        except TimeoutError:
            ready = False
        yield Sample("weft_ready", (), float(ready))

    def _attachments(self) -> Iterator[Sample]:
        states: Counter[str] = Counter(each.phase for each in self._service.attachments.copied())
        for state in STATES:
            yield Sample("weft_attachments", (state,), float(states[state]))

    def _calls(self) -> Iterator[Sample]:
        verbs = self._service.verbs
        for (verb, result), count in dict(verbs.counts).items():
            yield Sample("weft_cni_requests_total", (verb, result), float(count))
        yield from _histograms("weft_cni_request_duration_seconds", verbs.durations)
        yield from _histograms("weft_add_step_duration_seconds", self._service.laps.steps)

    def _queue(self) -> Iterator[Sample]:
        yield Sample("weft_queued_deletions", (), float(queued(self._service.settings.paths.queue)))

    def _pools(self) -> Iterator[Sample]:
        view = self._service.addresses.view

        def ask() -> tuple[audit.PoolUsage, ...]:
            return audit.usage(view, time.monotonic())

        for usage in self._on_loop(ask):
            yield Sample("weft_pool_size", (usage.pool,), float(usage.size))
            for state in ("used", "cooling", "free"):
                count = float(getattr(usage, state))
                yield Sample("weft_pool_addresses", (usage.pool, state), count)

    def _drops(self) -> Iterator[Sample]:
        counters = read_drops()
        for reason, packets in counters.items():
            yield Sample("weft_dropped_packets_total", (reason,), float(packets))

    def _kernel(self) -> Iterator[Sample]:
        service = self._service
        yield Sample("weft_row_changes_total", (), float(service.engine.changes))
        yield Sample("weft_start_rows", (), float(self.started.standing))
        yield Sample("weft_start_row_changes", (), float(self.started.written))
        yield Sample("weft_start_duration_seconds", (), self.started.seconds)
        for kind, count in dict(service.watcher.repairs).items():
            yield Sample("weft_repairs_total", (kind,), float(count))
        yield Sample("weft_notification_overflows_total", (), float(service.watcher.overflows))

    def _events(self) -> Iterator[Sample]:
        for labels, count in dict(self._service.log.counts).items():
            yield Sample("weft_events_total", labels, float(count))


def _histograms(name: str, by_label: Mapping[str, Histogram]) -> Iterator[Sample]:
    for label, histogram in by_label.items():
        yield Sample(name, (label,), histogram)


def standing(engine: Engine) -> int:
    """How many rows stand on the host for all owners, as far as the engine remembers."""
    return sum(
        getattr(row, "place", Place.HOST) is Place.HOST
        for owner in engine.owners
        for row in engine.rows(owner)
    )


def queued(directory: str | Path) -> int:
    """How many DELs wait; an absent directory is an empty queue."""
    try:
        return sum(name.endswith(SUFFIX) for name in os.listdir(directory))
    except FileNotFoundError:
        return 0


def read_drops() -> dict[str, int]:
    """Packets that our rules dropped, by reason. Not for the loop: it reads the whole ruleset."""
    rules = RulesTransport()  # a worker's own: the agent's is the loop's
    try:
        counters = rules.counters(TABLE)
    finally:
        rules.close()
    return {
        reason: counters[f"drop-{reason}"][0]
        for reason in (*DROPS, *REFUSED)
        if f"drop-{reason}" in counters
    }
