"""strace, in the two ways a sweep needs it: around a launcher, and on a living agent.

The number of a system call counts calls of that name by that thread since the tracing began: this
is how strace counts when it injects (strace(1), `when=`). A launcher has one thread. An agent has
its loop, `main`, and the threads that wait for the kernel, `worker`; strace follows only those
whose point it is, so that the same number of another thread is not struck instead.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from weft.lab.crash.effects import TRACED
from weft.lab.crash.scope import Scope
from weft.model.errors import Invalid, NotReady, Unsupported

MAIN, WORKER = "main", "worker"
_ATTACH_LIMIT = 10.0
_CALL = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
_DEATH = re.compile(r"(?:(\d+) +)?\+\+\+ killed by SIGKILL")
_RESULT = re.compile(r"(.*)\)\s+= (?:\?|-?[0-9]+|0x[0-9a-f]+)")
_AGAIN = "ERESTARTNOINTR"
_SPELLED = re.compile(r"(main|worker):([a-z_0-9]+):([1-9][0-9]*)")


class Point(msgspec.Struct, frozen=True):
    """One system call of a verb: the `number`-th of its name in its thread."""

    thread: str
    call: str
    number: int
    words: str = ""  # its arguments as strace shows them

    @property
    def spelled(self) -> str:
        """As `--points` takes it."""
        return f"{self.thread}:{self.call}:{self.number}"


def spelled(text: str) -> Point:
    """A point as `Point.spelled` writes it. Raises Invalid."""
    found = _SPELLED.fullmatch(text)
    if found is None:
        raise Invalid(
            f"--points {text}: must be all, a number, or points like main:sendto:3 with commas "
            "between them",
            field="points",
        )
    return Point(found[1], found[2], int(found[3]))


def strace() -> str:
    """Where strace is. Raises Unsupported where it is not installed."""
    path = shutil.which("strace")
    if path is None:
        raise Unsupported(
            "the sweep injects its faults with strace, which is not installed; "
            "on Debian: apt-get install strace"
        )
    return path


class Injection(msgspec.Struct, frozen=True):
    """What strace does to calls of that name; `words` is the argument of its `-e`."""

    call: str
    words: str


def _options(log: str, injection: Injection | None) -> list[str]:
    if injection is not None:  # the other calls tell nothing, and cost their time
        options = ["-y", "-e", f"trace={injection.call}", "-e", injection.words]
    else:
        options = ["-yy", "-e", "trace=" + ",".join(f"?{name}" for name in TRACED)]
    return ["-s", "40", "-o", log, *options]


def around(argv: Sequence[str], log: Path, injection: Injection | None = None) -> list[str]:
    """A command that runs `argv` under strace; `log` is a path as the command sees it."""
    return [strace(), "-qq", *_options(str(log), injection), *argv]


def threads(pid: int) -> dict[str, list[int]]:
    """The threads of a process by their part: main is the one with the process's number."""
    others = [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]
    return {MAIN: [pid], WORKER: sorted(others)}


class Watching(Scope):
    """strace on a running process for the length of a `with` block."""

    def __init__(
        self, pid: int, log: Path, *, only: str = "", injection: Injection | None = None
    ) -> None:
        """`only`: the threads of this part alone, as they are now; otherwise all, also new ones."""
        self.pid = pid
        self.log = log
        targets = threads(pid)[only] if only else [pid]
        self._argv = [strace(), *([] if only else ["-f"]), *_options(str(log), injection)]
        for target in targets:
            self._argv += ["-p", str(target)]
        self._targets = len(targets)

    def __enter__(self) -> Watching:
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + _ATTACH_LIMIT
        said = b""
        while said.count(b" attached") < self._targets:
            assert self._process.stderr is not None
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._process.stderr], [], [], left)[0]
            piece = os.read(self._process.stderr.fileno(), 4096) if ready else b""
            if not piece:
                self.close()
                raise NotReady(f"strace could not be attached to process {self.pid}: {said!r}")
            said += piece
        return self

    def close(self) -> None:
        """Detach; the process goes on."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=_ATTACH_LIMIT)

    def points(self) -> list[Point]:
        """What was traced so far."""
        return read(self.log, self.pid)


def read(log: Path, main: int | None = None) -> list[Point]:
    """The calls in a log, in their order; `main` is the number of the main thread."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for line in _lines(log):
        call = _CALL.match(line)
        if call is None:
            continue
        if _AGAIN in line:  # the kernel begins it anew while others hold a lock
            continue
        who = call[1] or ""
        counts[who, call[2]] += 1
        thread = MAIN if not who or main is None or int(who) == main else WORKER
        found.append(Point(thread, call[2], counts[who, call[2]], _arguments(call[3])))
    return found


def struck(log: Path) -> str:
    """The last call before the process was killed, or the first that was made to fail; empty
    where neither happened."""
    last = ""
    killed = False
    for line in _lines(log):
        if "(INJECTED)" in line:
            return _shown(line)
        killed = killed or _DEATH.match(line) is not None
        last = line if _CALL.match(line) else last
    return _shown(last) if killed else ""


def is_mute(log: Path) -> bool:
    """Whether a program was kept from writing to its standard output."""
    return any("write(1<" in line and "(INJECTED)" in line for line in _lines(log))


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _arguments(text: str) -> str:
    """What stands between a call's brackets; a result is padded to a column."""
    whole = _RESULT.match(text)
    return whole[1] if whole else text.removesuffix(" <unfinished ...>")


def _shown(line: str) -> str:
    call = _CALL.match(line)
    return f"{call[2]}({_arguments(call[3])})" if call else line
