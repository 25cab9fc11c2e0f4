"""How full the pools are, and where allocations and attachments disagree.

What `weft ipam show` and `weft ipam check` print. Reads the view, changes nothing. `show` is
O(addresses in use and once used), `check` O(addresses).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from weft.ipam.blocks import PoolState
from weft.ipam.view import View
from weft.model.addresses import Address, address_of
from weft.model.attachment import AttachmentKey


class PoolUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One pool in numbers. `size`: addresses that may be handed out in the whole pool, those
    reserved included; `free`: not in use and not cooling, in blocks of nobody or of this node."""

    pool: str
    cidr: str
    size: int
    used: int
    cooling: int
    free: int
    blocks: int
    foreign_blocks: int
    reserved: int
    disabled: bool


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One disagreement. leaked: allocated to nobody who exists; unknown: in use, not allocated;
    duplicate: in use by several, or by another than it is allocated to; outside: in use, but in
    no block of this node."""

    kind: Literal["leaked", "unknown", "duplicate", "outside"]
    address: Address
    keys: tuple[AttachmentKey, ...]
    sequence: int | None
    detail: str


def usage(view: View, now: float) -> tuple[PoolUsage, ...]:
    """Every pool that is not set aside, by name. A third of a microsecond an address."""
    found = []
    for version, ledger in view.ledgers.items():
        states = view.pools(version)
        used = _by_pool(states, ledger.used)
        since = now - view.cooldown
        cooling = _by_pool(
            states, [number for number, each in ledger.released.items() if each.at > since]
        )
        found += [
            _usage(state, *counts) for state, *counts in zip(states, used, cooling, strict=True)
        ]
    return tuple(sorted(found, key=lambda each: each.pool))


def _by_pool(states: Sequence[PoolState], numbers: Collection[int]) -> list[int]:
    """How many of the addresses lie in each of the pools, which are in order and apart."""
    # each pool's first address and the one after its last: inside lies what is past an odd number
    edges = [edge for state in states for edge in (state.first, state.last + 1)]
    counts = [0] * (2 * len(states) + 1)
    for number in numbers:
        counts[bisect_right(edges, number)] += 1
    return counts[1::2]


def _usage(state: PoolState, used: int, cooling: int) -> PoolUsage:
    size = state.last - state.first + 1 - state.excluded_between(state.first, state.last)
    elsewhere = sum(
        (1 << state.block_bits) - state.excluded_between(base, base + (1 << state.block_bits) - 1)
        for base in state.foreign
    )
    return PoolUsage(
        pool=state.name,
        cidr=str(state.prefix),
        size=size,
        used=used,
        cooling=cooling,
        free=max(0, size - elsewhere - used - cooling),
        blocks=len(state.blocks),
        foreign_blocks=len(state.foreign),
        reserved=len(state.reserved),
        disabled=state.pool.spec.disabled,
    )


def differences(
    view: View, attachments: Mapping[AttachmentKey, Collection[Address]]
) -> tuple[Finding, ...]:
    """Where the view and the attachments that exist disagree, by address."""
    findings: list[Finding] = []
    users: dict[Address, list[AttachmentKey]] = {}
    for key, addresses in attachments.items():
        for address in addresses:
            users.setdefault(address, []).append(key)
    for version, ledger in view.ledgers.items():
        for number, use in ledger.used.items():
            address = address_of(version, number)
            if address not in users:
                detail = f"allocated to {use.key}, which does not use it"
                findings.append(_finding("leaked", address, (use.key,), use.sequence, detail))
    for address, keys in users.items():
        use_here = view.ledgers[address.version].used.get(int(address))
        if use_here is None:
            detail = f"used by {keys[0]}, but not allocated"
            findings.append(_finding("unknown", address, tuple(keys), None, detail))
        elif keys != [use_here.key]:
            everybody = tuple(sorted({*keys, use_here.key}, key=str))
            detail = f"allocated to {use_here.key}, used by {', '.join(map(str, keys))}"
            findings.append(_finding("duplicate", address, everybody, use_here.sequence, detail))
        pool = view.pool_at(address)
        if pool is None or pool.base_of(int(address)) not in pool.blocks:
            where = "no pool" if pool is None else f"no block of this node in pool {pool.name}"
            findings.append(_finding("outside", address, tuple(keys), None, f"lies in {where}"))
    return tuple(
        sorted(findings, key=lambda each: (each.address.version, int(each.address), each.kind))
    )


def _finding(
    kind: Literal["leaked", "unknown", "duplicate", "outside"],
    address: Address,
    keys: tuple[AttachmentKey, ...],
    sequence: int | None,
    detail: str,
) -> Finding:
    return Finding(kind=kind, address=address, keys=keys, sequence=sequence, detail=detail)
