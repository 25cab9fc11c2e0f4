"""Addresses, prefixes and ranges: what is accepted, and overlap against the plain definition."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.model.addresses import (
    AddressRange,
    Prefix,
    merge,
    overlapping_pairs,
    parse_address,
    parse_prefix,
    parse_range,
)
from weft.model.errors import Invalid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.1/24",
        "010.0.0.1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "x",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_address(text, "spec.gateway")
    assert caught.value.field == "spec.gateway"


def test_an_address_is_read_in_any_spelling_of_ipv6() -> None:
    assert parse_address("FD00:0:0::1", "x") == ip_address("fd00::1")


def test_host_bits_are_refused_with_what_was_meant() -> None:
    with pytest.raises(Invalid, match=r"did you mean 10\.0\.0\.0/24\?"):
        parse_prefix("10.0.0.1/24", "x")


def test_a_range_is_an_address_a_prefix_or_two_addresses() -> None:
    def numbers(text: str) -> tuple[int, int]:
        found = parse_range(text, "x")
        return found.first - 0x0A000000, found.last - 0x0A000000

    assert numbers("10.0.0.5") == (5, 5)
    assert numbers("10.0.0.8/30") == (8, 11)
    assert numbers("10.0.0.8 - 10.0.0.9") == (8, 9)
    assert parse_range("fd00::/127", "x") == AddressRange(
        version=6, first=0xFD << 120, last=(0xFD << 120) + 1
    )


PREFIXES = st.builds(
    lambda number, length: ip_network((number >> (32 - length) << (32 - length), length)),
    st.integers(0x0A000000, 0x0A0000FF),
    st.integers(24, 32),
) | st.sampled_from([ip_network("fd00::/48"), ip_network("fd00::/64"), ip_network("::/0")])


@given(st.lists(PREFIXES, max_size=12))
def test_a_prefix_is_paired_exactly_when_a_wider_or_equal_one_is_there(
    prefixes: list[Prefix],
) -> None:
    items = list(enumerate(prefixes))
    pairs = overlapping_pairs(items)
    assert all(prefixes[a].overlaps(prefixes[b]) and a != b for a, b in pairs)
    in_pairs = {each for pair in pairs for each in pair}
    for index, prefix in items:
        overlaps = any(
            other != index and prefix.version == its.version and prefix.overlaps(its)
            for other, its in items
        )
        assert overlaps == (index in in_pairs)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=12))
def test_merged_ranges_hold_the_same_numbers_and_are_apart(pairs: list[tuple[int, int]]) -> None:
    ranges = [(first, first + length) for first, length in pairs]
    merged = merge(ranges)
    numbers = {number for first, last in ranges for number in range(first, last + 1)}
    assert {number for first, last in merged for number in range(first, last + 1)} == numbers
    assert all(low[1] + 1 < high[0] for low, high in pairwise(merged))
