"""The system calls at which a sweep stops or fails a program.

An effect is a call that changes what the kernel or a file system holds, changes the caller's
namespace, or tells another process something: between two of them a kill makes no difference that
anybody could see. A fault can also strike what only takes - a descriptor, an answer - so errnos
are swept over those calls too.

`close` is in neither table. A kill closes everything the process had at once, so it shows nothing
that the kill at the next effect does not; and strace makes a call fail by not performing it, which
for close would leave a descriptor open that the kernel never does (close(2): the descriptor is
gone also when an error is reported).
"""

from __future__ import annotations

import re

_WRITES = ("write", "writev", "pwrite64", "pwritev", "ftruncate", "truncate", "fallocate")
_NAMES = (
    *("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat"),
    *("rename", "renameat", "renameat2", "chmod", "fchmod", "fchmodat", "chown", "fchown"),
)
_DURABLE = ("fsync", "fdatasync", "sync_file_range")
_TOLD = ("sendto", "sendmsg", "sendmmsg", "bind", "connect", "listen", "shutdown")
_PLACES = ("setns", "unshare", "mount", "umount2")
_OPENS = ("open", "openat", "openat2")

EFFECTS: frozenset[str] = frozenset((*_WRITES, *_NAMES, *_DURABLE, *_TOLD, *_PLACES))
"""Calls that are effects whatever their arguments. Opening a file is one if it may make it."""
TAKING: frozenset[str] = frozenset((*_OPENS, "socket", "accept4", "recvfrom", "recvmsg", "flock"))
"""Calls without an effect of their own, which fail on real machines all the same."""
TRACED: tuple[str, ...] = tuple(sorted(EFFECTS | TAKING))

_MAKES = re.compile(r"\bO_(?:CREAT|TRUNC|TMPFILE)\b")


def is_effect(name: str, words: str) -> bool:
    """Whether the call changes or tells something; `words` are its arguments as strace prints."""
    if name in _OPENS:
        return _MAKES.search(words) is not None
    return name in EFFECTS


def can_fail(name: str, words: str) -> bool:
    """Whether a sweep of errnos strikes the call."""
    return name in TAKING or is_effect(name, words)
