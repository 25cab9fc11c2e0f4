"""Throw-away network namespaces for tests of the kernel and driver rooms.

A test's body runs in a child process with a namespace of its own as "the node", so that nothing
of it can touch the machine's network, and nothing is left behind however it ends. Further
namespaces are plain descriptors: closing the last one gives the namespace back.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from weft.kernel.namespaces import CLONE_NEWNET

_libc = ctypes.CDLL(None, use_errno=True)


def _unshare() -> None:
    if _libc.unshare(CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def new_namespace() -> int:
    """A descriptor of a new, empty network namespace."""
    found: list[int] = []

    def make() -> None:
        _unshare()  # of this thread only
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


def on_a_node(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child process inside a new network namespace."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            status = 1
            try:
                _unshare()
                test(*args, **kwargs)
                status = 0
            except BaseException:
                os.write(writing, traceback.format_exc().encode()[-60_000:])
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            report = stream.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        assert status == 0, f"inside the node's namespace:\n{report}"

    return wrapper
