"""CNI requests from launchers, answered.

The fast road of ADD runs in one turn of the loop: decode, refuse, plan, effects, answer. Whatever
has to wait - a turn, a block to claim, a link to vanish - goes through a task. On failure exactly
one JSON object is answered, in the caller's version. Next: `agent.attach`, `agent.detach`,
`agent.check`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable

from weft.agent.attach import Attacher
from weft.agent.check import Checker
from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.agent.refusals import told
from weft.agent.server import Connection
from weft.agent.turns import Turns
from weft.model.attachment import AttachmentKey
from weft.model.errors import Invalid, KernelRefused, NotReady, WeftError
from weft.observe.counts import REQUEST_BOUNDS, Histogram
from weft.wire.cni import (
    Command,
    Request,
    Result,
    caller_version,
    encode_error,
    encode_result,
    encode_version,
    parse_request,
)
from weft.wire.local import CniAnswer, CniRequest, encode_cni_answer

VERBS = tuple(command.value for command in Command)
OTHER = "other"
"""The verb of what is none: callers must not be able to make names for us to remember."""


class Verbs:
    """Dispatches CNI requests. `counts` is per (verb, outcome), where outcome is ok or a reason;
    `durations` is per verb."""

    def __init__(
        self,
        ground: Ground,
        turns: Turns,
        *,
        attacher: Attacher,
        detacher: Detacher,
        checker: Checker,
    ) -> None:
        self._attacher = attacher
        self._detacher = detacher
        self._checker = checker
        self._attachments = ground.attachments
        self._node = ground.node
        self._turns = turns
        self._log = ground.log
        self._laps = ground.laps
        self.counts: Counter[tuple[str, str]] = Counter()
        self.durations = {verb: Histogram(REQUEST_BOUNDS) for verb in (*VERBS, OTHER)}

    def handle(
        self, connection: Connection, asked: CniRequest, netns: int | None
    ) -> Awaitable[None] | None:
        """Answer at once and return None, or return what has yet to be awaited."""
        begun = time.perf_counter()
        session = _Session(self, connection, asked, netns, begun)
        try:
            request = parse_request(asked.variables(), asked.stdin)
        except WeftError as error:
            session.fail(error)
            return None
        session.request = request
        if request.command is Command.ADD:
            self._laps.mark(begun)
            self._laps.lap("decode")
            return self._add(session, request)
        if request.command is not Command.CHECK:
            session.drop_netns()  # hundreds of DELs may wait for the kernel at once
        if request.command is Command.DEL:
            return self._guarded(session, self._del(session, request))
        if request.command is Command.CHECK:
            return self._guarded(session, self._check(session, request))
        if request.command is Command.GC:
            return self._guarded(session, self._gc(session, request))
        if request.command is Command.STATUS:
            return self._guarded(session, self._status(session))
        # the launcher answers VERSION itself; another program may speak the protocol too
        session.answer(encode_version(request.spec_version))
        return None

    def _add(self, session: _Session, request: Request) -> Awaitable[None] | None:
        key = request.key
        if not self._turns.free(key):
            return self._guarded(session, self._add_waiting(session, request, key))
        if not session.connection.still_there():
            session.close()
            return None
        try:
            assigned = self._attacher.prepared(request, session.netns)
        except (WeftError, OSError) as error:
            session.fail(told(error))
            return None
        if assigned is None or session.netns is None:
            return self._guarded(session, self._add_waiting(session, request, key))
        self._laps.lap("plan")
        try:
            heard = session.succeed(self._attacher.perform(request, session.netns, assigned))
        except Exception as error:  # whatever it is, what has begun is undone
            return self._guarded(session, self._retried(session, request, error))
        self._laps.lap("answer")
        return None if heard else self._guarded(session, self._unheard(session, key))

    async def _add_waiting(self, session: _Session, request: Request, key: AttachmentKey) -> None:
        begun = time.perf_counter()
        async with self._turns.adding(key):
            assigned = await self._attacher.prepare(request, session.netns)
            assert session.netns is not None  # `prepare` refuses a request without one
            if not session.connection.still_there():
                self._attacher.cancel(assigned)
                return
            self._laps.mark(begun)
            self._laps.lap("plan")
            try:
                heard = session.succeed(self._attacher.perform(request, session.netns, assigned))
                self._laps.lap("answer")
            except Exception as error:  # whatever it is, what has begun is undone
                heard = await self._resumed(session, request, error)
        if not heard:
            await self._unheard(session, key)

    async def _retried(self, session: _Session, request: Request, error: Exception) -> None:
        async with self._turns.deleting(request.key):
            heard = await self._resumed(session, request, error)
        if not heard:
            await self._unheard(session, request.key)

    async def _resumed(self, session: _Session, request: Request, error: Exception) -> bool:
        """What failed, made after all and answered - False if the launcher was gone -, or undone.
        Raises the error to answer."""
        try:
            if not isinstance(error, KernelRefused):
                raise error
            assert session.netns is not None  # it has been used
            result = await self._attacher.resume(request, session.netns, error)
            return session.succeed(result)
        except Exception as last:
            raise await self._attacher.undo(request.key, told(last)) from last

    async def _unheard(self, session: _Session, key: AttachmentKey) -> None:
        """The launcher went away before it could be answered: nobody knows of this attachment."""
        self._log.event(
            "info", "AddUnheard", str(key), "the runtime gave up on this ADD; it is undone"
        )
        await self._detacher.detach(key)

    async def _del(self, session: _Session, request: Request) -> None:
        await self._detacher.detach(request.key)
        session.succeed(None)

    async def _check(self, session: _Session, request: Request) -> None:
        key = request.key
        async with self._turns.adding(key):
            self._checker.check(request, session.netns, key)
        session.succeed(None)

    async def _gc(self, session: _Session, request: Request) -> None:
        valid = request.valid_attachments
        assert valid is not None  # wire/cni refuses a GC without the key
        try:
            removed = await self._detacher.collect(request.network, valid)
        except ExceptionGroup as group:
            details = "; ".join(str(error) for error in group.exceptions)
            raise WeftError(
                f"{len(group.exceptions)} attachments could not be removed; call GC again",
                reason="kernel-refused",
                details=details,
            ) from group
        if removed:
            self._log.event(
                "info", "Collected", request.network, f"GC removed {len(removed)} attachments"
            )
        session.succeed(None)

    async def _status(self, session: _Session) -> None:
        if (why := self._node.not_ready()) is not None:
            # packet rules or forwarding are missing: what is attached may suffer, too
            impaired = len(self._attachments) > 0
            raise NotReady(why, reason="degraded" if impaired else "plugin-unavailable")
        if (why := self._node.hindered() or self._node.no_addresses()) is not None:
            raise NotReady(why, reason="plugin-unavailable")
        session.succeed(None)

    async def _guarded(self, session: _Session, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # whatever it is, the caller gets its one JSON object
            answer = told(error)
            session.fail(answer)
            if answer.reason == "internal":  # a fault of ours
                raise
        except asyncio.CancelledError:
            session.fail(NotReady("the agent is stopping; try again", reason="busy"))
            raise
        finally:
            session.close()


_FREE = ("CNI_ARGS", "annotation", "args.cni", "runtimeConfig", "labels", "ipam")
"""Fields in which people put what they like: tokens, too."""


def _for_log(error: WeftError) -> str:
    """The error without what a free field held: the caller is told, the log keeps no secret."""
    if isinstance(error, Invalid) and error.field.startswith(_FREE):
        return f"{error.field}: its value is not valid; the runtime was told why"
    return error.message


class _Session:
    """One request on its connection; owns the descriptor of the container's namespace."""

    __slots__ = ("_asked", "_begun", "_ended", "_verbs", "connection", "netns", "request")

    def __init__(
        self,
        verbs: Verbs,
        connection: Connection,
        asked: CniRequest,
        netns: int | None,
        begun: float,
    ) -> None:
        self._verbs = verbs
        self._asked = asked
        self._begun = begun
        self._ended = False
        self.connection = connection
        self.netns = netns
        self.request: Request | None = None

    def succeed(self, result: Result | None) -> bool:
        """Answer; False if the launcher was gone."""
        request = self.request
        assert request is not None
        return self.answer(
            encode_result(result, request.spec_version) if result is not None else b""
        )

    def answer(self, output: bytes) -> bool:
        """Answer success with these bytes for standard output; False if the launcher was gone."""
        heard = self.connection.still_there() and self.connection.send(
            encode_cni_answer(CniAnswer(status=0, stdout=output))
        )
        self._end("ok" if heard else "unheard")
        return heard

    def fail(self, error: WeftError) -> None:
        """Answer with the one JSON error object."""
        if self._ended:
            return
        version = self.request.spec_version if self.request else caller_version(self._asked.stdin)
        self.connection.send(
            encode_cni_answer(CniAnswer(status=1, stdout=encode_error(error, version)))
        )
        self._end(error.reason, error)

    def _end(self, outcome: str, error: WeftError | None = None) -> None:
        verb = self._asked.variables().get("CNI_COMMAND", "")
        verb = verb if verb in VERBS else OTHER
        seconds = time.perf_counter() - self._begun
        self._ended = True
        self._verbs.counts[verb, outcome] += 1
        self._verbs.durations[verb].observe(seconds)
        about = str(self.request.key) if self.request and self.request.container_id else ""
        self._verbs._log.line(
            "info" if error is None else "warning",
            verb if error is None else f"{verb}: {_for_log(error)}",
            attachment=about,
            outcome=outcome,
            ms=round(seconds * 1000, 2),
        )
        self.close()

    def drop_netns(self) -> None:
        """Give back the descriptor of the container's namespace."""
        if self.netns is not None:
            os.close(self.netns)
            self.netns = None

    def close(self) -> None:
        """Give back the descriptor; close a connection that nobody answered."""
        self.drop_netns()
        if not self._ended:
            self.connection.close()
