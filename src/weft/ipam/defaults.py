"""Ranges for a node whose store has no pool yet, and overlaps that appear later.

A pure function of the host's prefixes and random bytes; the agent calls it once and keeps the
pools in the store. IPv4: the first of `IPV4_CANDIDATES` that overlaps no route or address of
the host. IPv6: a unique local /48 (RFC 4193 section 3.2) from 40 random bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from weft.model.addresses import Address, Prefix
from weft.model.errors import Exhausted
from weft.model.ip_pool import IPPool, IPPoolSpec, pool_prefix
from weft.model.metadata import Metadata

IPV4_CANDIDATES: tuple[IPv4Network, ...] = (
    IPv4Network("10.244.0.0/16"),  # what most clusters use, so firewalls often know it
    IPv4Network("10.42.0.0/16"),
    IPv4Network("10.217.0.0/16"),
    # of 100.64.0.0/10 (RFC 6598): where all of 10/8 is routed, carriers' space often is not
    IPv4Network("100.64.0.0/16"),
    IPv4Network("100.96.0.0/16"),
    IPv4Network("172.24.0.0/16"),  # Docker begins at 172.17
    IPv4Network("172.30.0.0/16"),
    IPv4Network("192.168.128.0/17"),
    IPv4Network("198.18.0.0/16"),  # benchmarks (RFC 2544): the last resort
)
GLOBAL_ID_BYTES = 5
_UNIQUE_LOCAL = 0xFD  # RFC 4193 section 3.1, locally assigned
IPV4_POOL = "default-ipv4"
IPV6_POOL = "default-ipv6"


def default_ipv4(host: Iterable[Prefix], pods: Collection[Address] = ()) -> IPv4Network:
    """The first candidate that overlaps nothing of the host's; `Exhausted` if all do.

    `pods`: addresses that pods have already (a store was lost); their range comes first.
    """
    taken = _without_defaults(host)
    inhabited = [c for c in IPV4_CANDIDATES if any(a in c for a in pods if a.version == 4)]
    for candidate in (*inhabited, *IPV4_CANDIDATES):
        if not any(candidate.overlaps(prefix) for prefix in taken if prefix.version == 4):
            return candidate
    raise Exhausted(
        "every default IPv4 range overlaps a route or address of this host; write an IPPool, and "
        "`weft apply -f` it"
    )


def default_ipv6(
    host: Iterable[Prefix], random: bytes, pods: Collection[Address] = ()
) -> IPv6Network:
    """A /48 from the first 5 random bytes that overlap nothing; further bytes are further tries.

    `pods`: addresses that pods have already (a store was lost); their range comes first.
    `Exhausted` when none is free, which takes a host that routes all of fd00::/8.
    """
    taken = _without_defaults(host)
    unique = [a.packed for a in pods if a.version == 6 and a.packed[0] == _UNIQUE_LOCAL]
    random = b"".join(packed[1 : 1 + GLOBAL_ID_BYTES] for packed in unique[:1]) + random
    for start in range(0, len(random) - GLOBAL_ID_BYTES + 1, GLOBAL_ID_BYTES):
        packed = b"\xfd" + random[start : start + GLOBAL_ID_BYTES] + bytes(10)
        candidate = IPv6Network((packed, 48))
        if not any(candidate.overlaps(prefix) for prefix in taken if prefix.version == 6):
            return candidate
    raise Exhausted(
        "no unique local IPv6 range is free on this host; write an IPPool, and `weft apply -f` it"
    )


def default_pool(prefix: Prefix) -> IPPool:
    """The pool object for a default range."""
    name = IPV4_POOL if prefix.version == 4 else IPV6_POOL
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=str(prefix)))


def overlapping(pools: Sequence[IPPool], host: Iterable[Prefix]) -> list[tuple[str, Prefix]]:
    """(pool, prefix of the host) for each overlap, for a status line. O(pools x prefixes).

    `host` must not hold what weft itself routes: pods' addresses and blocks.
    """
    taken = _without_defaults(host)
    found: list[tuple[str, Prefix]] = []
    for pool in pools:
        mine = pool_prefix(pool)
        found.extend(
            (pool.metadata.name, prefix)
            for prefix in taken
            if prefix.version == mine.version and prefix.overlaps(mine)
        )
    return sorted(found, key=lambda pair: (pair[0], pair[1].version, pair[1]))


def _without_defaults(host: Iterable[Prefix]) -> list[Prefix]:
    """Everything overlaps a default route, and it says nothing about what is in use."""
    return [prefix for prefix in host if prefix.prefixlen > 0]
