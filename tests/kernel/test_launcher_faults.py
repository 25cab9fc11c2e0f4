"""DEL without an agent under faults: killed at each system call, refused by the kernel, overtaken
by an agent that comes up. Through strace's injection, which the sanitizers do not bear.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from launching import ATTACHMENT, CONFIG, Agent, Launcher, succeed

from weft.cni.queue import read_queue

ENVIRONMENT = {**ATTACHMENT, "CNI_COMMAND": "DEL"}


@pytest.fixture(scope="module")
def compiled() -> Iterator[Launcher]:
    launcher = Launcher(sanitize=False)
    yield launcher
    launcher.remove()


def injected(launcher: Launcher, *faults: str) -> subprocess.CompletedProcess[bytes]:
    """A DEL with faults at the system calls that strace's `inject` names."""
    return subprocess.run(
        [
            "unshare",
            "--net",
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            *(word for fault in faults for word in ("-e", f"inject={fault}")),
            str(launcher.program),
        ],
        env=ENVIRONMENT,
        input=CONFIG,
        capture_output=True,
        timeout=20,
        check=False,
    )


def test_an_agent_that_begins_to_listen_meanwhile_gets_the_delete(launcher: Launcher) -> None:
    agents: list[Agent] = []
    done = threading.Event()

    def come_up() -> None:
        while not done.is_set():
            if list(launcher.queue.glob("*.req")):  # queued: the first knock was in vain
                agents.append(Agent(launcher.socket, succeed()))
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=come_up)
    watcher.start()
    # asking rtnetlink comes between the queue and the second knock: there is time to come up
    run = injected(launcher, "sendto:delay_enter=300ms")
    done.set()
    watcher.join()
    (agent,) = agents
    agent.close()
    assert (run.returncode, run.stdout) == (0, b""), run.stderr
    (request,) = agent.requests
    assert request.variables() == ENVIRONMENT
    assert not request.is_queued
    assert list(launcher.queue.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("open,openat:error=EACCES", b"Permission denied"),
        ("write:error=EFBIG:when=1", b"File too large"),
    ],
)
def test_a_delete_that_cannot_be_queued_fails_and_leaves_nothing(
    launcher: Launcher, fault: str, words: bytes
) -> None:
    run = injected(launcher, fault)
    assert run.returncode == 1, run.stderr
    assert b'"code":11' in run.stdout and b"could not be queued" in run.stdout
    assert words in run.stdout
    assert not launcher.queue.exists() or list(launcher.queue.iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [
        "write:error=ENOSPC:when=1",
        "write:error=EDQUOT:when=1",
        "rename,renameat,renameat2:error=EROFS",
        "mkdirat:error=EROFS",
        "fstat,newfstatat:error=EIO",
    ],
)
def test_a_delete_succeeds_on_a_disk_that_takes_nothing_if_the_link_is_gone(
    launcher: Launcher, fault: str
) -> None:
    run = injected(launcher, fault)
    assert (run.returncode, run.stdout) == (0, b"")
    assert b"could not be queued" in run.stderr
    assert not launcher.queue.exists() or list(launcher.queue.iterdir()) == []


def test_a_delete_that_neither_removes_the_link_nor_is_queued_fails(launcher: Launcher) -> None:
    run = injected(launcher, "mkdirat:error=EROFS", "sendto:error=ENOBUFS")
    assert run.returncode == 1
    assert b'"code":11' in run.stdout


@pytest.mark.parametrize(
    "fault", ["socket:error=EMFILE", "sendto:error=ENOBUFS", "recvfrom:error=EIO"]
)
def test_a_delete_whose_link_cannot_be_removed_is_queued_all_the_same(
    launcher: Launcher, fault: str
) -> None:
    run = injected(launcher, fault)
    assert (run.returncode, run.stdout) == (0, b"")
    assert len(read_queue(launcher.queue)) == 1


def calls_of_a_delete(launcher: Launcher) -> list[tuple[str, int]]:
    """Its system calls in order, each with how often that one was made by then."""
    log = launcher.home / "trace"
    subprocess.run(
        ["unshare", "--net", "strace", "-qq", "-o", str(log), str(launcher.program)],
        env=ENVIRONMENT,
        input=CONFIG,
        capture_output=True,
        check=True,
    )
    names = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)[1:]  # without its execve
    return [(name, names[: place + 1].count(name)) for place, name in enumerate(names)]


def test_killed_anywhere_a_delete_is_queued_whole_or_not_at_all(launcher: Launcher) -> None:
    queued: list[int] = []
    for name, number in calls_of_a_delete(launcher):
        launcher.clear()
        run = injected(launcher, f"{name}:signal=SIGKILL:when={number}")
        assert run.returncode in (-9, 137), (name, number)
        queued.append(len(read_queue(launcher.queue)))
        assert not list(launcher.queue.glob("*.bad"))
    assert queued == sorted(queued)  # absent up to one call, whole from then on
    assert (queued[0], queued[-1]) == (0, 1)
    assert len(queued) > 30
