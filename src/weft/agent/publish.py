"""The node's own object in the store: what others, and `weft get nodes`, see of it.

Labels, annotations and spec belong to people; the status is this agent's. Written at start and
when a fact of the status has changed, never on ADD's path.
"""

from __future__ import annotations

import os
import time
import uuid

import msgspec

from weft import __version__
from weft.agent.events import Log
from weft.agent.facts import Facts
from weft.model.errors import Conflict, WeftError
from weft.model.kinds import from_bytes, key_of, to_bytes
from weft.model.metadata import Metadata
from weft.model.node import Condition, Node, NodeStatus
from weft.store.contract import ABSENT, Change, Store

TRIES = 8


class Publisher:
    """Keeps the node's object true."""

    def __init__(self, store: Store, name: str, boot_id: str, log: Log) -> None:
        self._store = store
        self._name = name
        self._boot_id = boot_id
        self._log = log
        self.not_ready: str | None = None  # why the node is not, as it was said last

    async def publish(self, facts: Facts, not_ready: str | None) -> None:
        """Write the status if it differs from what the store has; a failure is an event."""
        self.not_ready = not_ready
        status = self._status(facts, not_ready)
        try:
            for _ in range(TRIES):
                if await self._written(status):
                    return
        except WeftError as error:
            self._log.event("warning", "NodeNotPublished", self._name, error.message)

    async def _written(self, status: NodeStatus) -> bool:
        key = key_of("Node", self._name)
        entry = await self._store.get(key)
        if entry is None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            made = Metadata(
                name=self._name, uid=str(uuid.uuid4()), creation_timestamp=stamp, generation=1
            )
            node = Node(metadata=made, status=status)
        else:
            found = from_bytes(entry.value, entry.revision)
            if not isinstance(found, Node) or found.status == status:
                return True
            node = msgspec.structs.replace(found, status=status)
        expected = ABSENT if entry is None else entry.revision
        try:
            await self._store.commit([Change(key=key, value=to_bytes(node), expected=expected)])
        except Conflict:
            return False  # somebody labelled the node meanwhile
        return True

    def _status(self, facts: Facts, not_ready: str | None) -> NodeStatus:
        ready = Condition(
            type="Ready",
            status="False" if not_ready else "True",
            reason="not-ready" if not_ready else "",
            message=not_ready or "",
        )
        families = (("IPv4", facts.ipv4.on), ("IPv6", facts.ipv6.on))
        return NodeStatus(
            version=__version__,
            kernel=os.uname().release,
            boot_id=self._boot_id,
            families=tuple(name for name, on in families if on),  # type: ignore[misc]  # literals
            mtu=facts.mtu,
            conditions=(ready,),
        )
