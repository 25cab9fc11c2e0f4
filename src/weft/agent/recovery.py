"""Starting on a node where containers may be running.

The journal says what was promised, the kernel what stands, the queue what was asked meanwhile.
`intent` is undone, `leaving` is finished, `ready` is adopted without touching what is right, or
forgotten where its link is gone; a link of ours that the journal does not know is known again
from its alias. Nothing foreign is looked at twice.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from weft.agent.attach import rows_of
from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.cni.queue import Queued, drop, quarantine, read_queue
from weft.kernel.host import HostLink
from weft.model.attachment import ALIAS_MARK, Attachment, AttachmentKey, read_alias
from weft.model.errors import Conflict, WeftError
from weft.rows.rules import Element
from weft.wire.cni import parse_request


class Recovery:
    """What has to be settled before the first request."""

    def __init__(self, ground: Ground, detacher: Detacher) -> None:
        self._engine = ground.engine
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._detacher = detacher
        self._node = ground.node
        self._log = ground.log

    def inhabited(self) -> list[str]:
        """Addresses of pods that stand, from their links alone."""
        records = (read_alias(link.alias) for link in self._node.links() if link.is_veth)
        return [text for record in records if record is not None for text in record.addresses]

    def remember(self) -> None:
        """The journal into memory, then links of ours that it does not know."""
        if self._journal.fresh:
            self._log.event("info", "JournalNew", "journal", self._journal.fresh)
        now = time.monotonic()
        self._journal.warmed(now - self._addresses.view.cooldown)
        # what stands comes first: of two that claim one address, it is the one that has it
        present = {link.name for link in self._node.links()}
        known = list(self._journal.attachments())
        for attachment in sorted(known, key=lambda each: each.host_link not in present):
            self._known(attachment)
        for address, sequence, since in self._journal.cooling():
            self._addresses.cool(address, sequence, since)
        for link in self._node.links():
            if link.alias.startswith(ALIAS_MARK) and self._attachments.of_link(link.name) is None:
                self._from_link(link)

    def _known(self, attachment: Attachment) -> None:
        try:
            self._addresses.adopt(attachment)
        except Conflict as error:
            self._log.event("error", "AddressTwice", str(attachment.key), error.message)
        self._attachments.put(attachment)

    def _from_link(self, link: HostLink) -> None:
        record = read_alias(link.alias)
        if record is None or record.key.host_link != link.name or not link.is_veth:
            self._log.event(
                "warning",
                "LinkUnreadable",
                link.name,
                f"the alias {link.alias!a} is not understood",
            )
            return
        try:
            addresses = self._addresses.recognise(record.key, record.addresses)
        except (Conflict, ValueError) as error:
            self._log.event("error", "AddressTwice", str(record.key), str(error))
            return
        attachment = Attachment(
            key=record.key,
            state="ready",
            host_link=link.name,
            mac=record.mac,
            mtu=link.mtu,
            addresses=addresses,
            pod=record.pod,
            masquerade=record.masquerade,
            via4=record.via4,
            via6=record.via6,
            ranges6=self._addresses.ranges6() if record.via4 else (),
        )
        self._journal.put(attachment)
        self._attachments.put(attachment)
        self._log.event("info", "Recognised", str(record.key), f"known again from link {link.name}")

    async def settle(self) -> None:
        """Undo what was begun, finish what was ending, adopt and repair what is promised."""
        present = {link.name: link.index for link in self._node.links()}
        unfinished: list[AttachmentKey] = []
        standing: list[str] = []
        for attachment in self._attachments:
            owner = str(attachment.key)
            self._engine.adopt(owner, rows_of(attachment, self._node))
            if attachment.state != "ready" or attachment.host_link not in present:
                # without its link there is no container left to serve: its namespace died, or
                # a DEL could not be written down
                unfinished.append(attachment.key)
            else:
                self._engine.learn(attachment.host_link, present[attachment.host_link])
                standing.append(owner)
        self._node.disown(
            row
            for attachment in self._attachments
            for row in rows_of(attachment, self._node)
            if isinstance(row, Element)
        )
        self._repair(standing)
        ends = await asyncio.gather(*map(self._detacher.detach, unfinished), return_exceptions=True)
        for key, end in zip(unfinished, ends, strict=True):
            if isinstance(end, Exception):
                self._log.event("error", "NotUndone", str(key), str(end))
            else:
                self._log.event(
                    "info", "Undone", str(key), "cut short, or its link is gone; undone"
                )

    def _repair(self, owners: list[str]) -> None:
        if not owners:
            return
        try:
            wrong = self._engine.drift(owners)
        except WeftError as error:
            self._log.event("error", "NotRepaired", "node", error.message)
            return
        for owner, found in wrong.items():
            for mended, reason in ((True, "Repaired"), (False, "Damaged")):
                words = "; ".join(each.words for each in found if each.mended is mended)
                if words:
                    self._log.event("warning", reason, owner, words)

    async def drain(self, directory: Path) -> None:
        """The DELs that launchers queued while no agent was there."""
        try:
            waiting = read_queue(directory)
        except Conflict as error:
            self._log.event("error", "QueueRefused", str(directory), error.message)
            return
        ends = await asyncio.gather(*map(self._finish, waiting), return_exceptions=True)
        for queued, end in zip(waiting, ends, strict=True):
            if isinstance(end, Exception):
                self._log.event("error", "NotDrained", queued.path.name, str(end))
        if waiting:
            self._log.event("info", "QueueDrained", "node", f"{len(waiting)} DELs were waiting")

    async def _finish(self, queued: Queued) -> None:
        try:
            request = parse_request(queued.request.variables(), queued.request.stdin)
        except WeftError:
            quarantine(queued.path)
            raise
        known = self._attachments.get(request.key)
        if known is None or known.begun_ns <= queued.request.started_ns:
            await self._detacher.detach(request.key)
        drop(queued.path)
