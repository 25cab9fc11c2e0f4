"""T11: many attachments come and go; nothing grows."""

from __future__ import annotations

import os

import pytest

from acceptance import Host, ask, problems

WIDTH = 16
FILLING = 6  # asyncio's own workers are made one by one up to a bound, as they are needed


def _threads(host: Host) -> int:
    return len(os.listdir(f"/proc/{host.pid}/task"))


def _round(host: Host, names: list[str]) -> None:
    host.make(names)
    assert not problems(host.storm([ask("ADD", name) for name in names], workers=WIDTH))
    assert not problems(host.storm([ask("DEL", name) for name in names], workers=WIDTH))
    host.unmake(names)


@pytest.mark.matrix(id="T11", full=5000, reduced=300)
def test_churn_leaves_the_agent_as_it_was(host: Host, count: int) -> None:
    """A first round brings memory and threads to what the work needs; then they stay."""
    live = 1000 if count >= 5000 else 100
    names = [f"pod-{n}" for n in range(live)]
    idle = host.descriptors
    _round(host, names)
    descriptors = host.descriptors_left(idle, patience=1.0)  # what it opened once, it keeps
    memory, threads = host.memory, _threads(host)
    for _ in range(count // live - 1):
        _round(host, names)
    left = host.descriptors_left(descriptors)
    print(f"memory {memory} -> {host.memory} MiB, {descriptors} -> {left} descriptors")
    assert host.memory <= memory * 1.05 + 1  # read in whole MiB
    assert left <= descriptors
    assert _threads(host) <= threads + FILLING
    assert host.used() == 0
