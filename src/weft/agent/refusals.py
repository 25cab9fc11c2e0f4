"""What a caller is told when the system refuses something that no room turned into an error.

Rooms name what they foresee. What is left are system calls that fail although nothing is wrong with
the request: a socket or a file that cannot be had (EMFILE, ENOMEM), a disk or a kernel that answers
EIO. They are no faults of weft's code, and whoever reads the code and the errno can do something.
Where it is known what was being done, the error carries it as a note (PEP 678).
"""

from __future__ import annotations

import errno
import os

from weft.kernel.netlink import Failure
from weft.model.errors import NotReady, WeftError

_SCARCE = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.ENOSPC,
    errno.EDQUOT,
}  # fmt: skip
"""What comes back by itself, or once somebody has made room: worth trying again."""


def told(error: Exception) -> WeftError:
    """The error as one that can be answered; what nobody foresees has the reason `internal`."""
    if isinstance(error, WeftError):
        return error
    answer = _answer(error)
    answer.__cause__ = error
    return answer


def _answer(error: Exception) -> WeftError:
    if isinstance(error, MemoryError):
        return NotReady("the agent has no memory left", reason="out-of-resources")
    if not isinstance(error, OSError | Failure) or not error.errno:
        return WeftError(f"{type(error).__name__}: {error}", reason="internal")
    words = f"{_doing(error)}: {_name(error.errno)} ({os.strerror(error.errno)})"
    if error.errno in _SCARCE:
        return NotReady(words, reason="out-of-resources")
    return WeftError(words, reason="system-call-failed")


def _name(code: int) -> str:
    return errno.errorcode.get(code, str(code))


def _doing(error: OSError | Failure) -> str:
    notes = "; ".join(getattr(error, "__notes__", ()))
    if isinstance(error, Failure):
        return notes or "a request to the kernel was refused"
    about = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
    return (notes or "a system call failed") + about
