"""The root of all rows, where a row lives, and a change of one.

A `Place` is relative to an attachment: HOST is the node's own network namespace, POD is the one
namespace the attachment was asked for. Next: `rows.links`, `rows.routes`, `rows.rules`.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import msgspec


class Place(enum.IntEnum):
    """Which namespace a row lives in."""

    HOST = 0
    POD = 1


RowKey = tuple[Any, ...]
"""First member: the row's class name; then whatever identifies the kernel object."""


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that a kernel can hold."""

    @property
    def key(self) -> RowKey:
        """Identity of the kernel object; equal keys mean the same object."""
        raise NotImplementedError

    def __str__(self) -> str:
        return " ".join(_plain(part) for part in self.key)


class Change(NamedTuple):
    """`old` is what the shadow holds, `new` what is wanted; one of them may be None."""

    old: Row | None
    new: Row | None

    @property
    def row(self) -> Row:
        """The row the change is about, for messages."""
        row = self.new if self.new is not None else self.old
        if row is None:
            raise ValueError("a change needs an old or a new row")
        return row


def _plain(part: object) -> str:
    if isinstance(part, bytes):
        return part.hex()
    if isinstance(part, tuple):
        return "/".join(_plain(p) for p in part)
    return str(part.name.lower() if isinstance(part, enum.Enum) else part)
