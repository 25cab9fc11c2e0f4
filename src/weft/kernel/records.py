"""Records of ours on disk: one JSON object with the number of its format.

A record that is not there is None. One that cannot be read, or that a newer release wrote, is never
taken for one that is not there: what it lists would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from weft.kernel import files
from weft.model.errors import NotFound, Unsupported


class Formatted(Protocol):
    """A struct that says its format."""

    @property
    def format(self) -> int: ...


T = TypeVar("T", bound=Formatted)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of record is read: the newest format that is known, the most octets, and the
    reason under which it is refused; `unread` says what to do about one that cannot be read."""

    format: int
    largest: int
    reason: str
    unread: str


def read(path: Path, kind: type[T], how: Reading, newer: Callable[[T], str]) -> T | None:
    """The record; None where there is none. `newer`: what to do about a newer release's. Raises
    Unsupported, and what `files.read` raises."""
    try:
        raw = files.read(path, how.largest)
    except NotFound:
        return None
    try:
        found = msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise Unsupported(
            f"{path} cannot be read ({error}); {how.unread}", reason=how.reason
        ) from error
    if found.format > how.format:
        raise Unsupported(
            f"{path} is of a newer release (format {found.format}); {newer(found)}",
            reason=how.reason,
        )
    return found
