"""Which address a bridge gets in the subnet that it shares with its containers.

The one that the pool names; else the lowest that is free in the blocks of this node, so the first
usable one of a pool that nobody has used. One that was given back a moment ago is passed over as
for containers, unless it is the bridge's former one. Pure; O(addresses in use below it).
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address

from weft.ipam.blocks import PoolState
from weft.ipam.request import NeedBlock, Request
from weft.ipam.view import View


def gateway(
    view: View, request: Request, now: float, former: IPv4Address | None = None
) -> IPv4Address | NeedBlock | None:
    """The gateway for the bridge of the container that asks, in the first pool that serves it;
    None: every address is taken, as the container will be told."""
    wished = next((each for each in request.addresses if each.version == 4), None)
    avoid = -1 if wished is None else int(wished)
    only = None if wished is None else view.pool_at(wished)
    pools = [
        state
        for state in view.usable_pools(4, request.namespace_labels)
        if request.may_use(state.name, 4) and (wished is None or state is only)
    ]
    for wait in (view.cooldown, view.cooldown_floor):
        for state in pools:
            if state.pool.spec.gateway is not None:
                return IPv4Address(state.pool.spec.gateway)
            if former is not None and int(former) != avoid and _is_free(view, state, int(former)):
                return former
            lowest = _lowest(view, state, avoid, now - wait)
            if lowest is not None:
                return lowest
            block = state.next_claim()
            if block is not None:
                return NeedBlock(pool=state.name, cidr=block)
    return None


def likeliest(state: PoolState, standing: Collection[str]) -> IPv4Address:
    """What the bridge of a pool has had, whose record is lost: as `gateway`, among the addresses
    that none of the `standing` containers has."""
    if state.pool.spec.gateway is not None:
        return IPv4Address(state.pool.spec.gateway)
    taken = {int(IPv4Address(text)) for text in standing if ":" not in text}
    number = min(state.blocks, default=state.first)
    while number in taken or state.is_kept(number):
        number += 1
    return IPv4Address(number)


def _is_free(view: View, state: PoolState, number: int) -> bool:
    """Whether nobody has an address of this node's blocks, or is to have it."""
    in_block = state.first <= number <= state.last and state.base_of(number) in state.blocks
    return in_block and not state.is_kept(number) and number not in view.ledgers[4].used


def _lowest(view: View, state: PoolState, avoid: int, released_by: float) -> IPv4Address | None:
    ledger = view.ledgers[4]
    for base in sorted(state.blocks):
        number, last = base, state.blocks[base].last
        while number <= last:
            end = state.excluded_until(number)
            if end is not None:
                number = end + 1
                continue
            released = ledger.released.get(number)
            cool = released is None or released.at <= released_by
            if number != avoid and cool and _is_free(view, state, number):
                return IPv4Address(number)
            number += 1
    return None
