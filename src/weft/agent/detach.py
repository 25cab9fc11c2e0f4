"""DEL and GC: give back what an attachment has, from the journal alone.

Neither the container's namespace nor the former result is needed. The guards' elements go first,
so that traffic is cut at once; the link's deletion is sent from a worker (`agent.reaper`) and the
answer given when the link can no longer be looked up. DEL succeeds when nothing is left.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import starmap

from weft.agent.ground import Ground
from weft.agent.parting import Parting, is_gone
from weft.agent.patience import patiently
from weft.agent.reaper import LOOK_AGAIN, PATIENCE, Reaper
from weft.agent.turns import Turns
from weft.model.attachment import Adopted, Attachment, AttachmentKey, is_still, limiter_of, mark_of
from weft.model.bridge import bridge_owner
from weft.model.errors import KernelRefused, WeftError
from weft.render.egress import leads
from weft.rows.links import Sysctl
from weft.rows.rules import Element


class Detacher:
    """Performs DEL, GC and the undoing of a failed ADD."""

    def __init__(
        self,
        ground: Ground,
        reaper: Reaper,
        turns: Turns,
        name_of: Callable[[int], str | None],
        parting: Parting,
    ) -> None:
        """`name_of`: what the link with a number is called now; None: there is none."""
        self._engine = ground.engine
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._bridging = ground.bridging
        self._publishing = ground.publishing
        self._egress = ground.egress
        self._reaper = reaper
        self._turns = turns
        self._name_of = name_of
        self._parting = parting
        self._log = ground.log

    def vanished(self, attachment: Attachment) -> bool:
        """Whether the host's end is gone: the kernel deletes it with the container's namespace."""
        if attachment.adopted is not None:
            return self._is_lost(attachment, attachment.adopted)
        if attachment.former is not None:
            return is_gone(attachment)
        link = attachment.host_link
        return self._reaper.gone(link) and self._called(self._engine.number(link)) is None

    def _is_lost(self, attachment: Attachment, adopted: Adopted) -> bool:
        """Whether its adopted link is gone, also where another has the number by now."""
        called = self._called(adopted.index)
        if called is None or called == attachment.host_link:
            return called is None
        link = self._engine.host.links.find_index(adopted.index)
        return link is None or not is_still(link, attachment.host_link, mark_of(attachment))

    def _called(self, number: int | None) -> str | None:
        """What our link is called now: somebody may have renamed it. None: it is gone."""
        return self._name_of(number) if number is not None else None

    async def _delete(self, link: str, number: int | None) -> None:
        """Delete our link, also if somebody renames it meanwhile. Raises KernelRefused.

        For a grace period the kernel finds a link that is renamed under neither name, but by its
        number, with the new name (dev_change_name).
        """
        name, deadline = link, time.monotonic() + PATIENCE
        while True:
            await self._reaper.delete(name, number)
            now = self._called(number)
            if now is None or (now == name and not self._reaper.gone(name)):
                return  # gone, or not ours any more
            if time.monotonic() > deadline:
                raise KernelRefused(errno.EBUSY, "delete link", link, f"it is called {now} now")
            name = now
            await asyncio.sleep(LOOK_AGAIN)

    async def _delete_all(self, numbers: Mapping[str, int | None]) -> None:
        """As `_delete`, several at once; every one is tried."""
        ends = await asyncio.gather(*starmap(self._delete, numbers.items()), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def detach(self, key: AttachmentKey) -> None:
        """DEL, in its turn, also of what other plugins made for the container and interface.
        Raises WeftError only if something is left."""
        unknown = self._attachments.get(key) is None
        async with self._turns.deleting(key):
            await self.detach_held(key)
        for imported in self._attachments.imported_as(key):
            # one beside an attachment of ours is an earlier container of that name
            if imported.key != key and (unknown or is_gone(imported)):
                async with self._turns.deleting(imported.key):
                    await self.detach_held(imported.key)

    async def detach_held(self, key: AttachmentKey) -> None:
        """DEL for who has the turn already."""
        attachment = self._attachments.get(key)
        if attachment is None:
            # Unknown to the journal; a link of this name may still stand after foreign meddling.
            # The removal refuses links without our alias.
            for link in (key.host_link, limiter_of(key.host_link)):
                if not self._reaper.gone(link):
                    await self._reaper.delete(link)
            return
        self._journal_leaving(attachment)
        if attachment.former is not None:
            await self._parting.part(attachment)
            self._forget(attachment)
            self._addresses.forget(attachment)
            return
        links = set(self._engine.links(str(key)))
        if attachment.adopted is None:
            links.add(attachment.host_link)
        if attachment.bandwidth.egress_rate:
            links.add(limiter_of(key.host_link))
        numbers = {link: self._engine.number(link) for link in links}
        if attachment.adopted is not None and self._is_lost(attachment, attachment.adopted):
            self._leave(str(key))
        # what leads to its list goes last: a packet on its way past the guards meets it still
        leading = [row.key for row in self._engine.rows(str(key)) if leads(row)]
        await patiently(partial(self._engine.withdraw, str(key), leading))
        await self._delete_all(numbers)
        if leading:
            await patiently(partial(self._engine.withdraw, str(key)))
        await self._leave_bridge(attachment)
        self._forget(attachment)

    async def _leave_bridge(self, attachment: Attachment) -> None:
        """The last one takes the bridge along. Nothing is awaited between finding others on it
        and being forgotten, so of several who leave at once one is the last."""
        bridge = self._bridging.last(attachment)
        if bridge is None:
            return
        self._bridging.begin_removal(bridge)
        try:
            number = self._engine.number(bridge)
            await patiently(partial(self._engine.withdraw, bridge_owner(bridge)))
            await self._delete(bridge, number)
        finally:
            self._bridging.end_removal(bridge)

    def _leave(self, owner: str) -> None:
        """What went with an adopted link is taken back from nobody: its number may be another's."""
        left = [row for row in self._engine.rows(owner) if isinstance(row, Element | Sysctl)]
        self._engine.forget(owner)
        self._engine.adopt(owner, left)

    def _forget(self, attachment: Attachment) -> None:
        key, now = attachment.key, time.monotonic()
        self._addresses.release(attachment.addresses, now)
        try:
            self._journal.drop(
                key, tuple((a.address, a.sequence) for a in attachment.addresses), now
            )
        except WeftError as error:
            self._log.event("warning", "JournalUnwritable", str(key), error.message)
        self._attachments.drop(key)
        if attachment.bridged is not None:
            self._bridging.sweep()
        self._publishing.withdrawn(attachment)
        self._egress.withdrawn(attachment)

    def _journal_leaving(self, attachment: Attachment) -> None:
        leaving = attachment.having("leaving")
        self._attachments.put(leaving)
        try:
            self._journal.put(leaving)
        except WeftError as error:
            # DEL goes on: the link's absence tells the next start what happened
            self._log.event("warning", "JournalUnwritable", str(attachment.key), error.message)

    async def collect(self, network: str, valid: Iterable[tuple[str, str]]) -> list[AttachmentKey]:
        """GC: remove every attachment of `network` whose ADD has finished by now, not in `valid`.

        A runtime's list has its own containers: those of OCI hooks beside it are left alone.
        Goes on after an error and raises an ExceptionGroup of all of them at the end.
        """
        keep = frozenset(valid)
        doomed = [
            a.key
            for a in self._attachments.finished(network)
            if not a.hooked and (a.key.container, a.key.ifname) not in keep
        ]
        ends = await asyncio.gather(*map(self.detach, doomed), return_exceptions=True)
        errors = [end for end in ends if isinstance(end, Exception)]
        if errors:
            raise ExceptionGroup(f"GC of network {network}", errors)
        return doomed
