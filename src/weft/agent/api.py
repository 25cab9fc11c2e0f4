"""The agent's API for the command line: one call a connection, answered by one literal table.

Whatever a caller sends, it gets an answer or an error with a reason; an exception that is no
WeftError is a defect here, is logged, and becomes `internal` for the caller. Methods and their
structs: `wire.api`; objects: `resources.py`; streams: `streams.py`; what the agent has to
provide: `services.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from weft.agent.connections import Connections
from weft.agent.findings import findings_of
from weft.agent.resources import Resources
from weft.agent.services import AttachmentTable, Peer, Services
from weft.agent.streams import Streams
from weft.model.addresses import parse_address
from weft.model.errors import Conflict, Invalid, PeerFault, WeftError
from weft.wire.api import (
    METHODS,
    Findings,
    Imported,
    ImportParams,
    IpamCheck,
    IpamShow,
    Nothing,
    Released,
    ReleaseParams,
    check_permitted,
    decode_params,
)
from weft.wire.local import (
    ApiAnswer,
    ApiError,
    Frame,
    Kind,
    decode_api_request,
    encode_api,
    encode_api_item,
)
from weft.wire.status import Status

__all__ = ["BACKLOG_LIMIT", "Api", "AttachmentTable", "Peer", "Services"]

BACKLOG_LIMIT = 8 << 20
"""Octets that a stream may leave unsent before it is ended: its reader has stopped reading."""

T = TypeVar("T")
Call = Callable[[Any], Awaitable[Any]]
Stream = Callable[[Any], AsyncGenerator[Any, None]]
PACE = 1 << 20
"""Octets that a paced stream may leave unsent before it waits for its reader."""
STALL = 60.0
"""Seconds for which it waits."""


class Api:
    """Answers API frames. `close` ends the streams, so that the server can stop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._closing = asyncio.Event()
        resources = Resources(services)
        self._calls: dict[str, Call] = {
            "status": self._status,
            "events": resources.events,
            "list": resources.list,
            "get": resources.get,
            "apply": resources.apply,
            "delete": resources.delete,
            "label": resources.label,
            "ipam.show": self._ipam_show,
            "ipam.check": self._ipam_check,
            "ipam.release": self._ipam_release,
            "import": self._import,
            "findings": self._findings,
        }
        self._streams: dict[str, Stream] = {
            "watch": Streams(services).watch,
            "connections": Connections(services).stream,
        }

    def close(self) -> None:
        """End all streams; calls that run are answered."""
        self._closing.set()

    async def handle(self, peer: Peer, frame: Frame) -> None:
        """Answer one frame. Never raises but for cancellation."""
        method = "?"
        try:
            if frame.kind != Kind.API_REQUEST:
                raise PeerFault(f"a frame of kind {frame.kind} is no call of the agent's API")
            request = decode_api_request(frame.payload)
            method = request.method
            check_permitted(method, peer.group)
            params = decode_params(method, request.params)
            if METHODS[method].streams:
                async for item in self._until_gone(peer, self._streams[method](params)):
                    if not peer.send(
                        encode_api_item(ApiAnswer(result=item), frame.version), last=False
                    ):
                        return
                    if METHODS[method].paced:
                        await _until_taken(peer)
                    _check_backlog(peer)
                result: Any = None
            else:
                result = await self._calls[method](params)
            answer = encode_api(ApiAnswer(result=result), frame.version)
        except WeftError as error:
            answer = encode_api(error_of(error), frame.version)
        except Exception as error:  # a defect here must cost one call, not the agent
            self._services.log.line(
                "error", "an API call failed", method=ascii(method[:80]), error=repr(error)
            )
            answer = encode_api(
                ApiError(
                    reason="internal",
                    message=f"the agent failed at {method[:80]!a}; its log says where",
                    details=type(error).__name__,
                ),
                frame.version,
            )
        peer.send(answer, last=True)

    async def _until_gone(
        self, peer: Peer, items: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """The items, until the caller has gone or the agent stops."""
        loop = asyncio.get_running_loop()
        ends = {loop.create_task(peer.gone.wait()), loop.create_task(self._closing.wait())}
        waiting: asyncio.Task[T | None] | None = None
        try:
            while True:
                waiting = loop.create_task(_next(items))
                done, _ = await asyncio.wait({waiting, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if done & ends:
                    return
                item = waiting.result()
                if item is None:
                    return
                yield item
        finally:
            rest = [task for task in (waiting, *ends) if task is not None]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await items.aclose()

    async def _status(self, _params: Nothing) -> Status:
        return await self._services.status()

    async def _ipam_show(self, _params: Nothing) -> IpamShow:
        return self._services.ipam_show()

    async def _ipam_check(self, _params: Nothing) -> IpamCheck:
        return await self._services.ipam_check()

    async def _ipam_release(self, params: ReleaseParams) -> Released:
        address = str(parse_address(params.address, "params.address"))
        return await self._services.ipam_release(address, params.force)

    async def _import(self, params: ImportParams) -> Imported:
        return await self._services.take_in(params)

    async def _findings(self, _params: Nothing) -> Findings:
        status = await self._services.status()
        return Findings(items=findings_of(status, await self._services.ipam_check()))


async def _next(items: AsyncGenerator[T, None]) -> T | None:
    return await anext(items, None)


async def _until_taken(peer: Peer) -> None:
    """Until the caller has taken most of what it was sent; raises Conflict where it takes nothing
    for a while."""
    loop = asyncio.get_running_loop()
    left, due = peer.pending, loop.time() + STALL
    while peer.pending > PACE and not peer.gone.is_set():
        await asyncio.sleep(0.01)
        if peer.pending < left:
            left, due = peer.pending, loop.time() + STALL
        elif loop.time() > due:
            raise Conflict(
                "the list was ended because its reader does not read", reason="compacted"
            )


def _check_backlog(peer: Peer) -> None:
    if peer.pending > BACKLOG_LIMIT:
        raise Conflict(
            "the watch was ended because its reader does not read; list again",
            reason="compacted",
        )


def error_of(error: WeftError) -> ApiError:
    """What a caller is told of an error."""
    return ApiError(
        reason=error.reason,
        message=error.message,
        details=error.details,
        field=error.field if isinstance(error, Invalid) else "",
    )
