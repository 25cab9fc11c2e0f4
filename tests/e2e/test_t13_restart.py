"""T13 and T14's spirit: the agent is killed and restarted, and no packet notices."""

from __future__ import annotations

import signal
import statistics

import pytest

from acceptance import SLACK, Host, host_link
from load import load, rewritten, watching
from weft.lab.traffic.running import running

PODS = 10
READY = 1.0  # seconds within which an agent of ten pods serves again


@pytest.mark.matrix(id="T13", full=200, reduced=6)
def test_restarts_lose_no_packet_reset_no_stream_and_let_nothing_forged_pass(
    host: Host, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the restarts by kill -9, half by SIGTERM, under the whole load."""
    pods = {name: host.add(name) for name in (f"pod-{n}" for n in range(PODS))}
    before = host.snapshot()
    times: dict[signal.Signals, list[float]] = {signal.SIGKILL: [], signal.SIGTERM: []}
    with running(load(host, pods)) as traffic, watching(host) as watch:
        for turn in range(count):
            how = signal.SIGKILL if turn % 2 == 0 else signal.SIGTERM
            host.end(how)
            times[how].append(host.start())
        report = traffic.end()
        changes = watch.changes()
    with capsys.disabled():
        print(f"\nT13: {report.summary()}")
        for how, taken in times.items():
            shown = " ".join(f"{seconds * 1000:.0f}" for seconds in taken)
            print(f"T13: ready after {how.name}, ms: {shown}")
    assert report.problems() == []
    assert report.sent > 500 * report.seconds / SLACK
    assert report.forged > 100 * report.seconds / SLACK
    assert rewritten(changes) == []
    assert host.settled(before) == []
    assert host.pod_links == {host_link(name) for name in pods}
    for taken in times.values():
        assert statistics.median(taken) < READY * SLACK
    for name in pods:
        host.drop(name)
