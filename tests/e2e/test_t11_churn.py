"""T11: many attachments come and go; nothing grows."""

from __future__ import annotations

import os

import pytest

from acceptance import Host, ask, problems
from weft.agent import reaper, thrift

WIDTH = 16
ALWAYS = 3  # the loop, the watchdog, metrics and health


def _threads(host: Host) -> int:
    return len(os.listdir(f"/proc/{host.pid}/task"))


def _round(host: Host, number: int, live: int) -> None:
    """So many pods, with names that were never used, at once; none is left."""
    names = [f"pod-{number}-{n}" for n in range(live)]
    host.make(names)
    assert not problems(host.storm([ask("ADD", name) for name in names], workers=WIDTH))
    assert not problems(host.storm([ask("DEL", name) for name in names], workers=WIDTH))
    host.unmake(names)


@pytest.mark.matrix(id="T11", full=5000, reduced=300)
def test_churn_leaves_the_agent_as_it_was(host: Host, count: int) -> None:
    """A first round brings memory to what the work needs; then it stays. Threads are bounded."""
    live = 1000 if count >= 5000 else 100
    idle = host.descriptors
    _round(host, 0, live)
    descriptors = host.descriptors_left(idle, patience=1.0)  # what it opened once, it keeps
    before = host.memory_left(0, patience=5.0 if live >= 1000 else 0.0)
    for number in range(1, count // live):
        _round(host, number, live)
        print(f"round {number}: {host.memory} MiB, {_threads(host)} threads")
    left = host.descriptors_left(descriptors)
    bound = before * 1.05 + 1  # read in whole MiB
    memory = host.memory_left(bound)
    print(f"memory {before} -> {memory} MiB, {descriptors} -> {left} descriptors")
    assert memory <= bound
    assert left <= descriptors
    assert _threads(host) <= ALWAYS + reaper.WORKERS + thrift.WORKERS
    assert host.used() == 0
