"""Files below /proc/sys, of the network namespace in which the calling thread is.

A message is the path, a NUL and the value, so that a batch of writes looks like any other batch.
/proc/sys/net shows the namespace of the thread that looks a path up, not of the mount. All
namespaces share one directory there, and the kernel's name cache keeps an `ipv4` and an `ipv6` of
every one of them in one hash chain: with hundreds of pods each look-up from the root walks
hundreds of entries (0.1 ms a file). `Files` therefore looks `net/ipv6/conf` up once, and
everything else relative to that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from weft.model.errors import KernelRefused

ROOT = b"/proc/sys/"
_ANCHOR = 3
"""Components of a path that are looked up once: `net/ipv6/conf`, `net/ipv4/neigh`."""


def message(path: str, value: str) -> bytes:
    """One write."""
    return f"{path}\0{value}".encode()


_LOCKING = (b"/disable_ipv6", b"/forwarding")
"""Written under the lock of all links, for which a busy node's writers spin (ERESTARTNOINTR): read
first, because a new link has mostly inherited the value that is wanted."""


class Files:
    """The files of one namespace. Nothing is open before the first use; what has been used once
    is reached also from other namespaces."""

    def __init__(self) -> None:
        self._anchors: dict[bytes, int] = {}

    def write(self, messages: Sequence[bytes]) -> list[tuple[int, int]]:
        """Do all writes in order; those refused are returned as (place in the batch, errno)."""
        refused = []
        for at, item in enumerate(messages):
            path, _, value = item.partition(b"\0")
            try:
                fd = self._open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if not path.endswith(_LOCKING) or os.pread(fd, 64, 0).strip() != value:
                        os.write(fd, value)
                finally:
                    os.close(fd)
            except OSError as error:
                refused.append((at, error.errno or errno.EIO))
        return refused

    def read(self, path: str) -> str | None:
        """The value without its line end; None where there is no such file, also when its link
        goes while it is read (proc_sys_read answers ENOENT then). Raises KernelRefused."""
        try:
            fd = self._open(path.encode(), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(fd, 4096).decode(errors="replace").strip()
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KernelRefused(error.errno or errno.EIO, "read the sysctl", path) from error

    def _open(self, path: bytes, flags: int) -> int:
        if b"/../" in path:
            raise OSError(errno.EINVAL, "a path with ..")
        parts = path.split(b"/", _ANCHOR)
        if len(parts) <= _ANCHOR:
            return os.open(ROOT + path, flags)
        rest = parts.pop()
        start = b"/".join(parts)
        anchor = self._anchors.get(start)
        if anchor is None:
            anchor = os.open(ROOT + start, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._anchors[start] = anchor
        return os.open(rest, flags, dir_fd=anchor)

    def close(self) -> None:
        """Give the directories back; they can be used again."""
        for fd in self._anchors.values():
            os.close(fd)
        self._anchors.clear()


def write(messages: Sequence[bytes]) -> list[tuple[int, int]]:
    """As `Files.write`, for a single batch."""
    files = Files()
    try:
        return files.write(messages)
    finally:
        files.close()


def read(path: str) -> str | None:
    """As `Files.read`, for a single file."""
    files = Files()
    try:
        return files.read(path)
    finally:
        files.close()
