"""Starting on a node where containers may be running.

The journal says what was promised, the kernel what stands, the queue what was asked meanwhile.
`intent` is undone, `leaving` is finished, `ready` is adopted without touching what is right, or
forgotten where its link is gone. What the journal lacks is known again from the links before
that: `agent.recognition`. Nothing foreign is looked at twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from weft.agent.bridging import bridges_of
from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.agent.promise import rows_of
from weft.agent.recognition import own_names
from weft.cni.queue import Queued, drop, quarantine, read_queue
from weft.drivers.removal import delete_links
from weft.kernel.host import HostLink
from weft.model.attachment import (
    ALIAS_MARK,
    HOST_MAC,
    LIVE_GROUP,
    AttachmentKey,
    limiter_of,
    read_limiter_alias,
)
from weft.model.bridge import read_bridge_alias
from weft.model.errors import Conflict, WeftError
from weft.wire.cni import parse_request


class Recovery:
    """What has to be settled before the first request."""

    def __init__(self, ground: Ground, detacher: Detacher) -> None:
        self._engine = ground.engine
        self._attachments = ground.attachments
        self._bridging = ground.bridging
        self._detacher = detacher
        self._limiting = ground.limiting
        self._node = ground.node
        self._log = ground.log
        self._unfinished: list[AttachmentKey] = []
        self._standing: list[str] = []
        self._stray: list[str] = []

    def adopt(self) -> None:
        """Take the promised attachments' rows as standing, before the node's rules are taken over
        with all of their guards. What was begun or ending has no guards from then on."""
        standing = self._node.links()
        present = self._present(standing)
        # bridges first, for what is mended of ports needs them
        self._standing += self._bridging.adopt(present)
        for attachment in self._attachments:
            owner = str(attachment.key)
            if attachment.former is not None:
                continue  # nothing of it is ours; `agent.importing` goes on where it was leaving
            if attachment.adopted is not None:
                # by its number, also where it is gone: the name may be another link's by now
                self._engine.learn(attachment.host_link, attachment.adopted.index)
            if attachment.state != "ready" or attachment.host_link not in present:
                # without its link there is no container left to serve: its namespace died, or
                # a DEL could not be written down
                self._unfinished.append(attachment.key)
            else:
                self._engine.adopt(owner, rows_of(attachment, self._node))
                # what stands needs no trial
                self._limiting.proven = self._limiting.proven or bool(attachment.bandwidth)
                for link in self._engine.links(owner):
                    if link in present:
                        self._engine.learn(link, present[link])
                self._standing.append(owner)

        used = bridges_of(self._attachments)
        wanted = {limiter_of(each.key.host_link) for each in self._attachments if each.bandwidth}
        self._stray = [
            link.name
            for link in standing
            if (link.kind == "ifb" and read_limiter_alias(link.alias) and link.name not in wanted)
            or (read_bridge_alias(link.alias) and link.kind == "bridge" and link.name not in used)
        ]

    def _present(self, links: Sequence[HostLink]) -> dict[str, int]:
        """Numbers of the links that may be ours, though damaged, by the names they should have;
        somebody else's may have the name of one that went."""
        own = own_names(links, {each.host_link for each in self._attachments})
        present = {own[link.index]: link.index for link in links if _may_be_ours(link)}
        veths = {(link.name, link.index) for link in links if link.is_veth}
        for each in self._attachments:
            if each.adopted and (each.host_link, each.adopted.index) in veths:
                present[each.host_link] = each.adopted.index
        return present

    async def settle(self) -> None:
        """Undo what was begun, finish what was ending, repair what is promised."""
        self._repair(self._standing)
        await self._clear_limiters()
        unfinished, self._unfinished = self._unfinished, []
        for key in unfinished:
            if (attachment := self._attachments.get(key)) is not None:
                self._engine.adopt(str(key), rows_of(attachment, self._node))
        ends = await asyncio.gather(*map(self._detacher.detach, unfinished), return_exceptions=True)
        for key, end in zip(unfinished, ends, strict=True):
            if isinstance(end, Exception):
                self._log.event("error", "NotUndone", str(key), str(end))
            else:
                self._log.event(
                    "info", "Undone", str(key), "cut short, or its link is gone; undone"
                )

    async def _clear_limiters(self) -> None:
        """Ifbs of ours that nobody has: a DEL without an agent removes the pair only."""
        stray, self._stray = self._stray, []
        if not stray:
            return
        refused = {n: e for n, e in (await asyncio.to_thread(delete_links, stray)).items() if e}
        words = f"{len(stray)} ifbs and bridges that no attachment has"
        if refused:
            words = f"{words}; not deleted: {', '.join(refused)}"
        self._log.event("error" if refused else "info", "LimitersCleared", "node", words)

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

    async def bury(self) -> None:
        """Finish what lost its link since `settle`: a launcher that found no agent, and no room
        for its file, removed it. Comes after the socket is bound."""
        present = self._present(self._node.links())
        ours = (a for a in self._attachments if a.former is None)
        vanished = [a.key for a in ours if a.host_link not in present]
        for end in await asyncio.gather(
            *map(self._detacher.detach, vanished), return_exceptions=True
        ):
            if isinstance(end, Exception):
                self._log.event("error", "NotUndone", "node", str(end))

    async def drain(self, directory: Path) -> int:
        """The DELs that launchers queued while no agent was there; how many of them failed."""
        newer: list[str] = []
        try:
            waiting = read_queue(directory, newer)
        except Conflict as error:
            self._log.event("error", "QueueRefused", str(directory), error.message)
            return 0
        if newer:
            words = f"{len(newer)} DELs of a newer launcher wait in {directory}; start its agent"
            self._log.event("error", "QueueNewer", "node", words)
        ends = await asyncio.gather(*map(self._finish, waiting), return_exceptions=True)
        failed = 0
        for queued, end in zip(waiting, ends, strict=True):
            if isinstance(end, Exception):
                failed += 1
                self._log.event("error", "NotDrained", queued.path.name, str(end))
        if done := len(waiting) - failed:
            self._log.event("info", "QueueDrained", "node", f"{done} DELs were waiting")
        return failed

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


def _may_be_ours(link: HostLink) -> bool:
    if link.kind == "ifb":
        return read_limiter_alias(link.alias) is not None
    if link.kind == "bridge":
        return read_bridge_alias(link.alias) is not None
    return link.is_veth and (
        link.alias.startswith(ALIAS_MARK) or link.group == LIVE_GROUP or link.mac == HOST_MAC
    )
