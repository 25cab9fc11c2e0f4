"""Which kernels weft runs on, told from the release alone, the text of `uname -r`.

5.15 is the oldest kernel that weft is made for. The number decides at the door only: what a
kernel of a good number lacks is found by trying, and said by `weft status`.

Red Hat's kernels for version 9 keep the number 5.14 and take the network stack of later ones with
each minor release. They count as 5.15 from 9.4 on (build 427), and those before do not. Other
numbers below 5.15 are taken at their word, whatever a distributor has added.
"""

from __future__ import annotations

import re

from weft.model.errors import Unsupported

OLDEST = (5, 15)
BACKPORTED = 427
"""The first build of `5.14.0-BUILD.el9` that counts: that of version 9.4."""

_NUMBER = re.compile(r"([0-9]{1,4})\.([0-9]{1,6})(?![0-9])")
_ENTERPRISE = re.compile(r"5\.14\.0-([0-9]{1,6})(?:\.[0-9.]+)?\.el9(?:_[0-9]+)?(?:[.+].*)?")


def unsupported(release: str) -> str | None:
    """Why weft does not run on this kernel, for a person; None where it does.

    A release that cannot be read is refused: nothing is known of such a kernel.
    """
    found = _NUMBER.match(release)
    oldest = ".".join(map(str, OLDEST))
    if found is None:
        return (
            f"cannot tell the version of this kernel from its release {release[:64]!a}; weft needs "
            f"Linux {oldest} or newer"
        )
    if (int(found[1]), int(found[2])) >= OLDEST:
        return None
    if (build := _ENTERPRISE.fullmatch(release)) is not None and int(build[1]) >= BACKPORTED:
        return None
    return (
        f"this kernel is Linux {release[:64]}, and weft needs {oldest} or newer (or 5.14.0-"
        f"{BACKPORTED}.el9 or newer, of version 9.4); boot a newer kernel"
    )


def require_supported(release: str) -> None:
    """Raise Unsupported, reason `unsupported-kernel`, unless weft runs on this kernel."""
    if (why := unsupported(release)) is not None:
        raise Unsupported(why, reason="unsupported-kernel")
