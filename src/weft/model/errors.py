"""The error tree, named by what the caller can do about it.

Every room raises these and nothing else across its door. Each carries a `reason`, a key of
`model.reasons` that `weft explain REASON` looks up: the table there also says which CNI error
code it becomes and whether it is decided before the first effect. A message says what was
asked, what stood in the way and what to do next.
"""

from __future__ import annotations

import errno as _errno

PASSING = frozenset(
    (_errno.EAGAIN, _errno.EBUSY, _errno.EINTR, _errno.ENOBUFS, _errno.ENOMEM, _errno.ERESTART)
)
"""What the kernel answers when it has no room, or is at work, just now. EBUSY and ENOMEM: also a
hashed set that is being enlarged (rhashtable_insert_rehash). EBUSY also means that something is in
use, which need not pass: whoever tries again, tries a bounded number of times."""


class WeftError(Exception):
    """Root of the tree. `message` is for a person; `reason` is a key of `model.reasons`."""

    default_reason = "internal"

    def __init__(self, message: str, *, reason: str | None = None, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.details = details


class Invalid(WeftError):
    """The request is wrong; `field` names the offending field (dotted path, or env variable)."""

    default_reason = "invalid-config"

    def __init__(
        self, message: str, *, field: str = "", reason: str | None = None, details: str = ""
    ) -> None:
        super().__init__(message, reason=reason, details=details)
        self.field = field


class Unsupported(WeftError):
    """This node, kernel or version cannot do what was asked."""

    default_reason = "unsupported"


class NotReady(WeftError):
    """Not yet; try again after `retry_after` seconds."""

    default_reason = "not-ready"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float = 1.0,
        reason: str | None = None,
        details: str = "",
    ) -> None:
        super().__init__(message, reason=reason, details=details)
        self.retry_after = retry_after


class NotFound(WeftError):
    """The named object does not exist."""

    default_reason = "not-found"


class Conflict(WeftError):
    """Somebody else wrote first, or the thing asked for belongs to somebody else."""

    default_reason = "conflict"


class Exhausted(WeftError):
    """No address, mark or identity is left."""

    default_reason = "exhausted"


class KernelRefused(WeftError):
    """The kernel answered `errno` to `operation` on `row` (the row's printed key)."""

    default_reason = "kernel-refused"

    def __init__(self, errno: int, operation: str, row: str = "", hint: str = "") -> None:
        name = _errno.errorcode.get(errno, str(errno))
        about = f" {row}" if row else ""
        super().__init__(
            f"the kernel refused to {operation}{about}: {name}" + (f"; {hint}" if hint else "")
        )
        self.errno = errno
        self.operation = operation
        self.row = row

    @property
    def passes(self) -> bool:
        """Whether the kernel may take the same request a moment later."""
        return self.errno in PASSING


class PeerFault(WeftError):
    """The other side of a socket broke the protocol or went away."""

    default_reason = "peer-fault"
