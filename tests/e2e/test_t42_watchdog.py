"""T42: the agent is stuck, in one way after the other, and no packet notices.

It is kept by deploy/weft-supervise. The CPU loop and the deadlock are signal handlers that the
test's own starter installs before it becomes the agent; the kernel call that takes a minute is a
netlink message that strace holds back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from acceptance import Host, ask, host_link, problems, watched
from load import load
from weft.cli.machine import page
from weft.lab import entering
from weft.lab.traffic.running import running

PODS = 6
SUPERVISE = Path(__file__).resolve().parents[2] / "deploy" / "weft-supervise"
STARTER = """
import signal, sys, threading
def endless_loop(*_):
    while True: pass
def deadlock(*_):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
signal.signal(signal.SIGUSR1, endless_loop)
signal.signal(signal.SIGUSR2, deadlock)
from weft.main import main
sys.exit(main(["agent"]))
"""
STATUS_LIMIT = 5.0  # seconds until a runtime hears that the agent is stuck
RESTART_LIMIT = 60.0
BUSY = 2.0  # seconds more: the machine is busy, and the lab starts a process for the call


def agent_of(host: Host) -> int:
    """The process that the supervisor keeps; 0 between two of them."""
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    return int(children[0]) if children else 0


@contextmanager
def stopped(host: Host, agent: int) -> Iterator[None]:
    os.kill(agent, signal.SIGSTOP)
    yield


@contextmanager
def looping(host: Host, agent: int) -> Iterator[None]:
    os.kill(agent, signal.SIGUSR1)
    yield


@contextmanager
def deadlocked(host: Host, agent: int) -> Iterator[None]:
    os.kill(agent, signal.SIGUSR2)
    yield


@contextmanager
def held_by_the_kernel(host: Host, agent: int) -> Iterator[subprocess.Popen[bytes]]:
    """The next netlink message of the main thread, for an nftables transaction, takes a minute.
    Gives the holder, which would also hold what is left of the process when it has ended."""
    held = host.node.popen(
        ["strace", "-qq", "-o", "/dev/null", "-p", str(agent), "-e", "trace=sendto",
         "-e", "inject=sendto:delay_enter=60000000"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while "TracerPid:\t0\n" in Path(f"/proc/{agent}/status").read_text():
        assert time.monotonic() < deadline, "strace does not hold the agent"
        time.sleep(0.01)
    host.make(["victim"])
    request = ask("ADD", "victim")
    victim = host.node.popen(
        ["/opt/cni/bin/weft"], env=request.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert victim.stdin is not None
    victim.stdin.write(request.stdin)
    victim.stdin.close()
    time.sleep(0.2)  # it has been taken up
    try:
        yield held
        assert victim.wait(30) == 1
        assert victim.stdout is not None and b'"code":11' in victim.stdout.read()
    finally:
        for process in (victim, held):
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(10)
        victim.stdout.close()
    host.send(ask("DEL", "victim"))
    host.unmake(["victim"])


WAYS: Sequence[Callable[[Host, int], object]] = (
    stopped,
    looping,
    held_by_the_kernel,
    deadlocked,
)


@pytest.mark.matrix(id="T42", full=4, reduced=2)
def test_a_stuck_agent_is_noticed_and_started_again_and_no_packet_is_lost(
    new_host: Callable[..., Host], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    full = count == len(WAYS)
    limits = (30, 45) if full else (4, 5)
    made = new_host(f"watchdog:\n  limit: {limits[0]}\n")
    made.command = [
        *(str(SUPERVISE), "--watchdog", str(limits[1]), "/run/weft-supervise.pid"),
        *(sys.executable, "-c", STARTER),
    ]
    with watched(made) as host:
        pods = {name: host.add(name) for name in (f"pod-{n}" for n in range(PODS))}
        with running(load(host, pods)) as traffic:
            for way in WAYS[:count]:
                took = _stuck_once(host, way)
                with capsys.disabled():
                    print(f"\nT42: {way.__name__}: serving again after {took:.1f} s", end="")
            report = traffic.end()
        with capsys.disabled():
            print(f"\nT42: {report.summary()}")
        assert report.problems() == []
        assert host.pod_links == {host_link(name) for name in pods}
        for name in pods:
            host.drop(name)


def _stuck_once(host: Host, way: Callable[[Host, int], object]) -> float:
    """One way to be stuck, noticed by everybody who should; seconds until it serves again."""
    agent, said = agent_of(host), len(host.log())
    began = time.monotonic()
    words = "did not turn in time" if way is stopped else "the loop has not turned for"
    with way(host, agent) as holder:  # type: ignore[attr-defined]
        status = host.send(ask("STATUS"))
        assert not problems([status], status=1, code=50)
        assert status.seconds < STATUS_LIMIT + BUSY
        if way is not stopped:  # then nobody can answer
            _wait_unwell(host)
        while not agent_of(host) or agent_of(host) == agent or host.send(ask("STATUS")).status != 0:
            assert time.monotonic() - began < RESTART_LIMIT, host.log()[said:][-3000:]
            if holder is not None and words in host.log()[said:]:
                holder.kill()
            time.sleep(0.1)
        took = time.monotonic() - began
    assert words in host.log()[said:]
    if way in (looping, deadlocked):
        assert ("in endless_loop" in host.log()[said:]) == (way is looping)
        assert ("in deadlock" in host.log()[said:]) == (way is deadlocked)
    return took


def _wait_unwell(host: Host) -> None:
    """The health page says 503 while the agent's loop is stuck, before it is ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), entering.network(host.node.network):
            if page("127.0.0.1:9464", "/healthz")[0] == 503:
                return
        time.sleep(0.05)
    raise AssertionError("the health page never said that the agent is stuck")
