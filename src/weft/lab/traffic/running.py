"""Starting a prober's process, and its report.

with running(wanted) as traffic:
    ...                                  # what must not interrupt it
    report = traffic.end()
assert not report.problems()
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from weft.lab.traffic.reports import Report
from weft.lab.traffic.wanted import Wanted
from weft.model.errors import NotReady, WeftError

START_LIMIT = 30.0


class Traffic:
    """A prober that runs."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._process = subprocess.Popen(
            [sys.executable, "-m", "weft.lab.traffic"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def begin(self) -> None:
        """Returns when every flow goes through and is being counted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(self._wanted) + b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + START_LIMIT
        ready = select.select([self._process.stdout], [], [], deadline - time.monotonic())[0]
        if not ready or self._process.stdout.readline() != b"running\n":
            raise NotReady(f"the traffic did not come about: {self._kill()}")

    def end(self) -> Report:
        """End the traffic, wait for what is under way; raises WeftError if the prober failed."""
        patience = self._wanted.drain + 20.0
        try:
            out, err = self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise WeftError(f"the prober gives no report: {self._kill()}") from None
        if self._process.returncode != 0:
            raise WeftError(f"the prober failed: {err.decode(errors='replace')[-2000:]}")
        return msgspec.json.decode(out, type=Report)

    def _kill(self) -> str:
        self._process.kill()
        _, err = self._process.communicate()
        return err.decode(errors="replace")[-2000:]

    def close(self) -> None:
        """Give the process back, whatever its state."""
        if self._process.poll() is None:
            self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def running(wanted: Wanted) -> Iterator[Traffic]:
    """Traffic for the length of the block."""
    traffic = Traffic(wanted)
    try:
        traffic.begin()
        yield traffic
    finally:
        traffic.close()
