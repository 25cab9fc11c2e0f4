"""`weft agent` with threads that wait, before they do anything, until they are looked at.

    python -m weft.lab.crash.held TOLD GO agent ...

A thread that begins writes its number to the descriptor TOLD and reads an octet from GO, one at a
time, so that strace is on it at its first call: `newcomers` is the other side. Nothing else is
different from `weft agent`.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from contextlib import suppress


def hold(told: int, go: int) -> None:
    """Have every thread that begins from now on wait."""
    one = threading.Lock()
    run = threading.Thread.run

    def held(thread: threading.Thread) -> None:
        with one, suppress(BrokenPipeError):  # nobody looks any more
            os.write(told, b"%d\n" % threading.get_native_id())
            os.read(go, 1)
        run(thread)

    threading.Thread.run = held  # type: ignore[method-assign, assignment]  # all threads run it


if __name__ == "__main__":
    hold(int(sys.argv[1]), int(sys.argv[2]))
    del sys.argv[1:3]
    runpy.run_module("weft.main", run_name="__main__", alter_sys=True)
