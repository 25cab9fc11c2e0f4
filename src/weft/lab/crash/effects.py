"""The system calls at which a sweep stops or fails a program.

An effect is a call that changes what the kernel or a file system holds, changes the caller's
namespace, or tells another process something: between two of them a kill makes no difference that
anybody could see. A fault can also strike what only takes - a descriptor, an answer - so errnos
are swept over those calls too.

A question to the kernel over netlink is told by its type, and is no effect: between two questions a
kill makes no difference either.

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


_MESSAGES = re.compile(r"\bnlmsg_type=(\w+)")
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_QUESTIONS = frozenset((1, 4, 7, 10, 13, 16, 19))  # NFT_MSG_GETTABLE ... GETOBJ
_RTNETLINK = 16  # RTM_BASE; from there on the third of every four is a question
_LAST_OF_RTNETLINK = 0xFF


def is_effect(name: str, words: str) -> bool:
    """Whether the call changes or tells something; `words` are its arguments as strace prints."""
    if name in _OPENS:
        return _MAKES.search(words) is not None
    return name in EFFECTS and not (name in ("sendto", "sendmsg") and _only_asks(words))


def _only_asks(words: str) -> bool:
    """Whether all is questions to the kernel. Batches of nftables begin with another message."""
    kinds = _MESSAGES.findall(words)
    return "NETLINK" in words and bool(kinds) and all(map(_is_question, kinds))


def _is_question(kind: str) -> bool:
    """Of a type as strace prints it: a number where it does not know the socket's protocol."""
    if not kind.startswith("0x"):
        return "_GET" in kind
    number = int(kind, 16)
    if number >> 8 == _NFTABLES:
        return number & 0xFF in _QUESTIONS
    return _RTNETLINK <= number <= _LAST_OF_RTNETLINK and (number - _RTNETLINK) % 4 == 2


def can_fail(name: str) -> bool:
    """Whether a sweep of errnos strikes the call."""
    return name in TAKING or name in EFFECTS
