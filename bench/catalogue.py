"""Which benchmarks there are. A new one is one function and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench import (
    attach,
    bandwidth,
    bursts,
    churn,
    deadlines,
    footprint,
    hooks,
    loading,
    ports,
    repair,
    restart,
    traffic,
    workshop,
)
from bench.run import Run

BENCHMARKS: Mapping[str, Callable[[Run], None]] = {
    "add": attach.add,
    "del": attach.delete,
    "burst": bursts.burst,
    "agent": footprint.agent,
    "ports": ports.ports,
    "bandwidth": bandwidth.bandwidth,
    "loading": loading.loading,
    "traffic": traffic.traffic,
    "hook": hooks.hook,
    "deadlines": deadlines.deadlines,
    "restart": restart.restart,
    "repair": repair.repair,
    "churn": churn.churn,
    "up": workshop.up,
}

ON_REQUEST = frozenset(("up",))
"""Benchmarks that run only when they are named."""
