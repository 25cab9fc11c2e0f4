"""What the API needs of the agent and of a connection, and nothing else.

Protocols, so that the tests answer with a handful of plain objects and the agent wires the real
ones. Used by `api.py`, `resources.py` and `streams.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Protocol

from weft.agent.events import Log
from weft.agent.ports import Entry
from weft.model.attachment import Attachment
from weft.store.contract import Store
from weft.wire.api import Imported, ImportParams, IpamCheck, IpamShow, Released
from weft.wire.status import Status


class Peer(Protocol):
    """One connection of a caller."""

    @property
    def gone(self) -> asyncio.Event:
        """Set when the caller has closed."""

    @property
    def group(self) -> str:
        """The group by which the caller was let in and may only read; "" for root."""

    @property
    def pending(self) -> int:
        """Octets that were given to `send` and are not out yet."""

    def send(self, data: bytes, *, last: bool = True) -> bool:
        """Send one frame; False if the caller is gone. `last`: close when all is out."""


class AttachmentTable(Protocol):
    """The attachments of this node."""

    def __iter__(self) -> Iterator[Attachment]: ...

    def __len__(self) -> int: ...


class Services(Protocol):
    """What the API needs of the agent."""

    @property
    def node(self) -> str:
        """This node's name."""

    @property
    def store(self) -> Store:
        """Where objects are kept."""

    @property
    def log(self) -> Log:
        """Lines, and the events that are remembered."""

    @property
    def attachments(self) -> AttachmentTable:
        """What is attached here."""

    @property
    def ports(self) -> Iterable[Entry]:
        """The ledger of published ports."""

    async def status(self) -> Status:
        """Everything that `weft status` shows."""

    def ipam_show(self) -> IpamShow:
        """Use of addresses on this node, from memory."""

    async def ipam_check(self) -> IpamCheck:
        """Allocations compared with journal and kernel."""

    async def take_in(self, params: ImportParams) -> Imported:
        """Know attachments of other plugins. Raises WeftError where the journal is unwritable."""

    async def ipam_release(self, address: str, force: bool) -> Released:
        """Give an address back. Raises NotFound, or Conflict while it is attached."""
