"""Addresses for attachments: the room `ipam` with a store behind it and a clock beside it.

Assigning touches memory only. A block is claimed in the store - the creation of one key - when no
held block serves, which is the one thing ADD may have to wait for. Pools, blocks and the labels of
namespaces follow the store's watch.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Address
from itertools import chain

import msgspec

from weft.agent.events import Log
from weft.agent.mirror import Mirror
from weft.agent.node import Node
from weft.agent.tending import tend
from weft.ipam import audit, defaults
from weft.ipam import request as ask
from weft.ipam.beside import inside, without
from weft.ipam.gateway import gateway
from weft.ipam.plan import plan
from weft.ipam.view import View
from weft.kernel.host import Network
from weft.model.addresses import Address
from weft.model.attachment import Assigned, Attachment, AttachmentKey, PodRef
from weft.model.errors import Conflict, Exhausted, NotReady, WeftError
from weft.model.ip_block import IPBlock, block_name, block_prefix, new_block
from weft.model.ip_pool import IPPool, pool_prefix
from weft.model.kinds import from_bytes, key_of, object_key, prefix_of_kind, to_bytes
from weft.model.metadata import DEFAULT_NAMESPACE, Metadata, Object
from weft.model.pod import Namespace
from weft.model.settings import Settings
from weft.store.contract import ABSENT, Change, Event, Store

Addressed = tuple[Assigned, ...]
CLAIM_TRIES = 16  # other nodes may claim the same block at the same moment
RANDOM_TRIES = 8


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an attachment wants, in the node's words."""

    key: AttachmentKey
    want4: bool
    want6: bool
    ips: tuple[Address, ...] = ()
    pools: tuple[str, ...] | None = None
    pool4: str = ""  # the only one for IPv4: that of its bridge's gateway
    pod: PodRef = PodRef()


