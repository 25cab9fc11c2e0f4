"""Everything about published ports that is not a row: ledger, stale flows, ::1.

    claim      before an ADD's first effect        published  once its rows stand
    release    what was claimed, and more          withdrawn  once a DEL's rows are gone

The rows themselves (elements of the maps) are the engine's. Next: `agent.loopback` for ::1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from weft.agent.events import Log
from weft.agent.loopback import Loopback
from weft.agent.ports import Ledger
from weft.agent.stale import StaleFlows
from weft.model.attachment import Attachment, AttachmentKey

LENT = 5.0
"""Seconds after an ADD in which the runtime may bind the ports itself (`Ledger.lend`)."""


class Publishing:
    """Published ports of this node."""

    def __init__(self, log: Log, loopback: Loopback) -> None:
        self.ledger = Ledger(log)
        self.loopback = loopback
        self._flows = StaleFlows(log)
        self._lent: dict[AttachmentKey, asyncio.TimerHandle] = {}
        self._newly: list[Attachment] = []  # by ::1 they are not led yet

    def claim(self, attachment: Attachment) -> None:
        """See `Ledger.claim`."""
        self.ledger.claim(attachment)

    def release(self, key: AttachmentKey) -> None:
        """See `Ledger.release`."""
        self._call_back(key)
        self.ledger.release(key)

    async def begin(self, attachments: Iterable[Attachment]) -> None:
        """At a start, once it is known what stands: ::1 leads to exactly that."""
        await self.loopback.begin(attachments)

    def published(self, attachment: Attachment) -> None:
        """The rows of an attachment stand."""
        if not attachment.ports:
            return
        self._lend(attachment.key)
        self._flows.after(attachment)
        self.loopback.published(attachment)
        if self.loopback.relays:
            self._newly.append(attachment)

    def relayed(self) -> None:
        """The packet rules know the relay's ports: datagrams of before may find them."""
        newly, self._newly = self._newly, []
        for attachment in newly:
            self._flows.after(attachment)

    def withdrawn(self, attachment: Attachment) -> None:
        """The rows of an attachment are gone."""
        self.release(attachment.key)
        if not attachment.ports:
            return
        self._newly = [each for each in self._newly if each.key != attachment.key]
        self._flows.after(attachment.having("leaving"))
        self.loopback.withdrawn(attachment)

    def _lend(self, key: AttachmentKey) -> None:
        self._call_back(key)
        self.ledger.lend(key)
        loop = asyncio.get_running_loop()
        self._lent[key] = loop.call_later(LENT, self._hold, key)

    def _hold(self, key: AttachmentKey, first: int = 0) -> None:
        del self._lent[key]
        further = self.ledger.hold(key, first)
        if further:
            loop = asyncio.get_running_loop()
            self._lent[key] = loop.call_later(0, self._hold, key, further)

    def _call_back(self, key: AttachmentKey) -> None:
        timer = self._lent.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def close(self) -> None:
        """Give back sockets and map; ports stay published, hook and relay go on."""
        await self._flows.close()
        for key in list(self._lent):
            self._call_back(key)
        self.ledger.close()
        await self.loopback.close()
