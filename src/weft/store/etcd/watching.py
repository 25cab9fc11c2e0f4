"""Watches on etcd that outlive connections, members and compaction of what was already seen.

A watch resumes from the last revision of which it has everything. It begins anew, by the error
`compacted`, where etcd cannot say what happened meanwhile: the history is gone, or etcd is no
longer the one that gave the revisions - it was restored from an older copy, so that its revisions
or its raft term went back, or it is another cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from grpc import aio

from weft.model.errors import WeftError
from weft.store.contract import Event, compacted
from weft.store.etcd.calls import Calls, Pause, is_cancelled
from weft.store.etcd.messages import DELETED, MESSAGES
from weft.store.watchers import Subscription, Watchers

BEGIN = 5.0  # seconds for etcd to say that a watch has begun


class Horizon:
    """Which history revisions belong to: the cluster, and its raft term when it was last heard."""

    def __init__(self, cluster: int = 0, term: int = 0) -> None:
        self.cluster = cluster
        self.term = term

    def saw(self, header: Any) -> None:
        """A header of an answer: what was read counts, whatever was seen before."""
        self.cluster, self.term = header.cluster_id, header.raft_term

    def copy(self) -> Horizon:
        """For one watch, which resumes from a revision of this history."""
        return Horizon(self.cluster, self.term)

    def went_back(self, header: Any) -> bool:
        """Whether the cluster is not the one that was seen before: another, or an older copy."""
        return self.cluster not in (0, header.cluster_id) or header.raft_term < self.term


class EtcdWatch(Watchers):
    """One watch: a task that reads etcd's stream into a bounded queue."""

    def __init__(
        self,
        calls: Calls,
        horizon: Horizon,
        name: tuple[bytes, int],
        after: int,
        limit: int,
        ended: Callable[[EtcdWatch], None],
    ) -> None:
        """`name`: the prefix on etcd, and how many octets of it are the store's own."""
        super().__init__(limit)
        self._calls = calls
        self._horizon = horizon.copy()
        self._name, self._own = name
        self._after = after
        self._queue = self.subscribe("", ())
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def __aiter__(self) -> Subscription:
        return self._queue

    async def __anext__(self) -> Event:
        return await anext(self._queue)

    async def aclose(self) -> None:
        """Stop watching; what was queued is dropped."""
        await self._queue.aclose()
        await asyncio.gather(self._task, return_exceptions=True)

    def end(self) -> None:
        """The store closes: what is queued is still given."""
        self.close()
        self._stop()

    def forget(self, watcher: Subscription) -> None:
        """The queue has ended, by whomever."""
        super().forget(watcher)
        self._stop()

    def _stop(self) -> None:
        self._ended(self)
        if asyncio.current_task() is not self._task:
            self._task.cancel()

    # -- the task

    async def _follow(self) -> None:
        pause = Pause()
        while self._all:
            try:
                await self._read(pause)
            except aio.AioRpcError as error:
                await self._calls.failed(error)
            except (WeftError, TimeoutError, asyncio.InvalidStateError, aio.UsageError):
                pass  # no member can be reached: `trouble` of the calls says so
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
            if self._all:
                await pause.wait()

    async def _read(self, pause: Pause) -> None:
        stream = await self._calls.stream("watch")
        try:
            begin = {"key": self._name, "range_end": behind(self._name), "progress_notify": True}
            begin["start_revision"] = self._after + 1
            await stream.write(MESSAGES["WatchRequest"](create_request=begin))
            answer = await asyncio.wait_for(stream.read(), BEGIN)
            if answer is aio.EOF or not answer.created:
                return
            if self._horizon.went_back(answer.header) or answer.header.revision < self._after:
                self._queue.fail(compacted(self._after, answer.header.revision))
                return
            if not answer.canceled:
                pause.reset()
            past = answer.header.revision  # what is older than the watch may exceed the limit
            while self._all and not answer.canceled:
                self._horizon.saw(answer.header)
                self._give(answer, past)
                answer = await stream.read()
                if answer is aio.EOF:
                    return
            if answer.compact_revision:
                self._queue.fail(compacted(self._after, answer.compact_revision))
            else:
                self._calls.doubt_token()  # etcd that was started again ends watches so
        finally:
            stream.cancel()

    def _give(self, answer: Any, past: int) -> None:
        """Queue the events of an answer; etcd never parts those of one revision."""
        events = [
            Event(
                key=each.kv.key[self._own :].decode(),
                value=None if each.type == DELETED else each.kv.value,
                revision=each.kv.mod_revision,
                more=index + 1 < len(answer.events)
                and answer.events[index + 1].kv.mod_revision == each.kv.mod_revision,
            )
            for index, each in enumerate(answer.events)
        ]
        if events:
            self._queue.allow(sum(event.revision <= past for event in events))
            self._after = events[-1].revision
            self._queue.offer(events)
        elif answer.header.revision > self._after and not answer.created:
            self._after = answer.header.revision  # progress: nothing is missing up to there


def behind(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
