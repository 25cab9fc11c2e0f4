"""strace on the threads that a program begins, from the first call of each.

strace's own following of threads (`-f`) strikes whichever thread makes the n-th call of a name,
the main one as well. Here the program holds its threads (`held`), and each gets a strace and a log
of its own.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec

from weft.lab.crash import tracing
from weft.lab.crash.scope import Scope
from weft.lab.crash.tracing import MAIN, WORKER, Injection, Point, Watching
from weft.model.errors import NotReady


class Newcomers(Scope):
    """The threads of one program, for the length of a `with` block; `attend` lets them go on."""

    def __init__(self, log: Path, injection: Injection | None = None) -> None:
        self._log = log
        self._injection = injection
        self._stack = ExitStack()
        self._logs: list[Path] = []

    def __enter__(self) -> Newcomers:
        self._told, told = os.pipe2(os.O_CLOEXEC)
        go, self._go = os.pipe2(os.O_CLOEXEC)
        self.descriptors = (told, go)
        for each in (*self.descriptors, self._told, self._go):
            self._stack.callback(os.close, each)
        return self

    def close(self) -> None:
        """Look at no thread any more."""
        self._stack.close()
        for log in self._logs:
            log.unlink(missing_ok=True)

    @property
    def command(self) -> list[str]:
        """What stands before the arguments of `weft`."""
        told, go = self.descriptors
        return [sys.executable, "-m", "weft.lab.crash.held", str(told), str(go)]

    def attend(self) -> None:
        """Look at the threads that have begun, and let them run."""
        while select.select([self._told], [], [], 0)[0]:
            for number in os.read(self._told, 4096).split():
                log = self._log.with_name(f"{self._log.name}.{len(self._logs)}")
                self._logs.append(log)
                thread, injection = int(number), self._injection
                try:
                    watching = Watching(thread, log, only=MAIN, injection=injection)
                    self._stack.enter_context(watching)
                except (NotReady, FileNotFoundError):
                    if Path(f"/proc/{thread}").exists():
                        raise
                    return  # the program was killed meanwhile, by the fault in another thread
                os.write(self._go, b"x")

    def points(self) -> list[Point]:
        """Every call that was traced, thread by thread."""
        return [
            msgspec.structs.replace(each, thread=WORKER)
            for log in self._logs
            for each in tracing.read(log)
        ]

    def struck(self) -> str:
        """As `tracing.struck`. Of a program that was killed, the thread that had come farthest."""
        farthest = sorted(self._logs, key=lambda log: len(tracing.read(log)), reverse=True)
        return next((words for log in farthest if (words := tracing.struck(log))), "")