class Addresses:
    """This node's addresses. `changed` is called after pools or blocks have changed."""

    def __init__(self, store: Store, settings: Settings, name: str, node: Node, log: Log) -> None:
        self._store = store
        self._settings = settings.ipam
        self._name = name
        self._node = node
        self._log = log
        self.view = View(
            name, cooldown=settings.ipam.cooldown, cooldown_floor=settings.ipam.cooldown_floor
        )
        self.pools: dict[str, IPPool] = {}
        self.blocks: dict[str, IPBlock] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._former: dict[AttachmentKey, tuple[str, ...]] = {}  # of imported ones
        self._ranges6: tuple[str, ...] | None = None
        self._revision = 0
        self._watching: asyncio.Task[None] | None = None
        self.changed: Callable[[], None] = lambda: None
        self.mirror: Mirror | None = None
        node.full = self.exhausted

    # -- from the store -------------------------------------------------------------------------

    async def load(self, pods: Iterable[str] = ()) -> None:
        """Read pools, blocks and namespaces; make the default pools if there are none, around
        the addresses `pods` that are in use already."""
        listing = await self._store.list("/")
        if self._settings.default_pools and not any(
            item.key.startswith(prefix_of_kind("IPPool")) for item in listing.items
        ):
            await self._make_default_pools([ipaddress.ip_address(text) for text in pods])
            listing = await self._store.list("/")
        for item in listing.items:
            self._take_in(item.key, item.value, item.revision)
        self._revision = listing.revision
        if self.mirror is not None:
            self.mirror.listed(item.key for item in listing.items)

    async def hold(self) -> None:
        """Claim again the blocks of addresses that are in use, where the store has lost them."""
        lost = {
            (held.pool, held.block)
            for key, holdings in self.view.all_holdings()
            for held in holdings
            if key not in self._former  # whose addresses are in blocks of nobody
            and held.pool
            and held.block
            and block_name(held.block) not in self.blocks
        }
        for pool, block in sorted(lost, key=str):
            assert pool is not None and block is not None
            try:
                await self.claim(ask.NeedBlock(pool=pool, cidr=block))
            except WeftError as error:
                self._log.event("error", "BlockNotHeld", pool, f"{block}: {error.message}")
                continue
            holder = self.blocks[block_name(block)].spec.node
            if holder != self._name:
                words = f"{block} belongs to {holder}, and pods of this node have addresses of it"
                self._log.event("error", "BlockLost", pool, words)

    async def _make_default_pools(self, pods: list[Address]) -> None:
        facts = self._node.facts
        host = [prefix for prefix, _ in facts.prefixes]
        pools: list[IPPool] = []
        if facts.ipv4.on:
            pools.append(defaults.default_pool(defaults.default_ipv4(host, pods)))
        # a /48 costs nothing where IPv6 is off now, and pods get it when it is switched on
        random = os.urandom(defaults.GLOBAL_ID_BYTES * RANDOM_TRIES)
        pools.append(defaults.default_pool(defaults.default_ipv6(host, random, pods)))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for pool in pools:
            metadata = msgspec.structs.replace(
                pool.metadata, creation_timestamp=stamp, generation=1
            )
            made = msgspec.structs.replace(pool, metadata=metadata)
            try:
                await self._store.commit(
                    [Change(key=object_key(made), value=to_bytes(made), expected=ABSENT)]
                )
            except Conflict:
                continue  # another node chose first; its choice is the cluster's
            self._log.event("info", "PoolCreated", made.metadata.name, f"chose {made.spec.cidr}")

    def _take_in(self, key: str, value: bytes | None, revision: int) -> bool:
        """One key of the store; whether pools or blocks changed."""
        kind, _, name = key[1:].partition("/")
        item: Object | None = None
        if self.mirror is not None:
            self.mirror.saw(key, value)
        if value is not None:
            try:
                item = from_bytes(value, revision)
            except WeftError as error:
                # quarantined alone: what it said before stays in force
                self._log.event("error", "ObjectUnreadable", key, error.message)
                return False
        if isinstance(item, IPPool) or (item is None and kind == "ippools"):
            return self._pool(name, item)
        if isinstance(item, IPBlock) or (item is None and kind == "ipblocks"):
            return self._block(name, item)
        if isinstance(item, Namespace):
            self._namespaces[name] = item.metadata.labels
        elif kind == "namespaces":
            self._namespaces.pop(name, None)
        elif key == key_of("Node", self._name):
            self.view.set_node_labels(item.metadata.labels if item is not None else None)
        return False

    def _pool(self, name: str, pool: IPPool | None) -> bool:
        self._ranges6 = None
        if pool is None:
            self.view.remove_pool(name)
            return self.pools.pop(name, None) is not None
        self.view.set_pool(pool)
        self.pools[name] = pool
        return True

    def _block(self, name: str, block: IPBlock | None) -> bool:
        known = self.blocks.get(name)
        if block is None:
            if known is not None:
                self.view.remove_block(known)
                del self.blocks[name]
            return known is not None
        self.view.set_block(block)
        self.blocks[name] = block
        return known is None or known.spec != block.spec

    def watch(self) -> None:
        """Begin to follow the store."""
        self._watching = tend("following the store", self._follow, self._log)

    async def _follow(self) -> None:
        while True:
            watch = self._store.watch("/", self._revision)
            try:
                changed = False
                async for event in watch:
                    changed = self._event(event) or changed
                    if changed and not event.more:
                        self.changed()
                        changed = False
                return  # the store was closed
            except Conflict:
                await self._reload()  # history is gone: list again
            finally:
                await watch.aclose()

    def _event(self, event: Event) -> bool:
        changed = self._take_in(event.key, event.value, event.revision)
        if not event.more:
            self._revision = event.revision
        return changed

    async def _reload(self) -> None:
        listing = await self._store.list("/")
        present = {item.key for item in listing.items}
        for pool in [n for n in self.pools if key_of("IPPool", n) not in present]:
            self._pool(pool, None)
        for block in [n for n in self.blocks if key_of("IPBlock", n) not in present]:
            self._block(block, None)
        for item in listing.items:
            self._take_in(item.key, item.value, item.revision)
        self._revision = listing.revision
        if self.mirror is not None:
            self.mirror.listed(present)
        self.changed()

    async def close(self) -> None:
        """Stop following."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    # -- for attachments ------------------------------------------------------------------------

    def _request(self, wish: Wish) -> ask.Request:
        pod = wish.pod
        namespace = pod.namespace or DEFAULT_NAMESPACE
        return ask.Request(
            key=wish.key,
            ipv4="required" if wish.want4 and self.serves(4, wish.pools) else "off",
            ipv6="required" if wish.want6 and self.serves(6, wish.pools) else "off",
            addresses=wish.ips,
            pools=wish.pools,
            pool4=wish.pool4,
            namespace_labels=self._labels_of(namespace),
            owner=f"{namespace}/{pod.name}" if pod.name else "",
            allow_requested=self._settings.allow_requested,
        )

    def serves(self, version: int, named: Collection[str] | None = None) -> bool:
        """Whether there are pools of a family. Who names pools of one family only wants that."""
        states = self.view.pools(version)
        if not named or not any(s.name in named for v in (4, 6) for s in self.view.pools(v)):
            return bool(states)
        return any(state.name in named for state in states)

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        # every namespace carries its name, as in Kubernetes since 1.22
        known = self._namespaces.get(namespace, {})
        return {**known, "kubernetes.io/metadata.name": namespace}

    def assign(self, wish: Wish) -> Addressed | None:
        """Addresses from the blocks held; None where a block must be claimed first."""
        if not (self.serves(4) or self.serves(6)):
            raise Exhausted("there is no IPPool; write one and `weft apply -f` it")
        found = plan(self.view, self._request(wish), time.monotonic())
        if isinstance(found, ask.NeedBlock):
            return None
        self.view.commit(found)
        return tuple(map(_assigned, found.addresses))

    def gateway(self, wish: Wish, former: IPv4Address | None) -> IPv4Address | ask.NeedBlock | None:
        """The address for the bridge of a container, as `ipam.gateway` chooses it."""
        return gateway(self.view, self._request(wish), time.monotonic(), former)

    def take(self, key: AttachmentKey, addresses: Iterable[str]) -> Addressed:
        """Addresses that another plugin gave, whether a pool of ours covers them or not: nobody
        else gets them. Raises Conflict where somebody has one, and then takes none."""
        taken: list[Assigned] = []
        try:
            for text in addresses:
                address = ipaddress.ip_address(text)
                self.view.adopt(address, key)
                use = self.view.ledgers[address.version].used[int(address)]
                taken.append(_assigned(self.view.held(address, use.sequence)))
        except Conflict as error:
            self.take_back(tuple(taken))
            raise Conflict(
                f"{error.message}; the plugin before weft gave an address that is in use",
                reason="address-taken",
            ) from error
        return tuple(taken)

    async def secure(self, wish: Wish) -> Addressed:
        """Addresses, after claiming whatever blocks that takes."""
        for _ in range(CLAIM_TRIES):
            assigned = self.assign(wish)
            if assigned is not None:
                return assigned
            found = plan(self.view, self._request(wish), time.monotonic())
            if isinstance(found, ask.NeedBlock):
                await self.claim(found)
        raise NotReady("other nodes claim blocks of the same pool; try again", reason="busy")

    async def claim(self, need: ask.NeedBlock) -> None:
        """Hold a block, or learn who holds it."""
        block = new_block(need.cidr, pool=need.pool, node=self._name)
        key = object_key(block)
        metadata: Metadata = msgspec.structs.replace(
            block.metadata, creation_timestamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        )
        value = to_bytes(msgspec.structs.replace(block, metadata=metadata))
        try:
            revision = await self._store.commit([Change(key=key, value=value, expected=ABSENT)])
        except Conflict:
            entry = await self._store.get(key)
            if entry is None:
                return
            value, revision = entry.value, entry.revision
        else:
            self._log.event("info", "BlockClaimed", need.pool, f"claimed {need.cidr}")
        if self._take_in(key, value, revision):
            self.changed()

    def take_back(self, assigned: Addressed) -> None:
        """Addresses that no packet has seen: they cool all the same, which is simpler to trust."""
        self.release(assigned, time.monotonic())

    def release(self, assigned: Addressed, now: float) -> None:
        """An attachment is gone."""
        for item in assigned:
            self.view.release(ipaddress.ip_address(item.address), item.sequence, now)

    def give_back(self, address: IPv4Address, sequence: int) -> None:
        """A bridge has its address no longer."""
        self.view.release(address, sequence, time.monotonic())

    def adopt(self, attachment: Attachment) -> None:
        """An attachment known from the journal or the kernel. Raises Conflict if somebody else
        holds one of its addresses."""
        if attachment.former is not None:
            self._former[attachment.key] = tuple(each.address for each in attachment.addresses)
        for item in attachment.addresses:
            sequence = item.sequence if item.sequence else None
            self.view.adopt(ipaddress.ip_address(item.address), attachment.key, sequence)

    def holder(self, address: str) -> AttachmentKey | None:
        """Who has an address; None: nobody."""
        wanted = ipaddress.ip_address(address)
        use = self.view.ledgers[wanted.version].used.get(int(wanted))
        return use.key if use is not None else None

    def take_over(self, attachment: Attachment) -> Attachment:
        """An imported attachment holds its addresses; it, with the pools that they are of. Raises
        Conflict if somebody else holds one."""
        self.adopt(attachment)
        held = (_assigned(each) for each in self.view.holdings(attachment.key))
        addresses = tuple(msgspec.structs.replace(each, block="") for each in held)
        return msgspec.structs.replace(attachment, addresses=addresses)

    def forget(self, attachment: Attachment) -> None:
        """The end of an imported attachment's holdings."""
        for held in self.view.holdings(attachment.key):
            self.view.release(held.address, held.sequence, time.monotonic())
        before = self._former.pop(attachment.key, ())
        if any(inside(each, self._own_blocks()) for each in before):
            self.changed()

    def shield(self) -> None:
        """After imports: the rules of this node's blocks are not about addresses that others gave
        out."""
        blocks = self._own_blocks()
        if any(inside(each, blocks) for several in self._former.values() for each in several):
            self.changed()

    def idle_pools(self) -> frozenset[str]:
        """Names of pools that give nothing out and of which this node has no block."""
        held = {block.spec.pool for block in self.blocks.values()}
        return frozenset(
            name for name, pool in self.pools.items() if pool.spec.disabled and name not in held
        )

    def recognise(
        self, key: AttachmentKey, addresses: Iterable[str]
    ) -> tuple[Addressed, list[str]]:
        """Addresses of an attachment that only the kernel remembers, as assigned; and a sentence
        for each that is no address or that somebody else holds."""
        conflicts = []
        for text in addresses:
            try:
                self.view.adopt(ipaddress.ip_address(text), key)
            except Conflict as error:
                conflicts.append(error.message)
            except ValueError:
                conflicts.append(f"{text[:50]!a} in its link's record is no address")
        return tuple(map(_assigned, self.view.holdings(key))), conflicts

    def cool(self, address: str, sequence: int, since: float) -> None:
        """An address given back before a restart of the agent."""
        self.view.cool(ipaddress.ip_address(address), sequence, since)

    # -- for the node and for people ------------------------------------------------------------

    def pool_prefixes(self) -> tuple[Network, ...]:
        """Ranges of all pools."""
        return tuple(pool_prefix(pool) for pool in self.pools.values())

    def block_prefixes(self) -> tuple[Network, ...]:
        """Ranges of the blocks that this node holds, without addresses of imported attachments:
        these are not behind a link of ours."""
        blocks = self._own_blocks()
        return tuple(without(blocks, chain.from_iterable(self._former.values())))

    def _own_blocks(self) -> list[Network]:
        return [
            block_prefix(block) for block in self.blocks.values() if block.spec.node == self._name
        ]

    def ranges6(self) -> tuple[str, ...]:
        """IPv6 ranges that pods reach without a way out."""
        if self._ranges6 is None:
            prefixes = self.pool_prefixes()
            self._ranges6 = tuple(str(prefix) for prefix in prefixes if prefix.version == 6)
        return self._ranges6

    def exhausted(self) -> str | None:
        """Why no pod could be given an address, or None: STATUS asks."""
        if not self.pools:
            return "there is no IPPool; write one and `weft apply -f` it"
        now = time.monotonic()
        for version, on in ((4, self._node.facts.ipv4.on), (6, self._node.facts.ipv6.on)):
            states = [s for s in self.view.pools(version) if not s.pool.spec.disabled]
            if not on or not self.view.pools(version):
                continue
            names = {state.name for state in states}
            usage = [u for u in audit.usage(self.view, now) if u.pool in names]
            if not any(u.free for u in usage):
                listed = ", ".join(f"{u.pool} ({u.used} in use)" for u in usage) or "none enabled"
                return f"no IPv{version} address is left: {listed}; add or enlarge an IPPool"
        return None


def _assigned(held: ask.Held) -> Assigned:
    return Assigned(
        address=str(held.address),
        pool=held.pool or "",
        block=str(held.block or ""),
        sequence=held.sequence,
    )
