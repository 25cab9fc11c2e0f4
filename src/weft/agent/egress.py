"""Egress lists of this node: which stand, and which containers have them.

    secure     before an ADD's turn: connections of who had the addresses before are ended, for
               what goes on passes every list; and a list that is new is written into the kernel
               in slices, so that others are served meanwhile; nobody is sent to it yet
    claim      before the ADD's first effect        stand     with its first effects
    withdrawn  once a DEL's rows are gone: with the last container its list goes, with the last
               list the frame

Lists are rows of owners of their own, and kept once in the journal. `begin` gives containers that
are known again their lists: from the journal, from the kernel, or, where neither knows, `UNKNOWN`,
under which nothing is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import msgspec

from weft.agent.events import Log
from weft.agent.journal import Journal
from weft.agent.limiting import told
from weft.agent.stale import end_flows
from weft.agent.table import Attachments
from weft.drivers.engine import Engine
from weft.kernel.netlink import Failure, refused
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.egress import UNKNOWN, EgressList
from weft.model.errors import WeftError
from weft.model.kernel_features import EGRESS
from weft.render import egress
from weft.rows.base import Row
from weft.rows.rules import Element

FRAME = "egress"
"""The engine's name for the rows that all lists need; of a list, this, a slash and its digest."""
_EMPTY = {EgressList().digest: EgressList()}  # has no elements to be known by
SLICE = 250
"""Elements written before others have their turn: some 4 ms."""
FEW = 500
"""Elements of a list that are written without giving others a turn."""


