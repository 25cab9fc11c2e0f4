"""What to ask a host's firewall for: pass what comes from the pools, and what goes to them.

An `Admission` is one range in one direction. Where a firewall keeps rules, ours bear `MARK` as
their comment, and only what bears it is ever taken back. How each firewall is asked: `docker`,
`firewalld`, `ufw`; one that offers no place for others' rules is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from weft.model.addresses import Prefix

MARK = "weft admits pods"

Direction = Literal["from", "to"]
DIRECTIONS: tuple[Direction, ...] = ("from", "to")


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Everything from, or to, a range."""

    prefix: Prefix
    direction: Direction

    @property
    def words(self) -> str:
        """`from 10.244.0.0/16`."""
        return f"{self.direction} {self.prefix}"


def admissions(pools: Iterable[Prefix]) -> tuple[Admission, ...]:
    """Both directions of every pool."""
    return tuple(
        Admission(prefix=pool, direction=direction) for pool in pools for direction in DIRECTIONS
    )
