"""Attachments that other plugins made, taken into our books: `weft import`.

Nothing of the kernel's is touched. Addresses are held, so that nobody is given one twice, ports are
in the ledger, and the DEL that a runtime asks of us is passed on (`agent.parting`). The journal
comes first, and slices are small, because the loop serves meanwhile; a call that is cut short is
simply made again. What its own plugins have let go of is noticed here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.agent.parting import is_off_record
from weft.kernel import namespaces
from weft.model.addresses import parse_address
from weft.model.attachment import Assigned, Attachment, AttachmentKey, Former, NamespaceId, PodRef
from weft.model.errors import WeftError
from weft.model.ports import check_mappings
from weft.wire.api import FormerContainer, Imported, ImportedItem, ImportParams

SLICE = 25
"""Containers that are taken over in one turn of the loop: about 2 ms."""


class Importing:
    """Takes imported attachments in, and lets go of those whose plugins have."""

    def __init__(self, ground: Ground, detacher: Detacher) -> None:
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._ledger = ground.publishing.ledger
        self._log = ground.log
        self._detacher = detacher

    async def take_in(self, params: ImportParams) -> Imported:
        """Judge each container and, without `dry_run`, know it from now on. Raises WeftError where
        the journal cannot be written: what was taken in until then stays."""
        items: list[ImportedItem] = []
        claimed: dict[str, AttachmentKey] = {}
        done = 0
        for first in range(0, len(params.containers), SLICE):
            await asyncio.sleep(0)
            made: list[Attachment] = []
            for each in params.containers[first : first + SLICE]:
                item, attachment = self._judge(each, claimed)
                items.append(item)
                if attachment is not None:
                    claimed |= {a.address: attachment.key for a in attachment.addresses}
                    made.append(attachment)
            if not params.dry_run:
                self._keep(made)
                done += len(made)
        if done:
            self._log.event("info", "Imported", "node", f"{done} attachments of other plugins")
            self._addresses.shield()
        gone = await self.sweep(dry_run=params.dry_run) if params.last else ()
        return Imported(items=tuple(items), gone=tuple(str(key) for key in gone))

    def _judge(
        self, asked: FormerContainer, claimed: dict[str, AttachmentKey]
    ) -> tuple[ImportedItem, Attachment | None]:
        key = AttachmentKey(asked.network, asked.container, asked.ifname)

        def item(result: str, why: str = "") -> ImportedItem:
            return ImportedItem(
                network=asked.network,
                container=asked.container,
                ifname=asked.ifname,
                result=result,
                why=why,
            )

        known = self._attachments.get(key)
        if known is not None and known.former is None:
            return item("own", "weft attached it"), None
        if known is not None and known.state != "ready":
            return item("leaving", "its DEL is under way"), None
        try:
            made = _attachment(key, asked)
        except WeftError as error:
            return item("refused", error.message), None
        if known is not None and made.netns is None and known.sandbox == made.sandbox:
            made = msgspec.structs.replace(made, netns=known.netns)  # it has died meanwhile
        if known is not None and _same(known, made):
            return item("known"), None
        for address in (each.address for each in made.addresses):
            holder = self._addresses.holder(address) or claimed.get(address)
            if holder is not None and holder != key:
                return item("refused", f"{address} is held by {holder}"), None
        shared = "; ".join(self._ports_shared(made))
        return item("imported" if known is None else "changed", shared), made

    def _ports_shared(self, made: Attachment) -> Iterator[str]:
        for mapping in made.ports:
            for entry in self._ledger.colliding(mapping):
                if entry.key != made.key:
                    port = f"{mapping.host_port}/{mapping.protocol}"
                    yield f"host port {port} is also published for {entry.owner}"

    def _keep(self, made: list[Attachment]) -> None:
        before = [known for each in made if (known := self._attachments.get(each.key))]
        for each in before:
            self._addresses.forget(each)
        held = [self._addresses.take_over(each) for each in made]
        try:
            self._journal.put_all(held)
        except WeftError:
            for each in held:
                self._addresses.forget(each)
            for each in before:
                self._addresses.adopt(each)
            raise
        for each in before:
            self._ledger.release(each.key)
            self._attachments.drop(each.key)
        for each in held:
            self._attachments.put(each)
            self._ledger.adopt(each)

    async def resume(self) -> None:
        """Finish the DELs that the last agent was at. Not before requests are served: former
        plugins take their time."""
        leaving = [each.key for each in self._attachments.imported() if each.state == "leaving"]
        ends = await asyncio.gather(*map(self._detacher.detach, leaving), return_exceptions=True)
        for key, end in zip(leaving, ends, strict=True):
            if isinstance(end, Exception):
                self._log.event("error", "NotUndone", str(key), str(end))

    async def sweep(self, *, dry_run: bool = False) -> list[AttachmentKey]:
        """Forget those that their own plugins have let go of: their runtime still calls these."""
        imported = [each for each in self._attachments.imported() if each.state == "ready"]
        if not imported:
            return []
        gone = await asyncio.to_thread(
            lambda: [each.key for each in imported if is_off_record(each)]
        )
        if dry_run:
            return gone
        for key in gone:
            await self._detacher.detach(key)
        if gone:
            words = f"{len(gone)} attachments, by the plugins that made them"
            self._log.event("info", "FormerGone", "node", words)
        return gone


def _attachment(key: AttachmentKey, asked: FormerContainer) -> Attachment:
    """Raises Invalid."""
    check_mappings(asked.ports, "ports")
    addresses = dict.fromkeys(str(parse_address(each, "addresses")) for each in asked.addresses)
    return Attachment(
        key=key,
        state="ready",
        host_link=asked.link,
        mac=_mac(asked.mac),
        mtu=asked.mtu,
        addresses=tuple(Assigned(address=a, pool="", block="", sequence=0) for a in addresses),
        netns=_identity(asked.netns),
        sandbox=asked.netns,
        pod=PodRef(namespace=asked.pod_namespace, name=asked.pod_name, uid=asked.pod_uid),
        via4=4 in asked.routed,
        via6=6 in asked.routed,
        created=asked.written,
        version=asked.version,
        ports=asked.ports,
        former=Former(cache=asked.cache, reservations=asked.reservations, plugins=asked.plugins),
    )


def _mac(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        return b""


def _identity(path: str) -> NamespaceId | None:
    found = namespaces.locate(path)
    return NamespaceId(dev=found[1][0], ino=found[1][1]) if found else None


def _same(known: Attachment, made: Attachment) -> bool:
    """Whether what is on record now is what was taken in."""
    listed = tuple(
        msgspec.structs.replace(each, pool="", block="", sequence=0) for each in known.addresses
    )
    return msgspec.structs.replace(known, addresses=listed) == made
