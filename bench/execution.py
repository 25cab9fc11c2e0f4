"""Executing plugins the way a runtime does, at the smallest price of our own.

posix_spawn, standard input and output on memory files, so that nothing has to be pumped: an
execution is over when its process is. A *course* is a generator that yields one execution after
the other and is sent the output of each: an attachment's way through a chain. `follow` walks one
course, `race` many at once with a bounded number of processes.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from typing import NamedTuple

from weft.model.errors import WeftError

NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class Execution(NamedTuple):
    """One program to run."""

    path: str
    env: Mapping[str, str]
    stdin: bytes


class Refused(WeftError):
    """A program did not exit with 0."""


Course = Generator[Execution, bytes, None]
"""Yields executions, is sent their standard output."""


def start(run: Execution) -> tuple[int, int]:
    """Process id, and the memory file that holds the output."""
    given = os.memfd_create("in", os.MFD_CLOEXEC)
    os.write(given, run.stdin)
    os.lseek(given, 0, os.SEEK_SET)
    output = os.memfd_create("out", os.MFD_CLOEXEC)
    pid = os.posix_spawn(
        run.path,
        (run.path,),
        run.env,
        file_actions=(
            (os.POSIX_SPAWN_DUP2, given, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, NULL, 2),
        ),
    )
    os.close(given)
    return pid, output


def outcome(output: int) -> bytes:
    """What was written; closes the file."""
    size = os.lseek(output, 0, os.SEEK_END)
    said = os.pread(output, size, 0)
    os.close(output)
    return said


def answer(run: Execution) -> tuple[int, bytes]:
    """Run one program to its end: exit status and output."""
    pid, output = start(run)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), outcome(output)


def refusal(run: Execution, status: int, said: bytes) -> Refused:
    """The error for an exit status other than 0."""
    name = os.path.basename(run.path)
    verb = run.env.get("CNI_COMMAND", "")
    return Refused(f"{name} {verb} exited with {status}: {said[:300].decode(errors='replace')}")


def follow(course: Course) -> None:
    """Walk one course to its end. Raises Refused."""
    said: bytes | None = None
    while True:
        try:
            run = course.send(said) if said is not None else next(course)
        except StopIteration:
            return
        status, said = answer(run)
        if status != 0:
            raise refusal(run, status, said)


class Race(NamedTuple):
    """How many courses went that were walked at once: seconds of all, of each, what failed."""

    makespan: float
    each: list[float]
    failures: list[str]


def race(courses: Iterable[Course], width: int) -> Race:
    """Walk all courses, at most `width` processes at a time; other children are not waited for."""
    waiting = deque(courses)
    ends = select.poll()  # of descriptors of processes, which are readable when these end
    running: dict[int, tuple[int, Course, Execution, int, float]] = {}
    each: list[float] = []
    failures: list[str] = []

    def go(course: Course, said: bytes | None, begun: float) -> None:
        try:
            run = course.send(said) if said is not None else next(course)
        except StopIteration:
            each.append(time.perf_counter() - begun)
            return
        pid, output = start(run)
        end = os.pidfd_open(pid)
        ends.register(end, select.POLLIN)
        running[end] = pid, course, run, output, begun

    begin = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < width:
            go(waiting.popleft(), None, time.perf_counter())
        if not running:
            continue
        end = ends.poll()[0][0]
        pid, course, run, output, begun = running.pop(end)
        ends.unregister(end)
        os.close(end)
        _, status = os.waitpid(pid, 0)
        said = outcome(output)
        if status:
            code = os.waitstatus_to_exitcode(status)
            failures.append(refusal(run, code, said).message)
            course.close()
        else:
            go(course, said, begun)
    return Race(time.perf_counter() - begin, each, failures)
