"""The files under the living agent: noticing that one is gone or cannot be written, and mending.

Once a second the journal, the store and the file of former sysctls are looked at (a few stat
calls); now and then the journal is written to, because a full or read-only file system is noticed
in no other way. As long as the journal cannot be written no ADD begins, while DEL goes on from
memory. When it can be written again it is made complete from memory, without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from weft.agent.given import Given
from weft.agent.ground import Ground
from weft.agent.journal import Content
from weft.agent.mirror import Mirror
from weft.model.addresses import address_of
from weft.model.errors import WeftError
from weft.store.sqlite import SqliteStore

LOOK = 1.0  # seconds between two looks
SELDOM = 5  # looks between two that cost a write


class Keeping:
    """Looks after journal, store and given.json."""

    def __init__(
        self,
        ground: Ground,
        store: SqliteStore,
        given: Given,
        mirror: Mirror,
    ) -> None:
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._egress = ground.egress
        self._log = ground.log
        self._store = store
        self._given = given
        self._mirror = mirror
        self._count = 0
        self._told: dict[str, str] = {}
        self._damage = store.report  # for status, until the agent ends

    def hindered(self) -> str | None:
        """Why nothing new may begin, or None."""
        return self._journal.trouble or None

    def warnings(self) -> Iterator[tuple[str, str]]:
        """(reason, message) of what does not keep ADD from being served, for status."""
        if self._damage:
            yield "store-damaged", self._damage
        if lost := self._mirror.told():
            yield "objects-lost", lost
        if self._store.trouble:
            yield "store-unavailable", self._store.trouble
        if self._given.trouble:
            yield "given-unwritable", self._given.trouble

    async def keep(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self.look()
            except (OSError, WeftError) as error:  # neither file can be read: look again
                self._tell("KeepingFailed", "node", str(error))

    async def look(self) -> None:
        """Once."""
        self._count += 1
        await self._look_at_store()
        await self._look_at_journal()
        if self._count % SELDOM == 0 and self._given.is_missing():
            if self._given.write():
                self._log.event("warning", "FileRenewed", "node", f"{self._given.path} was lost")
            else:
                self._tell("FileUnwritable", "node", self._given.trouble)

    # -- the journal

    async def _look_at_journal(self) -> None:
        journal = self._journal
        if not journal.trouble:
            with contextlib.suppress(WeftError):  # it is the journal's trouble then
                journal.look(write=self._count % SELDOM == 0)
        if not journal.trouble:
            return
        self._tell("JournalUnwritable", "journal", journal.trouble)
        seen = await self._objects()
        try:
            journal.renew(self._content(seen))
        except WeftError as error:
            self._tell("JournalUnwritable", "journal", error.message)
            return
        self._told.pop("journal", None)
        words = f"{journal.path} is complete again: {len(self._attachments)} attachments"
        self._log.event("warning", "JournalRenewed", "journal", words)

    def _content(self, seen: dict[str, bytes]) -> Content:
        view, now = self._addresses.view, time.monotonic()
        cooling = [
            (str(address_of(version, number)), released.sequence, released.at)
            for version, ledger in view.ledgers.items()
            for number, released in ledger.released.items()
            if released.at + view.cooldown > now
        ]
        return Content(
            list(self._attachments), cooling, self._given.remembered(), seen, self._egress.kept()
        )

    # -- the store

    async def _look_at_store(self) -> None:
        store = self._store
        why = store.missing() or (store.trouble if store.is_suspect else "")
        if why:
            await self._renew_store(why)
        elif store.trouble and self._count % SELDOM == 0:
            self._tell("StoreUnwritable", "store", store.trouble)
            try:
                store.probe()
            except WeftError:
                return
            self._told.pop("store", None)
            self._log.event("info", "StoreWritable", "store", f"{store.path} is written again")

    async def _renew_store(self, why: str) -> None:
        self._tell("StoreDamaged", "store", why)
        entries = await self._objects()
        try:
            aside = self._store.renew(entries)
        except WeftError as error:
            self._store.trouble = error.message
            return
        self._told.pop("store", None)
        kept = f"; the old file is {aside}" if aside else ""
        words = f"{why}; written anew with {len(entries)} objects{kept}"
        self._damage = words
        self._log.event("warning", "StoreRenewed", "store", words)

    async def _objects(self) -> dict[str, bytes]:
        """The store's objects: its own word, or else what the journal has seen."""
        try:
            listing = await self._store.list("/")
        except WeftError:
            return self._mirror.objects()
        return {item.key: item.value for item in listing.items}

    def _tell(self, reason: str, about: str, message: str) -> None:
        """An event, once as long as the trouble is the same."""
        if self._told.get(about) != message:
            self._told[about] = message
            self._log.event("error", reason, about, message)
