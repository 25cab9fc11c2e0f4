"""Where a container may connect to: an allow-list of its own, or none at all.

Three values: no list (nothing is restricted), a list (an empty one allows nothing), and a list that
is not known any more (`UNKNOWN`, which allows nothing either and says so). A list is canonical:
its flows are disjoint and sorted, so that two containers that were given the same rules have the
same list, whose `digest` names it everywhere. `model.boxes` makes lists so; `render.egress` turns
one into packet rules that all of its containers share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import msgspec

from weft.model.boxes import Box, disjoint

ALL, ICMP, TCP, UDP, ICMP6 = 0, 1, 6, 17, 58
"""Protocols by IANA's numbers; 0 stands for every protocol."""
MAX_FLOWS = 16_384
"""Disjoint ranges of one list."""
HIGHEST = 65_535
_DIGEST = 16  # octets


class Flow(msgspec.Struct, frozen=True, array_like=True, order=True):
    """New connections to `first`..`last` (packed addresses of one family) by `protocol`, to ports
    `low`..`high`; of ICMP, to types and codes as `type << 8 | code`. `log`: they are told of."""

    protocol: int
    first: bytes
    last: bytes
    low: int = 0
    high: int = HIGHEST
    log: bool = False

    @property
    def version(self) -> Literal[4, 6]:
        """4 or 6."""
        return 4 if len(self.first) == 4 else 6


class EgressList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """What is allowed: `flows` to others than containers and the node, `services` at addresses of
    the node itself. `known` False: it was lost, and allows nothing."""

    flows: tuple[Flow, ...] = ()
    services: tuple[Flow, ...] = ()
    known: bool = True

    @cached_property
    def digest(self) -> str:
        """What the list is called: 128 bits of SHA-256 over its canonical form, in hexadecimal."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[: 2 * _DIGEST]

    @property
    def logs(self) -> bool:
        """Whether any of its connections are to be told of."""
        return any(each.log for each in self.flows)


UNKNOWN = EgressList(known=False)
"""The list of a container of which only is known that it has one."""


def canonical(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    """The union of these flows, disjoint for each family and protocol, and sorted.

    Where several allow the same and one of them is told of, it is told of. Raises ValueError with
    the reason where they overlap in so many ways that their union has too many parts.
    """
    groups: dict[tuple[int, int], list[Box]] = {}
    for flow in flows:
        first, last = int.from_bytes(flow.first, "big"), int.from_bytes(flow.last, "big")
        box = Box(first, last, flow.low, flow.high, flow.log)
        groups.setdefault((flow.protocol, len(flow.first)), []).append(box)
    found: list[Flow] = []
    for (protocol, size), boxes in groups.items():
        for box in disjoint(boxes):
            ends = box.first.to_bytes(size, "big"), box.last.to_bytes(size, "big")
            found.append(Flow(protocol, *ends, box.low, box.high, box.log))
    if len(found) > MAX_FLOWS:
        raise ValueError(f"{len(found)} separate ranges; at most {MAX_FLOWS} can be kept")
    return in_order(found)


def in_order(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    """Flows in the order of a canonical list."""
    return tuple(sorted(flows, key=lambda each: (len(each.first), each)))
