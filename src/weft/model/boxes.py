"""Rectangles of addresses and ports: their union in disjoint parts, and what is left of a range.

The kernel's sets of concatenated ranges refuse elements that overlap (ENOTEMPTY, and only for some
overlaps), so a union is cut before it goes there. A sweep over the addresses: between two borders
the same boxes hold, and their ports are swept alike. Neighbours with equal ports become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

WORK = 200_000
"""Boxes looked at in one union, half a second; where rules overlap endlessly it is quadratic."""

Ports = tuple[tuple[int, int, bool], ...]


class Box(NamedTuple):
    """Addresses `first`..`last` and ports `low`..`high`, all inclusive; `log` where any says so."""

    first: int
    last: int
    low: int
    high: int
    log: bool


def disjoint(boxes: Iterable[Box]) -> list[Box]:
    """The union, in as few parts as equal neighbours allow; by address, then port.

    Raises ValueError where it takes too long to tell.
    """
    wanted = sorted(set(boxes))
    borders = sorted({edge for box in wanted for edge in (box.first, box.last + 1)})
    found: list[tuple[int, int, Ports]] = []
    known: dict[frozenset[tuple[int, int, bool]], Ports] = {}
    active: list[Box] = []
    upcoming, work = 0, 0
    for at, past in pairwise(borders):
        active = [box for box in active if box.last >= at]
        while upcoming < len(wanted) and wanted[upcoming].first == at:
            active.append(wanted[upcoming])
            upcoming += 1
        work += len(active) + 1
        if work > WORK:
            raise ValueError("the ranges overlap in too many ways; write them with fewer overlaps")
        if not active:
            continue
        ranges = frozenset((box.low, box.high, box.log) for box in active)
        ports = known.get(ranges) or known.setdefault(ranges, _union(ranges))
        if found and found[-1][1] + 1 == at and found[-1][2] == ports:
            found[-1] = (found[-1][0], past - 1, ports)
        else:
            found.append((at, past - 1, ports))
    return [Box(first, last, *each) for first, last, ports in found for each in ports]


def _union(ranges: Iterable[tuple[int, int, bool]]) -> Ports:
    """The same in one dimension: how many begin and end at each border."""
    changes: dict[int, list[int]] = {}
    for low, high, log in ranges:
        changes.setdefault(low, [0, 0])[log] += 1
        changes.setdefault(high + 1, [0, 0])[log] -= 1
    found: list[tuple[int, int, bool]] = []
    silent = told = 0
    for at, past in pairwise(sorted(changes)):
        silent, told = silent + changes[at][0], told + changes[at][1]
        if not (silent or told):
            continue
        if found and found[-1][1] + 1 == at and found[-1][2] == bool(told):
            found[-1] = (found[-1][0], past - 1, bool(told))
        else:
            found.append((at, past - 1, bool(told)))
    return tuple(found)


def without(first: int, last: int, denied: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `first`..`last` that none of the `denied` ranges has."""
    parts, at = [], first
    for low, high in sorted(denied):
        if high < at or low > last:
            continue
        if low > at:
            parts.append((at, low - 1))
        at = max(at, high + 1)
    if at <= last:
        parts.append((at, last))
    return parts
