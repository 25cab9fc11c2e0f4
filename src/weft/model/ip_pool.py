"""IPPool: a range of addresses and who may be given one.

Excluded addresses are never handed out; reserved ones only to their owner. The selectors narrow
the pool to nodes and namespaces; absent means any. The network and broadcast addresses (IPv4),
the subnet-router anycast address (IPv6) and the gateway are never handed out, except that in
pools of /31, /32, /127 and /128 every address is usable. Assignment itself: room `ipam`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from weft.model.addresses import (
    BITS,
    Address,
    AddressRange,
    Prefix,
    overlapping_pairs,
    parse_address,
    parse_prefix,
    parse_range,
    range_of,
)
from weft.model.errors import Invalid
from weft.model.metadata import Object, Spec
from weft.model.names import printable
from weft.model.selectors import Selector, check_selector

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
MAX_BLOCK_HOST_BITS = 16  # a block's addresses may all be tracked in memory
MAX_ENTRIES = 10_000
_UNUSABLE = {
    4: ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
    6: ("::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
}
_UNUSABLE_PREFIXES = {
    version: tuple(ip_network(text) for text in texts) for version, texts in _UNUSABLE.items()
}


class IPPoolSpec(Spec, frozen=True, kw_only=True):
    """What a person writes."""

    cidr: Annotated[str, Meta(description="the range, IPv4 or IPv6; cannot be changed later")]
    block_size: Annotated[
        int | None,
        Meta(
            description="prefix length of the blocks that nodes claim; 26 or 122 when absent; "
            "cannot be changed later"
        ),
    ] = None
    excludes: Annotated[
        tuple[str, ...],
        Meta(description="never handed out: addresses, CIDRs or ranges `first-last`"),
    ] = ()
    reservations: Annotated[
        Mapping[str, str],
        Meta(
            description="address to its owner, `namespace/name` of a pod; any other text is a "
            "note, and then nobody gets the address"
        ),
    ] = msgspec.field(default_factory=dict)
    gateway: Annotated[
        str | None, Meta(description="an address of the range that is never handed out")
    ] = None
    node_selector: Annotated[
        Selector | None, Meta(description="the nodes that may use it; absent: any")
    ] = None
    namespace_selector: Annotated[
        Selector | None, Meta(description="the namespaces that may use it; absent: any")
    ] = None
    disabled: Annotated[
        bool, Meta(description="assigns no further addresses; those in use stay")
    ] = False


class IPPool(Object, frozen=True, kw_only=True):
    """A range of addresses and who may be given one."""

    spec: IPPoolSpec
    kind: str = "IPPool"


def pool_prefix(pool: IPPool) -> Prefix:
    """The pool's range."""
    return parse_prefix(pool.spec.cidr, "spec.cidr")


def block_length(pool: IPPool) -> int:
    """Prefix length of the pool's blocks: as written, else 26 or 122, never wider than the pool."""
    prefix = pool_prefix(pool)
    if pool.spec.block_size is not None:
        return pool.spec.block_size
    return max(DEFAULT_BLOCK_SIZE[prefix.version], prefix.prefixlen)


def every_address_is_usable(prefix: Prefix) -> bool:
    """Whether the range is so small that it has no network and broadcast address (RFC 3021)."""
    return prefix.prefixlen >= BITS[prefix.version] - 1


def check_pool(pool: IPPool) -> None:
    """Raise `Invalid` for the first thing wrong with the spec."""
    spec = pool.spec
    prefix = parse_prefix(spec.cidr, "spec.cidr")
    for unusable in _UNUSABLE_PREFIXES[prefix.version]:
        if prefix.overlaps(unusable):
            raise _invalid("spec.cidr", f"{prefix} overlaps {unusable}, which pods cannot use")
    _check_block_size(spec, prefix)
    _check_count(spec.excludes, "spec.excludes")
    for index, text in enumerate(spec.excludes):
        field = f"spec.excludes[{index}]"
        _check_inside(parse_range(text, field), prefix, text, field)
    _check_count(spec.reservations, "spec.reservations")
    seen: set[Address] = set()
    for text in spec.reservations:
        field = f"spec.reservations.{text}"
        address = parse_address(text, field)
        if address in seen:
            raise _invalid(field, f"{address} is reserved twice")
        seen.add(address)
        _check_inside(parse_range(text, field), prefix, text, field)
    if spec.gateway is not None:
        parse_address(spec.gateway, "spec.gateway")
        gateway = parse_range(spec.gateway, "spec.gateway")
        _check_inside(gateway, prefix, spec.gateway, "spec.gateway")
    check_selector(spec.node_selector, "spec.nodeSelector")
    check_selector(spec.namespace_selector, "spec.namespaceSelector")


def check_pool_change(old: IPPool, new: IPPool) -> None:
    """Raise `Invalid` when a field that blocks in use depend on would change."""
    if pool_prefix(old) != pool_prefix(new):
        raise _invalid("spec.cidr", "cannot be changed; make a second pool and disable this one")
    if block_length(old) != block_length(new):
        raise _invalid(
            "spec.blockSize", "cannot be changed; make a second pool and disable this one"
        )


def overlaps(pools: Sequence[IPPool]) -> list[tuple[str, str]]:
    """Pairs of names of pools whose ranges overlap, wider first; O(n log n)."""
    return overlapping_pairs([(pool.metadata.name, pool_prefix(pool)) for pool in pools])


def _check_block_size(spec: IPPoolSpec, prefix: Prefix) -> None:
    size = spec.block_size
    if size is None:
        return
    smallest = max(prefix.prefixlen, BITS[prefix.version] - MAX_BLOCK_HOST_BITS)
    if not smallest <= size <= BITS[prefix.version]:
        raise _invalid(
            "spec.blockSize",
            f"{size} must be from {smallest} to {BITS[prefix.version]} for {prefix}",
        )


def _check_inside(found: AddressRange, prefix: Prefix, text: str, field: str) -> None:
    whole = range_of(prefix)
    inside = whole.first <= found.first and found.last <= whole.last
    if found.version != prefix.version or not inside:
        raise _invalid(field, f"{printable(text)} is not inside {prefix}")


def _check_count(entries: Sequence[str] | Mapping[str, str], field: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise _invalid(field, f"{len(entries)} entries; at most {MAX_ENTRIES} are allowed")


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", field=field, reason="invalid-object")
