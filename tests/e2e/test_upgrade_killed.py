"""`weft upgrade` and the agent are killed, anywhere: the node has an agent again by itself, and the
next upgrade finishes or undoes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from acceptance import SLACK, ask
from releases import KeptHost, Laid
from weft.lab import snapshot
from weft.lab.nodes import CLEAN_PATH

Releases = dict[str, Laid]
Point = tuple[str, int]
"""A system call, and the how manieth of its kind."""
AGENT_WITHIN = 10.0
"""Seconds after which a node whose upgrade was killed has an agent that serves."""
CHANGES = (
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,fsync,kill,"
    "ftruncate,fchmod"
)
"""System calls by which an upgrade changes something; it is killed at each."""
GIVING_WAY = "flock,pwrite64,fdatasync,ftruncate,unlink,execve"
"""Those by which an agent gives way to the older release's."""
UPGRADING = {"PATH": CLEAN_PATH, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def kept(releases: Releases, new_kept: Callable[[Laid], KeptHost]) -> KeptHost:
    """A node on which the old release serves."""
    host = new_kept(releases["old"])
    host.shell("mkdir -m 700 -p /run/weft/queue")
    return host


def _good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _is(host: KeptHost, release: Laid) -> bool:
    """Whether agent, link and launcher are those of the release, and nothing is on record."""
    expected = (release.version, release.program, release.launcher.read_bytes())
    return host.versions() == expected and not host.node.path("/var/lib/weft/upgrade").exists()


def _await_agent(host: KeptHost, where: str) -> None:
    deadline = time.monotonic() + AGENT_WITHIN * SLACK
    while not host.answers():
        assert time.monotonic() < deadline, f"{where}: no agent: {host.log()[-2000:]}"
        time.sleep(0.05)


def _upgrade(host: KeptHost, new: Laid, arguments: Sequence[str], trace: Sequence[str]) -> int:
    """Runs an upgrade under strace; its exit status, or -1 for one that was killed."""
    argv = ["strace", *trace, new.program, "upgrade", *arguments]
    return host.node.run(argv, env=UPGRADING, timeout=120.0).returncode


def _points(calls: Sequence[str]) -> list[Point]:
    """Every call that did something, counted as strace counts: each system call by itself."""
    names = [line.split("(")[0] for line in calls]
    counted = [(name, names[: place + 1].count(name)) for place, name in enumerate(names)]
    return [point for point, line in zip(counted, calls, strict=True) if ") = -1 E" not in line]


def _kill_at(point: Point) -> list[str]:
    """strace's options."""
    name, nth = point
    return ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={nth}"]


def _kill_agent(host: KeptHost) -> None:
    if pid := host.agent_pid():
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.002)


def _points_of_an_upgrade(
    kept: KeptHost, new: Laid, there: Sequence[str], again: Sequence[str]
) -> list[Point]:
    listing = kept.node.path("/run/upgrade.trace")
    assert _upgrade(kept, new, there, ["-o", "/run/upgrade.trace", "-e", f"trace={CHANGES}"]) == 0
    calls = [line for line in listing.read_text().splitlines() if line[0].isalpha()]
    listing.unlink()
    _good(kept.upgrade(new, *again))
    assert len(calls) >= 10, calls
    return _points(calls)


