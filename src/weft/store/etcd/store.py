"""A store in etcd v3. All keys live below one prefix, so that others can share the cluster.

Reads are linearizable. A commit is one transaction that compares what it expects; it is asked
once, because an answer that got lost says nothing: `NotReady` then means that it may have been
done, and who asked reads again. Revisions are etcd's and rise by more than one where others write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from weft.model.errors import NotReady
from weft.store.contract import (
    ABSENT,
    ANY,
    Change,
    Entry,
    Listing,
    Watch,
    check_changes,
    check_held,
    check_key,
    conflict,
)
from weft.store.etcd.calls import Access, Calls
from weft.store.etcd.messages import CREATED, EQUAL, MESSAGES, MODIFIED
from weft.store.etcd.watching import EtcdWatch, Horizon, behind
from weft.store.watchers import QUEUE_LIMIT

PREFIX = "/weft"
PAGE = 1000  # entries that one answer brings


class EtcdStore:
    """A `Store` that many nodes share."""

    def __init__(self, access: Access, *, prefix: str = PREFIX, queue: int = QUEUE_LIMIT) -> None:
        """Raises `Invalid` naming a wrong setting. Connects with the first call."""
        check_key(prefix)
        self.calls = Calls(access)
        self._prefix = prefix
        self._queue = queue
        self._horizon = Horizon()
        self._watches: set[EtcdWatch] = set()
        self._leases: dict[str, tuple[int, bytes]] = {}
        self._holding = asyncio.Lock()
        self._closed = False

    @property
    def trouble(self) -> str:
        """What the last call met, for a person; "" while all is well."""
        return self.calls.trouble

    async def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none."""
        answer = await self._ask("range", MESSAGES["RangeRequest"](key=self._name(key)))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        """All entries whose key begins with `prefix`, by key: pages of one revision."""
        begin = self._name(prefix)
        end = behind(begin)
        items: list[Entry] = []
        revision = 0
        while True:
            answer = await self._ask(
                "range",
                MESSAGES["RangeRequest"](key=begin, range_end=end, limit=PAGE, revision=revision),
            )
            revision = revision or answer.header.revision
            items.extend(map(self._entry, answer.kvs))
            if not answer.more:
                return Listing(items=tuple(items), revision=revision)
            begin = answer.kvs[-1].key + b"\0"

    async def commit(self, changes: Sequence[Change]) -> int:
        """Make all changes or none; returns the store's revision afterwards."""
        self._check_open()
        check_changes(changes)
        return await self._commit(changes, lease=0)

    def watch(self, prefix: str, after: int) -> Watch:
        """Every change under `prefix` later than the revision `after`, from this call on."""
        self._check_open()
        watch = EtcdWatch(
            self.calls,
            self._horizon,
            (self._name(prefix), len(self._prefix)),
            after,
            self._queue,
            self._watches.discard,
        )
        self._watches.add(watch)
        return watch

    async def hold(self, key: str, value: bytes, seconds: float) -> None:
        """Write an entry that goes by itself unless it is held again within that time."""
        check_held(key, seconds)
        self._check_open()
        async with self._holding:
            lease, written = self._leases.get(key, (0, None))
            if lease and not await self.calls.keep(lease):
                lease = 0
            if not lease:
                ask = MESSAGES["LeaseGrantRequest"](TTL=max(2, round(seconds)))
                lease, written = (await self._ask("grant", ask)).ID, None
            if written != value:
                # what another incarnation of this node left under the key is ours to replace
                await self._commit([Change(key=key, value=value)], lease=lease)
            self._leases[key] = (lease, value)

    async def close(self) -> None:
        """End all watches and let go of the connection. Idempotent."""
        self._closed = True
        for watch in list(self._watches):
            watch.end()
        await self.calls.close()

    # -- words of the protocol

    async def _commit(self, changes: Sequence[Change], *, lease: int) -> int:
        compared = [change for change in changes if change.expected is not ANY]
        request = MESSAGES["TxnRequest"](
            compare=[self._compare(change) for change in compared],
            success=[self._operation(change, lease) for change in changes],
            failure=[
                {"request_range": {"key": self._name(change.key), "keys_only": True}}
                for change in compared
            ],
        )
        answer = await self._ask("commit", request, again=False)
        if answer.succeeded:
            return int(answer.header.revision)
        for change, found in zip(compared, answer.responses, strict=True):
            kvs = found.response_range.kvs
            revision = kvs[0].mod_revision if kvs else None
            if revision != (None if change.expected is ABSENT else change.expected):
                raise conflict(change, revision)
        raise NotReady("etcd refused a transaction whose conditions hold; try again")

    def _compare(self, change: Change) -> Any:
        key = self._name(change.key)
        if change.expected is ABSENT:
            return MESSAGES["Compare"](result=EQUAL, target=CREATED, key=key, create_revision=0)
        return MESSAGES["Compare"](
            result=EQUAL, target=MODIFIED, key=key, mod_revision=change.expected
        )

    def _operation(self, change: Change, lease: int) -> dict[str, Any]:
        key = self._name(change.key)
        if change.value is None:
            return {"request_delete_range": {"key": key}}
        return {"request_put": {"key": key, "value": change.value, "lease": lease}}

    async def _ask(self, method: str, request: Any, *, again: bool = True) -> Any:
        self._check_open()
        answer = await self.calls.ask(method, request, again=again)
        self._horizon.saw(answer.header)
        return answer

    def _name(self, key: str) -> bytes:
        return f"{self._prefix}{key}".encode()

    def _entry(self, found: Any) -> Entry:
        key = found.key[len(self._prefix.encode()) :].decode()
        return Entry(key=key, value=found.value, revision=found.mod_revision)

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the store is closed", reason="store-unavailable")
