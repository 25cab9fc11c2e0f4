"""What this node knows about addresses: pools, blocks, who holds what, what is cooling.

The one mutable thing of the room. It is a function of what was told to it: pools, blocks and
holdings may arrive in any order. A pool that cannot be read, or that overlaps an older one, is
set aside alone and named in `problems`. The clock is the caller's: `now` is in monotonic
seconds. Who gets which address is decided in `plan.py`; reports are in `audit.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from weft.ipam.blocks import Ledger, PoolState, Released, Use
from weft.ipam.request import Assigned, Held
from weft.model.addresses import BITS, Address, overlapping_pairs, prefix_of
from weft.model.attachment import AttachmentKey
from weft.model.errors import Conflict, Invalid
from weft.model.ip_block import IPBlock
from weft.model.ip_pool import IPPool
from weft.model.selectors import matches

CACHE_LIMIT = 1024


class View:
    """Addresses as one node sees them."""

    def __init__(
        self,
        node: str,
        *,
        node_labels: Mapping[str, str] | None = None,
        cooldown: float = 30.0,
        cooldown_floor: float = 5.0,
        sequence: int = 1,
    ) -> None:
        """`sequence`: larger than any handed out by an earlier run, if one is remembered."""
        self.node = node
        self.cooldown = cooldown
        self.cooldown_floor = cooldown_floor
        self.sequence = sequence
        self.ledgers = {4: Ledger(), 6: Ledger()}
        self._node_labels = node_labels
        self._holdings: dict[AttachmentKey, set[Address]] = {}
        self._pools: dict[str, IPPool] = {}
        self._blocks: dict[str, dict[str, IPBlock]] = {}  # pool -> name -> block
        self._states: dict[str, PoolState] = {}
        self._broken: dict[str, str] = {}  # pool -> why it is set aside
        self._stale: set[str] = set()  # pools whose state is to be arranged anew
        self._is_settled = True
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ranges: dict[int, list[PoolState]] = {4: [], 6: []}
        self._usable: dict[tuple[int, frozenset[tuple[str, str]] | None], list[PoolState]] = {}
        self._reserving: dict[tuple[int, str], list[PoolState]] = {}
        self._latest = 0.0

    # -- what the store says ------------------------------------------------------------------

    def set_pool(self, pool: IPPool) -> None:
        """A pool is there, or has changed."""
        if self._pools.get(pool.metadata.name) != pool:
            self._pools[pool.metadata.name] = pool
            self._states.pop(pool.metadata.name, None)
            self._unsettle(pool.metadata.name)

    def remove_pool(self, name: str) -> None:
        """A pool is gone. Its addresses in use stay in use until they are released."""
        if self._pools.pop(name, None) is not None:
            self._states.pop(name, None)
            self._unsettle(name)

    def set_block(self, block: IPBlock) -> None:
        """A block is held, by this node or another."""
        name, pool = block.metadata.name, block.spec.pool
        blocks = self._blocks.setdefault(pool, {})
        before, blocks[name] = blocks.get(name), block
        if before == block:
            return
        state = self._states.get(pool)
        # the common case, a first block here that nothing was released in, is done in place
        in_place = state is not None and before is None and not self._has_unqueued(state)
        if not in_place or state is None or not state.place(self.node, block):
            self._unsettle(pool)

    def remove_block(self, block: IPBlock) -> None:
        """A block is no longer held by anybody."""
        if self._blocks.get(block.spec.pool, {}).pop(block.metadata.name, None) is not None:
            self._unsettle(block.spec.pool)

    def set_node_labels(self, labels: Mapping[str, str] | None) -> None:
        """Labels of this node; None: not known."""
        self._node_labels = labels
        self._usable.clear()

    # -- who holds what -----------------------------------------------------------------------

    def commit(self, assigned: Assigned) -> None:
        """Make a plan true. Idempotent; `Conflict` (nothing changed) when it is outdated."""
        for held in assigned.addresses:
            self._check_available(held, assigned.key)
        for held in assigned.addresses:
            self._take(held.address, Use(key=assigned.key, sequence=held.sequence))

    def release(self, address: Address, sequence: int, now: float) -> bool:
        """The holding `sequence` of the address ends; False if it had ended before."""
        ledger, number = self.ledgers[address.version], int(address)
        use = ledger.used.get(number)
        if use is None or use.sequence != sequence:
            return False
        del ledger.used[number]
        held = self._holdings[use.key]
        held.discard(address)
        if not held:
            del self._holdings[use.key]
        self._latest = max(self._latest, now)  # keeps the queue in order whatever the caller does
        ledger.released[number] = Released(at=self._latest, sequence=sequence)
        pool = self.pool_at(address)
        if pool is not None and pool.is_queued(number):
            pool.queue[number] = self._latest
        return True

    def adopt(self, address: Address, key: AttachmentKey, sequence: int | None = None) -> None:
        """A holding is known from the journal or the kernel. Idempotent.

        `Conflict` when somebody else holds the address. Without `sequence` it gets a new one.
        """
        use = self.ledgers[address.version].used.get(int(address))
        if use is not None:
            if use.key != key:
                raise Conflict(f"{address} is held by {use.key}; {key} cannot hold it too")
            if sequence is None or use.sequence == sequence:
                return
        self._take(address, Use(key=key, sequence=self.sequence if sequence is None else sequence))

    def cool(self, address: Address, sequence: int, released_at: float) -> None:
        """An address is known to have been released then, e.g. before a restart of the agent."""
        ledger, number = self.ledgers[address.version], int(address)
        self.sequence = max(self.sequence, sequence + 1)
        known = ledger.released.get(number)
        if number in ledger.used or (known is not None and known.sequence >= sequence):
            return
        ledger.released[number] = Released(at=released_at, sequence=sequence)
        self._latest = max(self._latest, released_at)
        pool = self.pool_at(address)
        if pool is not None:
            self._unsettle(pool.name)

    def holdings(self, key: AttachmentKey) -> tuple[Held, ...]:
        """The addresses of an attachment, IPv4 first."""
        addresses = sorted(self._holdings.get(key, ()), key=lambda each: (each.version, int(each)))
        return tuple(
            self.held(each, self.ledgers[each.version].used[int(each)].sequence)
            for each in addresses
        )

    def all_holdings(self) -> Iterable[tuple[AttachmentKey, tuple[Held, ...]]]:
        """Every attachment with its addresses."""
        return ((key, self.holdings(key)) for key in tuple(self._holdings))

    def held(self, address: Address, sequence: int) -> Held:
        """An address with the pool and block that cover it now."""
        pool = self.pool_at(address)
        block = None
        if pool is not None:
            base = pool.base_of(int(address))
            block = prefix_of(pool.version, base, BITS[pool.version] - pool.block_bits)
        return Held(
            address=address,
            pool=None if pool is None else pool.name,
            block=block,
            sequence=sequence,
        )

    # -- what plan and audit read -------------------------------------------------------------

    def pool_at(self, address: Address) -> PoolState | None:
        """The pool that covers the address. O(log n) of the pools."""
        self._settle()
        starts = self._starts[address.version]
        index = bisect_right(starts, int(address)) - 1
        if index < 0:
            return None
        state = self._ranges[address.version][index]
        return state if int(address) <= state.last else None

    def pools(self, version: int) -> list[PoolState]:
        """All pools of a family that are not set aside, by range."""
        self._settle()
        return self._ranges[version]

    def usable_pools(
        self, version: int, namespace_labels: Mapping[str, str] | None
    ) -> list[PoolState]:
        """The pools, by name, that this node may use for that namespace. Cached by its labels."""
        self._settle()
        wanted = None if namespace_labels is None else frozenset(namespace_labels.items())
        found = self._usable.get((version, wanted))
        if found is None:
            found = sorted(
                (
                    state
                    for state in self._ranges[version]
                    if self.why_not(state, namespace_labels) is None
                ),
                key=lambda state: state.name,
            )
            if len(self._usable) >= CACHE_LIMIT:
                self._usable.clear()
            self._usable[version, wanted] = found
        return found

    def pools_reserving(self, version: int, owner: str) -> list[PoolState]:
        """The pools of a family that reserve something for the pod `namespace/name`."""
        self._settle()
        return self._reserving.get((version, owner), [])

    def knows_pool(self, name: str) -> bool:
        """Whether there is a pool of this name, even one that is set aside."""
        return name in self._pools

    def why_not(self, state: PoolState, namespace_labels: Mapping[str, str] | None) -> str | None:
        """Why this node may not use the pool for that namespace; None: it may."""
        spec = state.pool.spec
        if spec.disabled:
            return "is disabled"
        for selector, labels, what in (
            (spec.node_selector, self._node_labels, "node"),
            (spec.namespace_selector, namespace_labels, "namespace"),
        ):
            verdict = matches(selector, labels)
            if verdict is None:
                return f"selects by labels, and those of this {what} are not known"
            if not verdict:
                return f"does not select this {what}"
        return None

    def problems(self) -> tuple[str, ...]:
        """What is wrong with pools and blocks, for a status line each."""
        self._settle()
        lines = [f"pool {name} is not used: {why}" for name, why in sorted(self._broken.items())]
        for pool, blocks in sorted(self._blocks.items()):
            state = self._states.get(pool)
            if state is None:
                if pool not in self._broken and blocks:
                    lines.append(f"blocks {', '.join(sorted(blocks))}: there is no pool {pool}")
            elif state.misfits:
                names = ", ".join(sorted(state.misfits))
                lines.append(f"blocks {names} do not fit pool {pool}; their range is kept back")
        return tuple(lines)

    def cooling(self, state: PoolState, now: float) -> list[float]:
        """Seconds until each address of the pool that is kept back has cooled. O(released)."""
        return [
            released.at + self.cooldown - now
            for number, released in self.ledgers[state.version].released.items()
            if state.first <= number <= state.last and released.at + self.cooldown > now
        ]

    # -- private ------------------------------------------------------------------------------

    def _check_available(self, held: Held, key: AttachmentKey) -> None:
        ledger, number = self.ledgers[held.address.version], int(held.address)
        use = ledger.used.get(number)
        if use is not None and (use.key != key or use.sequence != held.sequence):
            raise Conflict(f"{held.address} is held by {use.key} by now; plan again")
        released = ledger.released.get(number)
        if use is None and released is not None and released.sequence >= held.sequence:
            raise Conflict(f"{held.address} was in use since this plan was made; plan again")

    def _take(self, address: Address, use: Use) -> None:
        ledger, number = self.ledgers[address.version], int(address)
        if ledger.released.pop(number, None) is not None:
            pool = self.pool_at(address)
            if pool is not None:
                pool.queue.pop(number, None)
        ledger.used[number] = use
        self._holdings.setdefault(use.key, set()).add(address)
        self.sequence = max(self.sequence, use.sequence + 1)

    def _has_unqueued(self, state: PoolState) -> bool:
        """Whether something was released in the pool outside the blocks known so far."""
        released = self.ledgers[state.version].released
        return len(released) > len(state.queue) and any(
            state.first <= number <= state.last
            and number not in state.queue
            and not state.is_kept(number)
            for number in released
        )

    def _unsettle(self, pool: str) -> None:
        self._stale.add(pool)
        self._is_settled = False

    def _settle(self) -> None:
        """Bring derived state up to date, after changes of pools or blocks only."""
        if self._is_settled:
            return
        self._is_settled = True
        self._usable.clear()
        self._choose_pools()
        for name in self._stale & self._states.keys():
            state = self._states[name]
            state.arrange(self.node, self._blocks.get(name, {}), self.ledgers[state.version])
        self._stale.clear()

    def _choose_pools(self) -> None:
        """Set aside what cannot be read, and of pools that overlap all but the oldest."""
        self._broken.clear()
        candidates: dict[str, PoolState] = {}
        for name, pool in self._pools.items():
            try:
                state = self._states.get(name) or PoolState(pool)
            except Invalid as error:
                self._broken[name] = error.message
            else:
                if name not in self._states:
                    self._stale.add(name)
                candidates[name] = state
        for name, why in _younger_overlaps(candidates).items():
            self._broken[name] = why
            del candidates[name]
        self._states = candidates
        for version in (4, 6):
            ranges = sorted(
                (state for state in candidates.values() if state.version == version),
                key=lambda state: state.first,
            )
            self._ranges[version] = ranges
            self._starts[version] = [state.first for state in ranges]
        self._reserving.clear()
        for name in sorted(candidates):
            state = candidates[name]
            for owner in state.owned_by:
                self._reserving.setdefault((state.version, owner), []).append(state)


def _younger_overlaps(states: Mapping[str, PoolState]) -> dict[str, str]:
    """Pools that overlap an older one (creation time, then name), with the reason."""
    suspects: set[str] = set()
    for pair in overlapping_pairs([(name, state.prefix) for name, state in states.items()]):
        suspects.update(pair)
    if not suspects:
        return {}
    aside: dict[str, str] = {}
    kept: list[PoolState] = []
    for name in sorted(
        suspects, key=lambda name: (states[name].pool.metadata.creation_timestamp, name)
    ):
        state = states[name]
        rival = next((each for each in kept if each.prefix.overlaps(state.prefix)), None)
        if rival is None:
            kept.append(state)
        else:
            aside[name] = f"{state.prefix} overlaps {rival.prefix} of the older pool {rival.name}"
    return aside
