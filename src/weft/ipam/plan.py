"""Which addresses an attachment gets.

Pure: looks at the view and answers with an `Assigned` that `View.commit` makes true, or with the
block that must be claimed first. All families that are required or none. In each pool, by name:
a never-used address, else one that has cooled, else a block to claim; only when no pool has any
of these, the longest released address of all past the floor. Cost: O(1) while the first pool
serves, else O(pools that are full); a failure counts what is cooling.
"""

from __future__ import annotations

from weft.ipam.blocks import PoolState
from weft.ipam.request import Assigned, Held, NeedBlock, Plan, Request
from weft.ipam.view import View
from weft.model.addresses import BITS, Address, address_of, prefix_of
from weft.model.errors import Conflict, Exhausted, Invalid, NotReady

NAMED_POOLS = 5  # in a message


def plan(view: View, request: Request, now: float) -> Plan:
    """Addresses for one attachment.

    Raises `Exhausted`; `Invalid` (reason address-taken, or invalid-config for a request that
    contradicts itself); `NotReady` (reason address-cooling) when only time stands in the way of a
    particular address; `Conflict` when the attachment holds other addresses than it asks for.
    """
    _check_request(view, request)
    holdings = view.holdings(request.key)
    if holdings:
        return _as_held(holdings, request)
    addresses: list[Held] = []
    notes: list[str] = []
    claim: NeedBlock | None = None
    failures: list[Exhausted] = []
    for version in (4, 6):
        need = request.need(version)
        if need == "off":
            continue
        try:
            found = _one(view, request, version, now)
        except Exhausted as error:
            if need == "required":
                raise
            failures.append(error)
            notes.append(error.message)
            continue
        if isinstance(found, NeedBlock):
            claim = claim or found
        else:
            addresses.append(view.held(found, view.sequence))
    if claim is not None:
        return claim
    if not addresses:
        raise failures[0]
    return Assigned(key=request.key, addresses=tuple(addresses), notes=tuple(notes))


def _check_request(view: View, request: Request) -> None:
    for name in request.pools or ():
        if not view.knows_pool(name):
            raise Invalid(f"there is no IPPool {name}", field="pools")
    if request.ipv4 == "off" and request.ipv6 == "off":
        raise Invalid("neither IPv4 nor IPv6 is wanted", field="ipam")
    if request.addresses and not request.allow_requested:
        raise Invalid(
            f"{request.addresses[0]} was asked for, but the setting ipam.allowRequested is off",
            field="ips",
            reason="address-taken",
        )
    versions = [address.version for address in request.addresses]
    for version in versions:
        if versions.count(version) > 1:
            raise Invalid(f"more than one IPv{version} address was asked for", field="ips")
        if request.need(version) == "off":
            raise Invalid(
                f"an IPv{version} address was asked for, but IPv{version} is off here",
                field="ips",
                reason="address-taken",
            )


def _as_held(holdings: tuple[Held, ...], request: Request) -> Assigned:
    """The same plan again, for an attachment that has its addresses already."""
    have = {held.address for held in holdings}
    versions = {held.address.version for held in holdings}
    missing = [
        f"IPv{version}"
        for version in (4, 6)
        if request.need(version) == "required" and version not in versions
    ]
    missing.extend(str(address) for address in request.addresses if address not in have)
    if missing:
        raise Conflict(
            f"{request.key} holds {', '.join(map(str, sorted(map(str, have))))} and now asks for "
            f"{', '.join(missing)}; DEL it first"
        )
    return Assigned(key=request.key, addresses=holdings)


def _one(view: View, request: Request, version: int, now: float) -> Address | NeedBlock:
    """One address of one family."""
    for address in request.addresses:
        if address.version == version:
            return _requested(view, request, address, now)
    if request.owner:
        reserved = _reserved(view, request, version, now)
        if reserved is not None:
            return reserved
    pools = view.usable_pools(version, request.namespace_labels)
    if request.pools is not None or request.pool4:
        pools = [state for state in pools if request.may_use(state.name, version)]
    ledger = view.ledgers[version]
    for state in pools:
        number = state.next_fresh(ledger)
        if number is None:
            oldest = state.oldest()
            if oldest is not None and oldest[1] + view.cooldown <= now:
                number = oldest[0]
        if number is not None:
            return address_of(version, number)
        block = state.next_claim()
        if block is not None:
            return NeedBlock(pool=state.name, cidr=block)
    waiting = [(oldest[1], oldest[0]) for state in pools if (oldest := state.oldest()) is not None]
    if waiting and min(waiting)[0] + view.cooldown_floor <= now:
        return address_of(version, min(waiting)[1])
    raise _exhausted(view, request, version, pools, now)


