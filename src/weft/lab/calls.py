"""Calling a Python function inside a lab node.

A fork enters the node's namespaces, runs the function and sends its value back through a pipe.
Values are what msgspec can write without being told a type: None, numbers, strings, bytes,
lists, tuples (arriving as lists) and dicts. An exception arrives as WeftError with its text.
"""

from __future__ import annotations

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


def call(
    node: Node,
    function: Callable[..., Any],
    *arguments: Any,
    pod: str | None = None,
    timeout: float = 60.0,
) -> Any:
    """The value of `function(*arguments)`, run inside the node, or inside a pod of it."""
    answer, report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _serve(node, function, arguments, pod, report)
    os.close(report)
    try:
        raw = _read(answer, timeout)
    except NotReady:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(answer)
        os.waitpid(pid, 0)
    if not raw:
        raise WeftError(f"{function.__name__} in lab node {node.name} died without an answer")
    good, value = msgspec.msgpack.decode(raw)
    if not good:
        raise WeftError(str(value))
    return value


def _read(fd: int, timeout: float) -> bytes:
    pieces: list[bytes] = []
    while True:
        if not select.select([fd], [], [], timeout)[0]:
            raise NotReady(f"no answer from the lab node within {timeout} s")
        piece = os.read(fd, 1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _serve(
    node: Node, function: Callable[..., Any], arguments: Any, pod: str | None, report: int
) -> None:
    try:
        libc.die_with_parent(signal.SIGKILL)
        node.enter()
        if pod is not None:
            with open(f"/run/netns/{pod}", "rb") as there:
                libc.setns(there.fileno(), libc.CLONE_NEWNET)
        answer = msgspec.msgpack.encode((True, function(*arguments)))
    except WeftError as refused:
        answer = msgspec.msgpack.encode((False, refused.message))
    except BaseException:  # a forked child must never run its parent's cleanup
        answer = msgspec.msgpack.encode((False, traceback.format_exc(limit=6)))
    try:
        with open(report, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
