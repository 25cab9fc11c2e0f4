"""Hearing of writes to files of directories: inotify(7).

Made for directories below /proc/sys, where it hears of every write that is made through the same
mount of /proc, and of no other. A watch pins nothing but the directory's inode: after the kernel
has dropped the name from its cache, a new one is unwatched. So whoever listens looks, too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_MODIFY, _ONLYDIR, _IGNORED, _OVERFLOW = 0x2, 0x01000000, 0x8000, 0x4000
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_ROOM = 1 << 16


class Written(NamedTuple):
    """A file `name` in the directory of `watch` was written. `watch` -1: events were lost."""

    watch: int
    name: str


class Inotify:
    """One inotify instance, for an event loop."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(_CLOEXEC | _NONBLOCK), "inotify_init1")

    def fileno(self) -> int:
        """For event loops."""
        return self._fd

    def watch(self, directory: str) -> int:
        """Hear of writes to its files. Raises OSError: ENOSPC where the user's watches are used
        up (fs.inotify.max_user_watches), ENOENT where there is no such directory."""
        mask = _MODIFY | _ONLYDIR
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), mask), directory)

    def forget(self, watch: int) -> None:
        """Hear no more; a watch whose directory is gone is fine."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Written]:
        """What was written since the last time."""
        try:
            data = os.read(self._fd, _ROOM)
        except BlockingIOError:
            return []
        found = []
        offset = 0
        while offset + _EVENT.size <= len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
            offset += length
            if mask & _OVERFLOW:
                found.append(Written(-1, ""))
            elif not mask & _IGNORED:
                found.append(Written(watch, name))
        return found

    def close(self) -> None:
        """Give the instance and all of its watches back."""
        os.close(self._fd)


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return answer
