"""Addresses that others gave out, inside ranges that are ours.

Rules about a node's blocks are not about them: their packets go through links of others. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from weft.model.addresses import Prefix, prefix_of, range_of


def inside(address: str, blocks: Iterable[Prefix]) -> bool:
    """Whether one of the blocks has the address."""
    found = ipaddress.ip_address(address)
    return any(found in block for block in blocks if block.version == found.version)


def without(blocks: Iterable[Prefix], addresses: Iterable[str]) -> list[Prefix]:
    """The blocks as ranges around the addresses. O(blocks + addresses), and at most half as many
    ranges as a block has addresses, each."""
    inside_of: dict[tuple[int, int], set[int]] = {}
    listed = list(blocks)
    lengths = {(block.version, block.prefixlen) for block in listed}
    for text in addresses:
        found = ipaddress.ip_address(text)
        for version, length in lengths:
            if version == found.version:
                bits = found.max_prefixlen - length
                first = int(found) >> bits << bits
                inside_of.setdefault((version, first), set()).add(int(found))
    return [part for block in listed for part in _around(block, inside_of)]


def _around(block: Prefix, inside_of: dict[tuple[int, int], set[int]]) -> list[Prefix]:
    whole = range_of(block)
    taken = inside_of.get((whole.version, whole.first), set())
    parts: list[Prefix] = []
    first = whole.first
    for number in (*sorted(n for n in taken if n <= whole.last), whole.last + 1):
        parts += _prefixes(whole.version, first, number - 1)
        first = number + 1
    return parts


def _prefixes(version: int, first: int, last: int) -> list[Prefix]:
    """The fewest prefixes from `first` to `last`; none where `last` is before it."""
    bits = 32 if version == 4 else 128
    found: list[Prefix] = []
    while first <= last:
        room = (first & -first).bit_length() - 1 if first else bits
        size = min(room, (last - first + 1).bit_length() - 1)
        found.append(prefix_of(version, first, bits - size))
        first += 1 << size
    return found
