"""Addresses, prefixes and ranges: from a person's text to values, and how they overlap.

`Address` and `Prefix` are the standard library's; what is here adds errors that name a field,
ranges for excludes, and overlap among many in O(n log n). Scoped (`%eth0`), IPv4-mapped and
unspecified addresses are refused: no pod can have one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

import msgspec

from weft.model.errors import Invalid
from weft.model.names import printable

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

BITS = {4: 32, 6: 128}
T = TypeVar("T")


class AddressRange(msgspec.Struct, frozen=True, kw_only=True):
    """All addresses of one family from `first` to `last`, both included."""

    version: int
    first: int
    last: int


def parse_address(text: str, field: str) -> Address:
    """One address without prefix length."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _invalid(field, f"{printable(text)} is not an IP address") from None
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise _invalid(field, f"{printable(text)}: scoped and IPv4-mapped addresses are not usable")
    return address


def parse_prefix(text: str, field: str) -> Prefix:
    """A CIDR, written with its prefix length and without host bits."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise _invalid(field, f"{printable(text)} is not a CIDR such as 10.244.0.0/16")
    parse_address(address, field)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _invalid(field, f"{printable(text)} is not a CIDR such as 10.244.0.0/16") from None
    raise _invalid(field, f"{printable(text)} has host bits set; did you mean {meant}?")


def parse_range(text: str, field: str) -> AddressRange:
    """An exclude: an address, a CIDR, or `first-last`."""
    if "/" in text:
        return range_of(parse_prefix(text, field))
    first_text, dash, last_text = text.partition("-")
    first = parse_address(first_text.strip(), field)
    last = parse_address(last_text.strip(), field) if dash else first
    if first.version != last.version or int(first) > int(last):
        raise _invalid(field, f"{printable(text)} is not a range: first must not be after last")
    return AddressRange(version=first.version, first=int(first), last=int(last))


def range_of(prefix: Prefix) -> AddressRange:
    """The range that a prefix covers."""
    first = int(prefix.network_address)
    return AddressRange(version=prefix.version, first=first, last=first + prefix.num_addresses - 1)


def address_of(version: int, value: int) -> Address:
    """The address with this number, of this family."""
    return IPv4Address(value) if version == 4 else IPv6Address(value)


def prefix_of(version: int, first: int, length: int) -> Prefix:
    """The prefix that begins at this number, of this family."""
    return IPv4Network((first, length)) if version == 4 else IPv6Network((first, length))


def merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as ascending ranges that neither overlap nor touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def overlapping_pairs(items: Sequence[tuple[T, Prefix]]) -> list[tuple[T, T]]:
    """For each item that overlaps an earlier, wider or equal one: (that one, the item).

    O(n log n): prefixes either nest or are apart, so a stack of open prefixes is enough.
    """
    pairs: list[tuple[T, T]] = []
    open_prefixes: list[tuple[T, Prefix]] = []
    order = sorted(items, key=lambda item: (item[1].version, item[1]))
    for name, prefix in order:
        while open_prefixes and not prefix.overlaps(open_prefixes[-1][1]):
            open_prefixes.pop()
        if open_prefixes:
            pairs.append((open_prefixes[-1][0], name))
        open_prefixes.append((name, prefix))
    return pairs


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", field=field, reason="invalid-object")
