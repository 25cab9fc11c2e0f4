"""Types of set keys and map data: nft's words, its numbers, and their sizes in octets.

The kernel cares for sizes only; the numbers are nft's own (enum datatypes) and are stored with a
set so that `nft list ruleset` prints addresses as addresses. A concatenation has six bits for
each part, and each part is padded to four octets, the size of a register.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from weft.kernel.nftables import typeof
from weft.model.errors import Unsupported


class DataType(NamedTuple):
    """`number` of nft's, `size` in octets, `order` of octets: 1 the host's, 2 the network's."""

    number: int
    size: int
    order: int


TYPES: dict[str, DataType] = {
    "ipv4_addr": DataType(7, 4, 2),
    "ipv6_addr": DataType(8, 16, 2),
    "ether_addr": DataType(9, 6, 2),
    "inet_proto": DataType(12, 1, 2),
    "inet_service": DataType(13, 2, 2),
    "icmp_type": DataType(14, 1, 2),
    "mark": DataType(19, 4, 1),
    "icmpv6_type": DataType(29, 1, 2),
    "ifname": DataType(41, 16, 1),
}
INTEGER = "integer"
"""Plain octets; a set's user data say which (`typeof`), and how many."""
VERDICT = "verdict"
VERDICT_TYPE = 0xFFFFFF00  # NFT_DATA_VERDICT

_INTEGER_NUMBER = 4
_WORDS = {entry.number: word for word, entry in TYPES.items()} | {_INTEGER_NUMBER: INTEGER}
_BITS = 6


def type_of(word: str) -> DataType:
    """The type that a word names. Raises Unsupported."""
    if bits := typeof.raw_bits(word):
        return DataType(_INTEGER_NUMBER, bits // 8, 2)
    try:
        return TYPES[word]
    except KeyError:
        raise Unsupported(f"nftables data type {word!r}: use one of {', '.join(TYPES)}") from None


def is_type(word: str) -> bool:
    """Whether `type_of` knows the word."""
    return word in TYPES or typeof.raw_bits(word) > 0


def padded(octets: int) -> int:
    """Octets that a part of this size takes in a concatenation."""
    return (octets + 3) & ~3


def key_number(words: Sequence[str]) -> int:
    """nft's number for a key of these parts."""
    value = 0
    for word in words:
        value = value << _BITS | type_of(word).number
    return value


def key_size(words: Sequence[str]) -> int:
    """Octets of a key of these parts."""
    if len(words) == 1:
        return type_of(words[0]).size
    return sum(padded(type_of(word).size) for word in words)


def words_of(value: int) -> tuple[str, ...]:
    """Parts of a key of nft's number `value`; a word that names no type for an unknown one."""
    words: list[str] = []
    while value:
        part = value & ((1 << _BITS) - 1)
        words.append(_WORDS.get(part, f"type {part}"))
        value >>= _BITS
    return tuple(reversed(words))


def join(words: tuple[str, ...], parts: Sequence[bytes]) -> bytes:
    """The key of these parts, padded; a single part is not padded, but names always are."""
    widths = _widths(words)
    return b"".join([part.ljust(width, b"\0") for width, part in zip(widths, parts, strict=True)])


@lru_cache(maxsize=64)
def _widths(words: tuple[str, ...]) -> tuple[int, ...]:
    """Octets of each part in a key."""
    if len(words) == 1:
        return (type_of(words[0]).size,)
    return tuple(padded(type_of(word).size) for word in words)


def split(words: Sequence[str], key: bytes) -> tuple[bytes, ...]:
    """The parts of a key; names without their padding."""
    parts: list[bytes] = []
    offset = 0
    for word in words:
        size = type_of(word).size
        part = key[offset : offset + size]
        parts.append(part.rstrip(b"\0") if word == "ifname" else part)
        offset += padded(size)
    return tuple(parts)
