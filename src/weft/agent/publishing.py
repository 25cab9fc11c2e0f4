"""Everything about published ports that is not a row: ledger, stale flows, ::1.

    claim      before an ADD's first effect        published  once its rows stand
    release    what was claimed, and more          withdrawn  once a DEL's rows are gone

The rows themselves (elements of the maps) are the engine's. A hook that leads ::1 to containers
(`kernel.loopback_hook`) is made with the first port that needs it; where the kernel has none, `why`
says so for status, and everything else works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from weft.agent.events import Log
from weft.agent.ports import Ledger
from weft.agent.stale import StaleFlows
from weft.fabric.wiring import packed
from weft.kernel import loopback_hook
from weft.kernel.loopback_hook import Goal, Hook, Port
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.ports import PROTOCOLS

LENT = 5.0
"""Seconds after an ADD in which the runtime may bind the ports itself (`Ledger.lend`)."""


class Publishing:
    """Published ports of this node."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.ledger = Ledger(log)
        self._flows = StaleFlows(log)
        self._hook: Hook | None = None
        self._lent: dict[AttachmentKey, asyncio.TimerHandle] = {}
        self.why = ""
        """Why programs of the node do not reach published ports by ::1; "" where they do, or
        where no port needs it."""

    def claim(self, attachment: Attachment) -> None:
        """See `Ledger.claim`."""
        self.ledger.claim(attachment)

    def release(self, key: AttachmentKey) -> None:
        """See `Ledger.release`."""
        self._call_back(key)
        self.ledger.release(key)

    def begin(self, attachments: Iterable[Attachment]) -> None:
        """At a start, once it is known what stands: the hook leads to exactly that."""
        ours = (each for each in attachments if each.former is None)
        goals = {port: goal for each in ours for port, goal in _goals(each)}
        if goals:
            self._make(goals)
        else:
            loopback_hook.remove()

    def published(self, attachment: Attachment) -> None:
        """The rows of an attachment stand."""
        if not attachment.ports:
            return
        self._lend(attachment.key)
        self._flows.after(attachment)
        goals = dict(_goals(attachment))
        if not goals:
            return
        if self._hook is None:
            self._make(goals)
            return
        try:
            for port, goal in goals.items():
                self._hook.put(port, goal)
        except OSError as error:
            self._failed(error)

    def withdrawn(self, attachment: Attachment) -> None:
        """The rows of an attachment are gone."""
        self.release(attachment.key)
        if not attachment.ports or attachment.former is not None:
            return
        self._flows.after(attachment.having("leaving"))
        if self._hook is None:
            return
        try:
            for port, _ in _goals(attachment):
                self._hook.drop(port)
        except OSError as error:
            self._failed(error)

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

    def _make(self, goals: dict[Port, Goal]) -> None:
        try:
            self._hook = Hook(goals)
        except OSError as error:
            self._failed(error)
        else:
            self.why = ""

    def _failed(self, error: OSError) -> None:
        why = f"no connect hook: {error.strerror or error}"
        if why != self.why:
            self._log.event("warning", "LoopbackNotLed", "node", why)
        self.why = why

    async def close(self) -> None:
        """Give back sockets and map; ports and hook stay published."""
        await self._flows.close()
        for key in list(self._lent):
            self._call_back(key)
        self.ledger.close()
        if self._hook is not None:
            self._hook.close()


def _goals(attachment: Attachment) -> Iterator[tuple[Port, Goal]]:
    """What ::1 leads to for an attachment."""
    ip = next((each.address for each in attachment.addresses if ":" in each.address), None)
    if ip is None:
        return
    for mapping in attachment.ports:
        wanted = mapping.host_ip == "::1" or (mapping.every and 6 in mapping.families)
        if wanted and mapping.protocol != "sctp":
            port = Port(PROTOCOLS[mapping.protocol], mapping.host_port)
            yield port, Goal(packed(ip), mapping.container_port)
