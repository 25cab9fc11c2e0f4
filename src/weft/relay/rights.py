"""What the relay gives up before it reads the first octet: every right that it does not need.

It opens sockets on ports of nobody's and connects. So it is nobody (a service manager may withhold
what changing the user takes: then root's user without any capability), can gain nothing by what it
executes, writes no core, and dies before the agent where memory is short.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of each set
_SPARE = 64  # descriptors besides those that are counted


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def give_up(descriptors: int) -> int:
    """Give up what is not needed; how many of so many `descriptors` there may be. Raises OSError
    where a right would be kept."""
    for path, text in (("comm", "weft-relay"), ("oom_score_adj", "0")):
        with suppress(OSError), open(f"/proc/self/{path}", "w", encoding="ascii") as file:
            file.write(text)
    os.chdir("/")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors + _SPARE
    room = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, room))
    with suppress(PermissionError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    nothing = (ctypes.c_uint32 * 6)()
    _check(libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), nothing))
    return room - _SPARE


def _check(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
