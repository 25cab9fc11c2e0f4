"""Speaking from the first moment on: a process that waits for a link and sends as soon as it is up.

A process of its own, because nothing else runs in the moment that counts. What it sends is heard,
or not, by `ears`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from weft.lab import entering, libc

_LIMIT = 60  # seconds that it lives, whatever becomes of its parent


class Hasty:
    """Sends frames on `eth0` of a namespace, over and over, for the length of a `with` block, from
    the moment in which there is such a link."""

    def __init__(self, network: str | Path, frames: Sequence[bytes]) -> None:
        self._network = network
        self._frames = frames
        self._pid = 0

    def __enter__(self) -> Hasty:
        self._counts, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                libc.die_with_parent(signal.SIGKILL)
                signal.alarm(_LIMIT)
                if os.getppid() == parent:
                    self._send(report)
            finally:
                os._exit(0)
        os.close(report)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        os.close(self._counts)

    def taken(self) -> int:
        """How many frames the link has taken since this was asked last. A pipe's worth at most."""
        found = 0
        while True:
            try:
                piece = os.read(self._counts, 1 << 16)
            except BlockingIOError:
                return found
            if not piece:
                return found
            found += len(piece)

    def silence(self) -> int:
        """End it; what `taken` has not told yet."""
        self._end()
        return self.taken()

    def _end(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _send(self, report: int) -> None:
        """The process's whole life: an octet to the pipe for each frame that the link took."""
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # beside the node, not instead of it
        raw = entering.socket_in(self._network, socket.AF_PACKET, socket.SOCK_RAW)
        with entering.network(self._network):
            while True:
                try:
                    raw.bind(("eth0", 0))
                    break
                except OSError:  # there is no such link yet
                    continue
        while True:
            for frame in self._frames:
                try:
                    raw.send(frame)
                    os.write(report, b".")
                except OSError:  # the link is not up yet, or the pipe is full
                    continue
