"""deploy/weft-supervise: starts again what ended, ends what is stuck, holds the socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "deploy" / "weft-supervise"
WATCHDOG = 0.6
SLACK = 5

TELLING = """
import os, signal, socket, sys, time
ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
where = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
def tell(*lines): ear.sendto("\\n".join(lines).encode(), where)
with open("lives", "a") as file: file.write(f"{os.getpid()}\\n")
assert os.environ["WATCHDOG_PID"] == str(os.getpid())
"""
FEEDING = "\nwhile True:\n    tell('WATCHDOG=1')\n    time.sleep(0.1)\n"


class Kept:
    """A command that is kept by the supervisor, in a directory of its own."""

    def __init__(self, place: Path, program: str, *options: str) -> None:
        self.place = place
        words = [PROGRAM, "--watchdog", str(WATCHDOG), *options, place / "pid"]
        self.log = (place / "log").open("ab")
        self.process = subprocess.Popen(
            [*words, sys.executable, "-c", TELLING + program], cwd=place, stderr=self.log
        )

    def lives(self) -> list[int]:
        try:
            return [int(line) for line in (self.place / "lives").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def wait(self, lives: int, seconds: float = 5.0) -> float:
        began = time.monotonic()
        while len(self.lives()) < lives:
            assert time.monotonic() - began < seconds * SLACK, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)
        return time.monotonic() - began

    def said(self) -> str:
        return (self.place / "log").read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.log.close()
        for pid in self.lives():
            assert not Path(f"/proc/{pid}").exists(), "the command outlived its supervisor"


@pytest.fixture
def keep() -> Iterator[Callable[..., Kept]]:
    with ExitStack() as stack:

        def start(program: str, *options: str) -> Kept:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            made = Kept(place, program, *[each.format(place) for each in options])
            stack.callback(made.close)
            return made

        yield start


def test_what_ended_is_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep("sys.exit(3)")
    kept.wait(2)
    assert "ended with status 3" in kept.said()


def test_a_killed_command_is_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep("tell('READY=1', 'WATCHDOG=1')" + FEEDING)
    kept.wait(1)
    os.kill(kept.lives()[0], signal.SIGKILL)
    kept.wait(2)


def test_a_stopped_command_is_ended_and_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep("tell('READY=1', 'WATCHDOG=1')" + FEEDING)
    kept.wait(1)
    time.sleep(0.3)
    os.kill(kept.lives()[0], signal.SIGSTOP)
    kept.wait(2, WATCHDOG + 2)
    assert "did not turn in time" in kept.said()
    assert f"signal {signal.SIGABRT:d}" in kept.said()


def test_who_feeds_or_never_fed_lives_and_a_deaf_one_is_killed(
    keep: Callable[..., Kept],
) -> None:
    """All three at once, because the last takes its time. An agent of a release before the
    watchdog's says READY=1 and no more."""
    deaf = keep("signal.signal(signal.SIGABRT, signal.SIG_IGN)\ntell('WATCHDOG=1')\ntime.sleep(60)")
    fed = keep("tell('READY=1', 'WATCHDOG=1')" + FEEDING)
    older = keep("tell('READY=1')\ntime.sleep(60)")
    for each in (fed, older):
        each.wait(1)
    deaf.wait(2, WATCHDOG + 7)
    assert f"signal {signal.SIGKILL:d}" in deaf.said()
    assert (len(fed.lives()), len(older.lives())) == (1, 1)


def test_nobody_else_can_feed(keep: Callable[..., Kept]) -> None:
    """A child feeds; its words are not the command's."""
    program = "tell('WATCHDOG=1')\nif os.fork() == 0:" + FEEDING.replace("\n", "\n    ")
    program += "\n    os._exit(0)\n"
    program = program.replace("while True", "while os.getppid() != 1")
    kept = keep(program + "signal.pause()")
    kept.wait(2, WATCHDOG + 2)


def test_a_term_signal_ends_both_and_takes_the_files_along(keep: Callable[..., Kept]) -> None:
    kept = keep("tell('READY=1', 'WATCHDOG=1')" + FEEDING, "--listen", "{}/socket")
    kept.wait(1)
    pid, began = (kept.place / "pid").read_text().split()
    assert int(pid) == kept.process.pid
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert began == stat[19]
    kept.process.terminate()
    assert kept.process.wait(30) == 0
    assert sorted(each.name for each in kept.place.iterdir()) == ["lives", "log"]


def test_who_connects_between_two_lives_is_served_by_the_second(
    keep: Callable[..., Kept],
) -> None:
    program = """
import stat
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
listener = socket.socket(fileno=3)
tell('READY=1')
peer, _ = listener.accept()
peer.sendall(b"served")
"""
    kept = keep(program, "--listen", "{}/socket")
    kept.wait(1)
    assert (kept.place / "socket").stat().st_mode & 0o777 == 0o600
    for _ in range(3):  # each life serves one
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(kept.place / "socket"))
            assert peer.recv(100) == b"served"


@pytest.mark.parametrize(
    "words",
    [[], ["pid"], ["--listen"], ["--listen", "s", "pid", "true"], ["--other", "pid", "true"]],
)
def test_wrong_usage_is_told(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "usage: weft-supervise" in done.stderr
