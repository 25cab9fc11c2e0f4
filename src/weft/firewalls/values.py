"""What is known of a packet's octets, and answers of three values: yes, no, cannot tell (None).

A `Value` knows some of its bits. Of the others, some are `unnamed`: they differ from whatever
a rule may compare them with, as the address of just any host outside does. The rest may be
anything. So "some address of 10.244.0.0/16" has sixteen known bits, and its last bit unnamed: a
rule about one single address is not about the pods, a rule about a part of the range may be.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from weft.model.addresses import Prefix

Answer = bool | None


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """`size` octets, big-endian. A bit is known, unnamed or neither; `bits` is 0 where unknown."""

    size: int
    bits: int = 0
    known: int = 0
    unnamed: int = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest that it can be."""
        return self.bits, self.bits | (_ones(self.size) ^ self.known)


def exactly(data: bytes) -> Value:
    """All octets are known."""
    return Value(size=len(data), bits=int.from_bytes(data), known=_ones(len(data)))


def anything(size: int) -> Value:
    """Nothing is known."""
    return Value(size=size)


def nobody(size: int) -> Value:
    """Something that no rule names."""
    return Value(size=size, unnamed=_ones(size))


def begins(data: bytes, size: int) -> Value:
    """The first octets are known, no rule names the whole."""
    rest = _ones(size - len(data))
    return Value(
        size=size,
        bits=int.from_bytes(data) << 8 * (size - len(data)),
        known=_ones(size) ^ rest,
        unnamed=rest,
    )


def inside(prefix: Prefix) -> Value:
    """Some address of a range."""
    size = prefix.max_prefixlen // 8
    free = int(prefix.hostmask)
    return Value(
        size=size, bits=int(prefix.network_address), known=_ones(size) ^ free, unnamed=free & 1
    )


def cut(value: Value, offset: int, length: int) -> Value:
    """Some octets of it; those behind its end are unknown."""
    behind = max(0, offset + length - value.size)
    drop = 8 * (value.size - offset - length + behind)
    mask = _ones(length - behind)
    parts = ((each >> drop & mask) << 8 * behind for each in _parts(value))
    bits, known, unnamed = parts
    return Value(size=length, bits=bits, known=known, unnamed=unnamed)


def joined(values: Iterable[Value]) -> Value:
    """One after the other."""
    size = bits = known = unnamed = 0
    for each in values:
        shift = 8 * each.size
        size += each.size
        bits, known = bits << shift | each.bits, known << shift | each.known
        unnamed = unnamed << shift | each.unnamed
    return Value(size=size, bits=bits, known=known, unnamed=unnamed)


def masked(value: Value, mask: bytes, xor: bytes) -> Value:
    """(value & mask) ^ xor."""
    keep, turn = int.from_bytes(mask), int.from_bytes(xor)
    known = value.known | (_ones(value.size) ^ keep)
    return Value(
        size=value.size,
        bits=((value.bits & keep) ^ turn) & known,
        known=known,
        unnamed=value.unnamed & keep,
    )


def equals(value: Value, data: bytes) -> Answer:
    """Whether it is exactly this."""
    if (value.bits ^ int.from_bytes(data)) & value.known or value.unnamed:
        return False
    return True if value.known == _ones(value.size) else None


def within(value: Value, low: bytes, high: bytes) -> Answer:
    """Whether it is at least `low` and at most `high`."""
    first, last = int.from_bytes(low), int.from_bytes(high)
    free = first ^ last
    if free & (free + 1) == 0 and not first & free and value.unnamed & ~free:
        return False  # a prefix, or a single value, that names it
    if not free:
        return equals(value, low)
    least, most = value.bounds
    if least >= first and most <= last:
        return True
    return False if most < first or least > last else None


def contrary(answer: Answer) -> Answer:
    """Not."""
    return None if answer is None else not answer


def all_of(answers: Iterable[Answer]) -> Answer:
    """And."""
    result: Answer = True
    for each in answers:
        if each is False:
            return False
        if each is None:
            result = None
    return result


def any_of(answers: Iterable[Answer]) -> Answer:
    """Or."""
    return contrary(all_of(contrary(each) for each in answers))


def _parts(value: Value) -> tuple[int, int, int]:
    return value.bits, value.known, value.unnamed


def _ones(size: int) -> int:
    return (1 << 8 * size) - 1