@pytest.mark.matrix(id="T40 killed", full=1000, reduced=1)
def test_an_upgrade_killed_anywhere_is_finished_or_undone_by_the_next(
    kept: KeptHost, releases: Releases, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every change that it makes, and the agent with it; the node soon has an agent, which
    could read what it found. Reduced: on the way up, when the link is about to move."""
    old, new = releases["old"], releases["new"]
    back = ["--to", old.program]
    pod = kept.add("pod")
    before = kept.snapshot()
    if count == 1:
        _killed_at(kept, new, [], ("symlink", 1))
        _good(kept.upgrade(new))
        assert _is(kept, new)
        return
    _good(kept.upgrade(new))
    left = kept.snapshot()["files"] - before["files"]  # what the newer release keeps beside
    for there, again in ((back, []), ([], back)):
        goal, origin = (old, new) if there else (new, old)
        points = _points_of_an_upgrade(kept, new, there, again)[:count]
        with capsys.disabled():
            print(f"\nT40: killed at {len(points)} points of an upgrade {' '.join(there)}")
        for number, point in enumerate(points):
            _good(kept.upgrade(new, *again))
            assert _is(kept, origin), point
            _killed_at(kept, new, there, point)
            assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0, point
            if number % 2 == 0:
                _good(kept.upgrade(new, *there))
                assert _is(kept, goal), point
        _good(kept.upgrade(new, *back))
        assert _is(kept, old)
        now = kept.snapshot()
        now["files"] -= left
        assert snapshot.diff(before, now) == []
    kept.drop("pod")


def _killed_at(host: KeptHost, new: Laid, arguments: Sequence[str], point: Point) -> None:
    """The upgrade there, and the agent a moment later; waits for the next agent."""
    where = f"upgrade {' '.join(arguments)} killed at {point}"
    status = _upgrade(host, new, arguments, ["-o", "/dev/null", *_kill_at(point)])
    _kill_agent(host)
    assert status != 0, f"not {where}"
    _await_agent(host, where)


@contextmanager
def _traced_agents(host: KeptHost, *options: str) -> Iterator[None]:
    """Every agent that the supervisor starts meanwhile is under strace; calls
    are counted by process."""
    argv = ["strace", "-f", "-qq", "-p", str(host.pid), *options]
    holder = host.node.popen(argv, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while "TracerPid:\t0\n" in Path(f"/proc/{host.pid}/status").read_text():
            assert time.monotonic() < deadline, "strace does not hold the supervisor"
            time.sleep(0.01)
        yield
    finally:
        holder.terminate()
        holder.wait(20)


def _leave_asked(host: KeptHost, releases: Releases) -> None:
    """The newer release, asked to give way by an upgrade that was killed before it ended the
    agent."""
    _good(host.upgrade(releases["new"]))
    trace = ["-o", "/dev/null", "-e", "trace=kill", "-e", "inject=kill:signal=SIGKILL:when=1"]
    assert _upgrade(host, releases["new"], ["--to", releases["old"].program], trace) != 0
    version, link, _ = host.versions()
    assert (version, link) == (releases["new"].version, releases["new"].program)


@pytest.mark.matrix(id="T40 giving way", full=1000, reduced=1)
def test_an_agent_killed_while_it_gives_way_is_followed_by_one_that_serves(
    kept: KeptHost, releases: Releases, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every change that it makes to journal and store, with nobody left to help. Reduced: when
    it has written half."""
    old, new = releases["old"], releases["new"]
    back = ["--to", old.program]
    pod = kept.add("pod")
    points = [("pwrite64", 3)]
    if count > 1:
        points = _points_of_giving_way(kept, releases)[:count]
        with capsys.disabled():
            print(f"\nT40: killed at {len(points)} points of giving way")
    for point in points:
        where = f"killed at {point}"
        _leave_asked(kept, releases)
        said = len(kept.log())
        with _traced_agents(kept, "-o", "/dev/null", *_kill_at(point)):
            _kill_agent(kept)
            deadline = time.monotonic() + AGENT_WITHIN * SLACK
            while kept.log()[said:].count("was ended by signal 9") < 2:
                assert time.monotonic() < deadline, f"not {where}: {kept.log()[said:]}"
                time.sleep(0.02)
        _await_agent(kept, where)
        version, link, _ = kept.versions()
        assert (version, link) == (old.version, new.program), where
        assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0, where
        if count > 1:
            _good(kept.upgrade(new, *back))
            assert _is(kept, old)


def _points_of_giving_way(kept: KeptHost, releases: Releases) -> list[Point]:
    _leave_asked(kept, releases)
    listing = kept.node.path("/run/agent.trace")
    with _traced_agents(kept, "-o", "/run/agent.trace", "-e", f"trace={GIVING_WAY}"):
        _kill_agent(kept)
        _await_agent(kept, "traced")
    calls = _until_it_is_another(listing.read_text(), releases["old"].program)
    listing.unlink()
    assert sum(line.startswith("pwrite64(") for line in calls) >= 4, calls
    _good(kept.upgrade(releases["new"], "--to", releases["old"].program))
    return _points(calls)


def _until_it_is_another(listing: str, program: str) -> list[str]:
    """The calls of the first process that becomes the program, up to that."""
    lines = [re.split(r"\s+", line, maxsplit=1) for line in listing.splitlines()]
    for place, (pid, text) in enumerate(lines):
        if text.startswith(f'execve("{program}"'):
            mine = [call for who, call in lines[: place + 1] if who == pid]
            return [call for call in mine if call[0].isalpha()]
    raise AssertionError(f"nobody became {program}: {listing[-2000:]}")