class Egress:
    """The lists that stand in the kernel, and their users."""

    def __init__(self, engine: Engine, journal: Journal, log: Log) -> None:
        self._engine = engine
        self._journal = journal
        self._log = log
        self._lists: dict[str, EgressList] = {}
        self._users: dict[str, set[AttachmentKey]] = {}
        self._turn = asyncio.Lock()
        self._told: str | None = None

    # -- for ADD

    async def secure(self, wanted: EgressList | None, addresses: Iterable[bytes]) -> None:
        """Make ready what `stand` takes for given, for a container that is to have these addresses.
        Raises KernelRefused, and nothing is left."""
        if wanted is None:
            return
        try:
            await asyncio.to_thread(end_flows, addresses)
        except Failure as failure:
            raise refused(failure, "end", "connections of who had the address before") from None
        if self._is_quick(wanted):
            return
        async with self._turn:  # others with the same list wait for it
            if not self._is_quick(wanted):
                await self._write(wanted, egress.list_rows(wanted))

    def _is_quick(self, wanted: EgressList) -> bool:
        """Whether `stand` needs no time worth mentioning for this list."""
        return wanted.digest in self._lists or len(wanted.flows) <= FEW

    async def _write(self, wanted: EgressList, rows: tuple[Row, ...]) -> None:
        owner = _owner(wanted.digest)
        try:
            for end in range(SLICE, len(rows) + SLICE, SLICE):
                self._write_frame(wanted.logs)
                self._engine.apply(owner, rows[:end])
                await asyncio.sleep(0)
        except BaseException:
            self._engine.withdraw(owner)
            self._narrow()
            raise
        self._lists[wanted.digest] = wanted

    def claim(self, key: AttachmentKey, wanted: EgressList | None) -> None:
        """This attachment is to have this list. Raises WeftError where the journal cannot keep
        it; nothing is claimed then."""
        if wanted is None:
            return
        users = self._users.get(wanted.digest)
        if not users:
            self._journal.keep_list(wanted)
            users = self._users.setdefault(wanted.digest, set())
        self._lists.setdefault(wanted.digest, wanted)
        users.add(key)

    def stand(self, digest: str) -> None:
        """Make the rows of a list stand that has been claimed. Raises KernelRefused."""
        if not digest:
            return
        self._write_frame(self._lists[digest].logs)
        if not self._engine.rows(_owner(digest)):
            self._engine.apply(_owner(digest), egress.list_rows(self._lists[digest]))

    def _write_frame(self, logs: bool) -> None:
        wanted = egress.frame(logs=logs or any(each.logs for each in self._lists.values()))
        if len(self._engine.rows(FRAME)) < len(wanted):
            self._engine.apply(FRAME, wanted)

    # -- for DEL

    def withdrawn(self, attachment: Attachment) -> None:
        """The rows of an attachment are gone, or never came."""
        self._leave(attachment.key, attachment.egress)

    def release(self, key: AttachmentKey, wanted: EgressList | None) -> None:
        """Take a claim back, or none."""
        self._leave(key, "" if wanted is None else wanted.digest)

    def _leave(self, key: AttachmentKey, digest: str) -> None:
        users = self._users.get(digest, set())
        users.discard(key)
        if digest and not users:
            self._drop(digest)

    def sweep(self) -> None:
        """Take away lists that were written for an ADD which did not come to claim them."""
        for digest in [each for each in self._lists if not self._users.get(each)]:
            self._drop(digest)

    def _drop(self, digest: str) -> None:
        self._users.pop(digest, None)
        if self._lists.pop(digest, None) is None:
            return
        self._forget(digest)
        try:
            self._engine.withdraw(_owner(digest))
            self._narrow()
        except WeftError as error:
            # nobody is sent to it any more, and the next start removes what no attachment has
            self._log.event("warning", "EgressListLeft", digest, error.message)

    def _forget(self, digest: str) -> None:
        try:
            self._journal.drop_list(digest)
        except WeftError as error:
            self._log.event("warning", "JournalUnwritable", digest, error.message)

    def _narrow(self) -> None:
        """The frame goes with the last list, and what tells of connections with the last that
        needs it."""
        if not self._lists:
            self._engine.withdraw(FRAME)
        elif not any(each.logs for each in self._lists.values()):
            self._engine.apply(FRAME, egress.frame(logs=False))

    # -- at a start

    def begin(
        self,
        attachments: Attachments,
        kept: Mapping[str, EgressList],
        standing: Callable[[], Iterable[Element]],
    ) -> None:
        """Give every attachment that has a list its list again, and take the rows of all for
        standing: the node's rules are taken over next, and with them what is missing."""
        listed = [each for each in attachments.copied() if each.egress]
        from_kernel: dict[str, EgressList] | None = None
        for attachment in listed:
            found = kept.get(attachment.egress) or _EMPTY.get(attachment.egress)
            if found is None:
                if from_kernel is None:
                    from_kernel = egress.lists_of(standing())
                found = from_kernel.get(attachment.egress, UNKNOWN)
                self._learned(attachments, attachment, found)
            self._lists[found.digest] = found
            self._users.setdefault(found.digest, set()).add(attachment.key)
        if self._lists:
            logs = any(each.logs for each in self._lists.values())
            self._engine.adopt(FRAME, egress.frame(logs=logs))
        for digest in kept.keys() - self._lists.keys():
            self._forget(digest)
        for digest, each in self._lists.items():
            self._engine.adopt(_owner(digest), egress.list_rows(each))

    def _learned(self, attachments: Attachments, attachment: Attachment, found: EgressList) -> None:
        whole = msgspec.structs.replace(attachment, egress=found.digest)
        if not found.known:
            words = "its egress list is lost; it may connect nowhere until it is made anew"
            self._log.event("error", "EgressListLost", str(attachment.key), words)
        try:
            self._journal.keep_list(found)
            self._journal.put(whole)
        except WeftError as error:
            self._log.event("warning", "JournalUnwritable", str(attachment.key), error.message)
        attachments.put(whole)

    # -- for who asks

    def rows(self, digest: str) -> tuple[Row, ...]:
        """What has to stand for who has this list, besides his own rows."""
        if not digest:
            return ()
        return (*self._engine.rows(FRAME), *self._engine.rows(_owner(digest)))

    def kept(self) -> dict[str, EgressList]:
        """All of them, for the journal."""
        return dict(self._lists)

    async def why(self) -> str:
        """Why lists cannot be kept by this kernel, as far as it tells, or "" where they can."""
        if self._lists:
            return ""
        if self._told is None:
            self._told = await asyncio.to_thread(told, EGRESS)
        return self._told

    def lost(self) -> list[AttachmentKey]:
        """Attachments whose list is not known any more."""
        return sorted(self._users.get(UNKNOWN.digest, ()))


def _owner(digest: str) -> str:
    return f"{FRAME}/{digest}"
