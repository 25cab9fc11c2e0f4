"""The watchdog: when it feeds its supervisor, and when it gives up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from weft.agent import watchdog
from weft.agent.supervision import Supervision
from weft.agent.watchdog import EXIT_STATUS, Beat, Watchdog


class Ear:
    """A supervisor's notification socket."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.made: list[Supervision] = []

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.socket.close()
        for each in self.made:
            each.close()

    def supervision(self, seconds: float = 0.0) -> Supervision:
        environment = {"NOTIFY_SOCKET": self.path}
        if seconds:
            environment |= {
                "WATCHDOG_USEC": str(int(seconds * 1e6)),
                "WATCHDOG_PID": str(os.getpid()),
            }
        self.made.append(Supervision(environment))
        return self.made[-1]


@pytest.fixture
def ear() -> Iterator[Ear]:
    with tempfile.TemporaryDirectory() as directory:
        made = Ear(directory)
        yield made
        made.close()


def test_the_beat_counts_turns_and_measures_how_late_they_are() -> None:
    async def beat() -> Beat:
        made = Beat()
        made.start()
        assert made.silence < 1
        made.stop()
        return made

    made = asyncio.run(beat())
    assert (made.count, made.lag.count) == (1, 1)


def test_a_supervisor_is_fed_only_while_the_loop_turns(ear: Ear) -> None:
    beat = Beat()
    dog = Watchdog(beat, ear.supervision(40), 30, lambda: "serving", lambda silence: None)
    for _ in range(3):
        beat.count += 1
        dog.look()
    assert ear.heard() == ["STATUS=serving", "WATCHDOG=1"], "once in a quarter of its patience"
    dog._fed = -100.0
    dog.look()
    assert ear.heard() == [], "the loop has not turned since"
    beat.count += 1
    dog.look()
    assert ear.heard() == ["WATCHDOG=1"]


def test_a_supervisor_that_does_not_watch_is_told_how_it_goes_and_no_more(ear: Ear) -> None:
    beat = Beat()
    words = iter(["starting", "serving", "serving"])
    dog = Watchdog(beat, ear.supervision(), 30, lambda: next(words), lambda silence: None)
    for _ in range(3):
        beat.count += 1
        dog.look()
    assert ear.heard() == ["STATUS=starting", "STATUS=serving"]


def test_it_gives_up_after_so_many_looks_without_a_turn() -> None:
    beat, ends = Beat(), list[float]()
    dog = Watchdog(beat, Supervision({}), 3, lambda: "", ends.append)
    for _ in range(2):
        beat.count += 1
        for _ in range(3):
            dog.look()
    assert ends == []
    dog.look()
    assert ends == [3 * watchdog.PERIOD]


STUCK = """
import os, sys, threading, time
from weft.agent import watchdog
from weft.agent.supervision import Supervision
watchdog.PERIOD = 0.05
{before}
watchdog.Watchdog(watchdog.Beat(), Supervision({{}}), 0.2, lambda: "").start()
def where_it_hangs():
    {stuck}
where_it_hangs()
"""


DEADLOCK = "lock = threading.Lock(); lock.acquire(); lock.acquire()"


@pytest.mark.parametrize("stuck", ["while True: pass", DEADLOCK, "time.sleep(60)"])
def test_a_stuck_process_says_where_it_hangs_and_ends(stuck: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(before="", stuck=stuck)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == EXIT_STATUS
    assert "has not turned for" in done.stderr
    assert "in where_it_hangs" in done.stderr


def test_it_ends_even_when_nobody_reads_its_report(tmp_path: Path) -> None:
    pipe = tmp_path / "full"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    before = "watchdog.WRITING = 1"
    program = STUCK.format(before=before, stuck="time.sleep(60)")
    done = subprocess.run([sys.executable, "-c", program], stderr=writer, timeout=30)
    os.close(reader)
    os.close(writer)
    assert done.returncode == -signal.SIGALRM
