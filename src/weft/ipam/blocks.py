"""A pool as its node sees it: blocks held, addresses kept back, the order of handing out.

Order: never-used addresses ascending, then released ones, the longest released first. Cost: the
next address is found in O(1) amortised - a cursor per block passes each address once - and in
O(log n) of the excluded ranges. Nothing is materialised: memory grows with blocks held and
addresses once used, never with the size of a pool, so a /8 or a /48 costs what a /26 does.
Plan, commit and release together took 30 to 45 microseconds on a busy 2-core machine, the same
with 10, 1,000 and 10,000 pools, blocks or addresses in use; claiming a block costs O(released)
once, and a change of pools O(pools log pools). Who uses this: `view.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from weft.model.addresses import (
    BITS,
    AddressRange,
    Prefix,
    merge,
    parse_address,
    parse_range,
    prefix_of,
    range_of,
)
from weft.model.attachment import AttachmentKey
from weft.model.ip_block import IPBlock, block_prefix
from weft.model.ip_pool import IPPool, block_length, every_address_is_usable, pool_prefix


@dataclass(slots=True, frozen=True)
class Use:
    """Who holds an address. `sequence` tells this holding from earlier and later ones."""

    key: AttachmentKey
    sequence: int


@dataclass(slots=True, frozen=True)
class Released:
    """When an address became free (monotonic seconds) and the sequence of its last holding."""

    at: float
    sequence: int


@dataclass(slots=True)
class Ledger:
    """All addresses of one family that are or once were in use, by number."""

    used: dict[int, Use] = field(default_factory=dict)
    released: dict[int, Released] = field(default_factory=dict)


@dataclass(slots=True)
class Block:
    """A range held by this node; addresses before `cursor` have been used or are kept back."""

    first: int
    last: int
    cursor: int


class PoolState:
    """One pool, prepared for handing out. Built anew when the pool's object changes."""

    __slots__ = (
        "_claim_hint",
        "_excluded_first",
        "_excluded_last",
        "_reserved_sorted",
        "block_bits",
        "blocks",
        "first",
        "foreign",
        "fresh",
        "last",
        "misfits",
        "name",
        "owned_by",
        "pool",
        "prefix",
        "queue",
        "reserved",
        "version",
    )

    def __init__(self, pool: IPPool) -> None:
        """Raises `Invalid` when the object does not hold what `check_pool` demands."""
        self.pool = pool
        self.name = pool.metadata.name
        self.prefix: Prefix = pool_prefix(pool)
        whole = range_of(self.prefix)
        self.version, self.first, self.last = whole.version, whole.first, whole.last
        self.block_bits = BITS[self.version] - block_length(pool)
        self.reserved = {
            int(parse_address(text, "spec.reservations")): owner
            for text, owner in pool.spec.reservations.items()
        }
        self._reserved_sorted = sorted(self.reserved)
        self.owned_by: dict[str, list[int]] = {}
        for address in self._reserved_sorted:
            self.owned_by.setdefault(self.reserved[address], []).append(address)
        self.blocks: dict[int, Block] = {}
        self.foreign: dict[int, str] = {}
        self.misfits: dict[str, tuple[int, int]] = {}
        self.fresh: deque[Block] = deque()
        self.queue: OrderedDict[int, float] = OrderedDict()
        self._claim_hint = 0
        self._exclude()

    def _exclude(self) -> None:
        ranges = [(each.first, each.last) for each in self._excluded_ranges()]
        merged = merge([*ranges, *self.misfits.values()])
        self._excluded_first = [first for first, _ in merged]
        self._excluded_last = [last for _, last in merged]

    def _excluded_ranges(self) -> Iterable[AddressRange]:
        spec = self.pool.spec
        yield from (parse_range(text, "spec.excludes") for text in spec.excludes)
        if spec.gateway is not None:
            yield parse_range(spec.gateway, "spec.gateway")
        if not every_address_is_usable(self.prefix):
            # IPv4: network and broadcast. IPv6: subnet-router anycast (RFC 4291 2.6.1)
            yield parse_range(str(self.prefix.network_address), "")
            if self.version == 4:
                yield parse_range(str(self.prefix.broadcast_address), "")

    def arrange(self, node: str, blocks: Mapping[str, IPBlock], ledger: Ledger) -> None:
        """Take over all blocks of the pool and what was released in them, in one go."""
        self.blocks, self.foreign, self.misfits = {}, {}, {}
        self.fresh, self._claim_hint = deque(), 0
        for name in sorted(blocks):
            self.place(node, blocks[name])
        self._exclude()
        self.fresh = deque(sorted(self.fresh, key=lambda block: block.first))
        waiting = sorted(
            (released.at, released.sequence, address)
            for address, released in ledger.released.items()
            if self.is_queued(address)
        )
        self.queue = OrderedDict((address, at) for at, _, address in waiting)

    def place(self, node: str, block: IPBlock) -> bool:
        """Note one block; False when it does not fit the pool and its range is withheld."""
        found = range_of(block_prefix(block))
        fits = (
            found.version == self.version
            and self.first <= found.first
            and found.last <= self.last
            and found.last - found.first + 1 == 1 << self.block_bits
        )
        if found.version != self.version:
            self.misfits[block.metadata.name] = (-1, -1)  # names it, and withholds nothing
        elif not fits:
            self.misfits[block.metadata.name] = (found.first, found.last)
        elif block.spec.node != node:
            self.foreign[found.first] = block.spec.node
        elif found.first not in self.blocks:
            held = Block(first=found.first, last=found.last, cursor=found.first)
            self.blocks[found.first] = held
            self.fresh.append(held)
        return fits

    def base_of(self, address: int) -> int:
        """The first address of the block in which `address` lies."""
        return address >> self.block_bits << self.block_bits

    def excluded_until(self, address: int) -> int | None:
        """The last address of the excluded range around `address`, or None."""
        index = bisect_right(self._excluded_first, address) - 1
        if index >= 0 and address <= self._excluded_last[index]:
            return self._excluded_last[index]
        return None

    def is_kept(self, address: int) -> bool:
        """Whether the address is not for everybody: excluded or reserved."""
        return address in self.reserved or self.excluded_until(address) is not None

    def is_queued(self, address: int) -> bool:
        """Whether the address, once released, waits for whoever comes next."""
        return (
            self.first <= address <= self.last
            and self.base_of(address) in self.blocks
            and not self.is_kept(address)
        )

    def next_fresh(self, ledger: Ledger) -> int | None:
        """The lowest never-used address of the blocks held. Only cursors move."""
        while self.fresh:
            block = self.fresh[0]
            address = block.cursor
            while address <= block.last:
                end = self.excluded_until(address)
                if end is not None:
                    address = end + 1
                elif (
                    address in ledger.used or address in ledger.released or address in self.reserved
                ):
                    address += 1
                else:
                    block.cursor = address
                    return address
            block.cursor = address
            self.fresh.popleft()
        return None

    def oldest(self) -> tuple[int, float] | None:
        """The address that was released first, and when."""
        if not self.queue:
            return None
        address = next(iter(self.queue))
        return address, self.queue[address]

    def next_claim(self) -> Prefix | None:
        """The lowest block that nobody holds and that has an address for everybody."""
        span = 1 << self.block_bits
        base = self.first + self._claim_hint * span
        while base <= self.last:
            end = self.excluded_until(base)
            if end is not None and end >= base + span - 1:
                base = self.base_of(end + 1)
            elif base in self.blocks or base in self.foreign or not self.usable_in(base):
                base += span
            else:
                self._claim_hint = (base - self.first) // span
                return prefix_of(self.version, base, BITS[self.version] - self.block_bits)
        self._claim_hint = (base - self.first) // span
        return None

    def usable_in(self, base: int) -> int:
        """How many addresses of the block at `base` are for everybody."""
        last = base + (1 << self.block_bits) - 1
        kept = sum(
            1
            for address in self._reserved_between(base, last)
            if self.excluded_until(address) is None
        )
        return last - base + 1 - self.excluded_between(base, last) - kept

    def excluded_between(self, first: int, last: int) -> int:
        """How many addresses from `first` to `last` are excluded."""
        count = 0
        start = max(0, bisect_right(self._excluded_first, first) - 1)
        for index in range(start, len(self._excluded_first)):
            if self._excluded_first[index] > last:
                break
            low, high = self._excluded_first[index], self._excluded_last[index]
            count += max(0, min(high, last) - max(low, first) + 1)
        return count

    def _reserved_between(self, first: int, last: int) -> list[int]:
        low = bisect_left(self._reserved_sorted, first)
        return self._reserved_sorted[low : bisect_right(self._reserved_sorted, last)]
