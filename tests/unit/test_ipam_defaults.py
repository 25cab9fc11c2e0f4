"""Default ranges: the first that is free, and overlaps that appear later."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from weft.ipam.defaults import (
    IPV4_CANDIDATES,
    default_ipv4,
    default_ipv6,
    default_pool,
    overlapping,
)
from weft.model.addresses import Prefix
from weft.model.errors import Exhausted
from weft.model.ip_pool import check_pool


def prefixes(*texts: str) -> list[Prefix]:
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ((), "10.244.0.0/16"),
        (("0.0.0.0/0", "::/0"), "10.244.0.0/16"),
        (("192.168.1.0/24", "10.244.7.9/32"), "10.42.0.0/16"),
        (("10.0.0.0/8",), "100.64.0.0/16"),
        (("10.0.0.0/8", "100.64.0.0/10"), "172.24.0.0/16"),
        (("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.1.0/24"), "192.168.128.0/17"),
        (("fd00::/8",), "10.244.0.0/16"),
    ],
)
def test_the_first_candidate_that_overlaps_nothing_is_chosen(
    host: tuple[str, ...], expected: str
) -> None:
    assert str(default_ipv4(prefixes(*host))) == expected


def test_a_host_that_routes_every_candidate_is_told_to_write_a_pool() -> None:
    with pytest.raises(Exhausted, match="IPPool"):
        default_ipv4(list(IPV4_CANDIDATES))


def test_the_ipv6_range_is_a_unique_local_48_of_the_random_bits() -> None:
    assert str(default_ipv6([], bytes.fromhex("0102030405"))) == "fd01:203:405::/48"


def test_further_random_bytes_are_further_tries() -> None:
    random = bytes.fromhex("01020304050a0b0c0d0e")
    assert str(default_ipv6(prefixes("fd01:200::/24", "::/0"), random)) == "fd0a:b0c:d0e::/48"
    with pytest.raises(Exhausted):
        default_ipv6(prefixes("fd00::/8"), random)


def test_default_pools_are_valid_and_their_candidates_apart() -> None:
    for prefix in (*IPV4_CANDIDATES, default_ipv6([], bytes(5))):
        check_pool(default_pool(prefix))
    for prefix in IPV4_CANDIDATES:
        assert [each for each in IPV4_CANDIDATES if each.overlaps(prefix)] == [prefix]


def test_an_overlap_that_appears_later_names_pool_and_prefix() -> None:
    pools = [default_pool(default_ipv4([])), default_pool(default_ipv6([], bytes(5)))]
    host = prefixes("0.0.0.0/0", "10.244.9.0/24", "10.0.0.0/8", "192.168.0.0/24", "fd00::/64")
    assert overlapping(pools, host) == [
        ("default-ipv4", ip_network("10.0.0.0/8")),
        ("default-ipv4", ip_network("10.244.9.0/24")),
        ("default-ipv6", ip_network("fd00::/64")),
    ]


def test_ranges_that_pods_live_in_come_first() -> None:
    pods = [ip_address("10.42.3.4"), ip_address("fd12:3456:789a::7")]
    assert default_ipv4([], pods) == ip_network("10.42.0.0/16")
    assert default_ipv6([], b"\1" * 5, pods) == ip_network("fd12:3456:789a::/48")


def test_a_pods_range_that_the_host_has_taken_is_not_chosen_again() -> None:
    host = [ip_network("10.42.0.0/16")]
    assert not default_ipv4(host, [ip_address("10.42.3.4")]).overlaps(host[0])
