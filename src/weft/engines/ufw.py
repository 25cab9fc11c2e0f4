"""ufw: whether it is on, what its files hold, and its command.

A rule takes effect at once and is kept in /etc/ufw, so it is there before the agent after a reboot.
Source: ufw(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from weft.engines import programs

HOME = Path("/etc/ufw")
FILES = ("user.rules", "user6.rules")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The text of `ufw.conf` and of the files of rules; empty where there is none."""

    configuration: str
    rules: str


def kept() -> Kept:
    """What ufw has written down."""
    return Kept(
        configuration=_text(HOME / "ufw.conf"),
        rules="\n".join(_text(HOME / name) for name in FILES),
    )


def change(commands: Iterable[Sequence[str]]) -> None:
    """Run its commands. Raises PeerFault, Unsupported."""
    for command in commands:
        programs.run(command)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
