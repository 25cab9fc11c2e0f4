"""A process that lives inside a lab node and does there what it is asked to.

The measuring code has to run inside the node: an exec from outside would have to enter four
namespaces first. One object is made in the child; a question is the name of one of its methods
with arguments, the answer is what msgspec can write. The child ends with its parent.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from weft.lab import libc
from weft.lab.nodes import Node
from weft.model.errors import NotReady, WeftError

_SIZE = 4


class Worker:
    """The parent's handle of the process."""

    def __init__(self, node: Node, make: Callable[..., Any], *arguments: Any) -> None:
        self.node = node
        inward, self._ask = os.pipe2(os.O_CLOEXEC)
        self._hear, outward = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._ask)
            os.close(self._hear)
            _live(node, make, arguments, inward, outward)
        os.close(inward)
        os.close(outward)

    def ask(self, verb: str, *arguments: Any, within: float = 120.0) -> Any:
        """What the object's method answers. WeftError: it raised; NotReady: no answer in time."""
        _send(self._ask, (verb, arguments))
        if not select.select([self._hear], [], [], within)[0]:
            raise NotReady(f"{verb} in {self.node.name} has no answer after {within:.0f} s")
        answer = _receive(self._hear)
        if answer is None:
            raise WeftError(f"{verb} in {self.node.name} died without an answer")
        good, value = answer
        if not good:
            raise WeftError(f"{verb} in {self.node.name} failed: {value}")
        return value

    def close(self) -> None:
        """End the process."""
        os.close(self._ask)
        os.close(self._hear)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _send(fd: int, value: Any) -> None:
    raw = msgspec.msgpack.encode(value)
    data = len(raw).to_bytes(_SIZE, "big") + raw
    while data:
        data = data[os.write(fd, data) :]


def _receive(fd: int) -> Any:
    head = _exactly(fd, _SIZE)
    if head is None:
        return None
    body = _exactly(fd, int.from_bytes(head, "big"))
    return None if body is None else msgspec.msgpack.decode(body)


def _exactly(fd: int, size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size:
        piece = os.read(fd, size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _live(
    node: Node, make: Callable[..., Any], arguments: tuple[Any, ...], inward: int, outward: int
) -> None:
    """The child's whole life; never returns."""
    try:
        libc.die_with_parent(signal.SIGKILL)
        node.enter()
        thing: Any = None
        # no collection inside a timed window: the garbage of a run is small
        gc.disable()
        while (question := _receive(inward)) is not None:
            verb, values = question
            try:
                if thing is None:
                    thing = make(*arguments)
                answer = (True, getattr(thing, verb)(*values))
            except Exception as failure:  # the parent decides; a worker has no other voice
                shown = failure.message if isinstance(failure, WeftError) else None
                answer = (False, shown or traceback.format_exc(limit=-4))
            _send(outward, answer)
            gc.collect()
    finally:
        os._exit(0)  # a forked child must never run its parent's cleanup
