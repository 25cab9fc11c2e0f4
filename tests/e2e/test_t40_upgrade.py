"""T40: up to this release and back again under load, any number of times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acceptance import SLACK, Host, ask, problems
from load import load
from releases import NO_HISTORY, OLDER, KeptHost, Laid
from weft.lab import snapshot
from weft.lab.nodes import CLEAN_PATH
from weft.lab.traffic.running import running

PODS = {"full": 100, "reduced": 10}
CYCLES = 20
CHURNED = ("churn-0", "churn-1")


@contextmanager
def churning(host: Host) -> Iterator[subprocess.Popen[bytes]]:
    """Pods that come and go on the node for the length of the block."""
    path = os.pathsep.join([*(p for p in sys.path if p)])
    child = host.node.popen(
        [sys.executable, str(Path(__file__).parents[1] / "churn.py"), *CHURNED],
        env={"PATH": CLEAN_PATH, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def _settled(before: snapshot.Snapshot, host: Host, kept: Counter[str]) -> list[str]:
    """What is different; files that a newer release keeps beside the older one's may stay."""

    def again() -> snapshot.Snapshot:
        found = host.snapshot()
        added = found["files"] - before["files"]
        found["files"] -= added & kept
        return found

    return snapshot.settled(before, again, 10.0)


def _agrees(host: Host) -> None:
    """No address without an owner, or with two. Asked again for a while: a pod that is just being
    taken away may have lost its link already."""
    deadline = time.monotonic() + 5.0 * SLACK
    while True:
        try:
            host.weft("ipam", "check")
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.mark.matrix(id="T40", full=CYCLES, reduced=1)
def test_upgrades_and_ways_back_lose_nothing_and_leave_nothing(
    new_kept: Callable[[Laid], KeptHost],
    releases: dict[str, Laid],
    count: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = releases["old"], releases["new"]
    host = new_kept(old)
    host.shell("mkdir -m 700 -p /run/weft/queue")  # as the first DEL without an agent makes it
    names = [f"pod-{n}" for n in range(PODS["full" if count >= CYCLES else "reduced"])]
    host.make(names)
    pods = dict(zip(names, host.storm([ask("ADD", name) for name in names]), strict=True))
    assert not problems(list(pods.values()))
    checks = [ask("CHECK", name, prevResult=said.json) for name, said in pods.items()]
    host.add("warm-up")
    host.drop("warm-up")
    before = host.snapshot()
    first: Counter[str] = Counter()
    times: dict[str, list[float]] = {"up": [], "back": []}
    with running(load(host, pods)) as traffic, churning(host) as churn:
        for turn in range(count):
            for way, goal in (("up", new), ("back", old)):
                began = time.monotonic()
                said = host.upgrade(new, *(("--to", old.program) if goal is old else ()))
                times[way].append(time.monotonic() - began)
                assert said.returncode == 0, f"cycle {turn}, {way}: {said.stdout}{said.stderr}"
                assert host.versions() == (goal.version, goal.program, goal.launcher.read_bytes())
                assert not problems(host.storm(checks))
                _agrees(host)
                if not first:
                    first = host.snapshot()["files"]
        out, err = churn.communicate(b"end", timeout=60)
        report = traffic.end()
    assert churn.returncode == 0, err.decode()
    churned = json.loads(out)
    with capsys.disabled():
        if not old.commit:
            print(f"\n{NO_HISTORY}", end="")
        source = f"{old.version} ({old.commit[:12] or 'copy'})"
        print(f"\nT40: {source} -> {new.version} -> {old.version}, {len(pods)} pods")
        print(f"T40: {report.summary()}")
        print(f"T40: {churned['turns']} pods came and went, {churned['again']} calls tried again")
        for way, taken in times.items():
            print(f"T40: {way}, s: " + " ".join(f"{seconds:.1f}" for seconds in taken))
    assert report.problems() == []
    assert report.sent > 500 * report.seconds / SLACK
    assert churned["failures"] == []
    assert churned["turns"] > 0
    assert "Traceback (most recent call last)" not in host.log()
    assert _settled(before, host, first) == []
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    host.unmake(names)
    assert host.pod_links == set()
    assert host.used() == 0


def test_the_previous_release_is_another_one(releases: dict[str, Laid]) -> None:
    """From history where there is one; never this release against itself unsaid."""
    old, new = releases["old"], releases["new"]
    assert old.version != new.version
    assert old.commit or old.version == OLDER
    assert old.launcher.read_bytes() != new.launcher.read_bytes()