def _reserved(view: View, request: Request, version: int, now: float) -> Address | NeedBlock | None:
    """The address that is reserved for the pod in a pool it may use; None when none is."""
    holders = []
    for state in view.pools_reserving(version, request.owner):
        if view.why_not(state, request.namespace_labels) is not None:
            continue
        if not request.may_use(state.name, version):
            continue
        for number in state.owned_by.get(request.owner, ()):
            if state.excluded_until(number) is not None:
                continue
            address = address_of(state.version, number)
            use = view.ledgers[state.version].used.get(number)
            if use is None:
                return _in_block(view, state, address, now)
            holders.append((address, use.key))
    if not holders or any(key.container == request.key.container for _, key in holders):
        return None
    raise NotReady(
        f"{holders[0][0]} is reserved for {request.owner}, but its earlier instance "
        f"{holders[0][1]} still holds it; try again when that is deleted",
        reason="address-cooling",
        retry_after=view.cooldown_floor,
    )


def _requested(view: View, request: Request, address: Address, now: float) -> Address | NeedBlock:
    """The very address that was asked for, if the pod may have it."""
    state, number = view.pool_at(address), int(address)
    if state is None:
        raise _taken(address, "is outside every pool")
    if not request.may_use(state.name, state.version):
        raise _taken(address, f"is in pool {state.name}, to which the request is not restricted")
    why_not = view.why_not(state, request.namespace_labels)
    if why_not is not None:
        raise _taken(address, f"is in pool {state.name}, which {why_not}")
    if state.excluded_until(number) is not None:
        raise _taken(address, f"is excluded, or the gateway, network or broadcast of {state.name}")
    owner = state.reserved.get(number)
    if owner is not None and owner != request.owner:
        raise _taken(address, f"is reserved for {owner}")
    use = view.ledgers[state.version].used.get(number)
    if use is not None:
        raise _taken(address, f"is in use by {use.key}")
    return _in_block(view, state, address, now)


def _in_block(view: View, state: PoolState, address: Address, now: float) -> Address | NeedBlock:
    """A particular free address: its block must be ours or nobody's, and it must have cooled."""
    base = state.base_of(int(address))
    if base in state.foreign:
        raise _taken(address, f"is in a block that the node {state.foreign[base]} holds")
    released = view.ledgers[state.version].released.get(int(address))
    if released is not None:
        left = released.at + view.cooldown_floor - now
        if left > 0:
            raise NotReady(
                f"{address} was released a moment ago and is free again in {left:.1f} s",
                reason="address-cooling",
                retry_after=left,
            )
    if base not in state.blocks:
        length = BITS[state.version] - state.block_bits
        return NeedBlock(pool=state.name, cidr=prefix_of(state.version, base, length))
    return address


def _taken(address: Address, why: str) -> Invalid:
    return Invalid(f"{address} was asked for, but it {why}", field="ips", reason="address-taken")


def _exhausted(
    view: View, request: Request, version: int, pools: list[PoolState], now: float
) -> Exhausted:
    lines: list[str] = []
    for state in pools[:NAMED_POOLS]:
        used = view.ledgers[version].used
        count = sum(1 for number in used if state.first <= number <= state.last)
        cooling = view.cooling(state, now)
        line = f"pool {state.name} ({state.prefix}): {count} in use, {len(cooling)} cooling"
        oldest = state.oldest()
        if oldest is not None:
            line += f", the next free in {max(0.0, oldest[1] + view.cooldown_floor - now):.1f} s"
        if state.foreign:
            line += f", {len(state.foreign)} blocks held by other nodes"
        lines.append(line)
    if len(pools) > NAMED_POOLS:
        lines.append(f"and {len(pools) - NAMED_POOLS} further pools")
    if not pools:
        lines = _unusable(view, request, version)
    return Exhausted(f"no IPv{version} address is left: " + "; ".join(lines))


def _unusable(view: View, request: Request, version: int) -> list[str]:
    """Why there is no pool at all."""
    known = view.pools(version)
    if not known:
        return [f"there is no IPv{version} pool"]
    lines = []
    for state in known[:NAMED_POOLS]:
        why = view.why_not(state, request.namespace_labels)
        lines.append(f"pool {state.name} {why or 'is not among the pools asked for'}")
    if len(known) > NAMED_POOLS:
        lines.append(f"and {len(known) - NAMED_POOLS} further pools")
    return lines
