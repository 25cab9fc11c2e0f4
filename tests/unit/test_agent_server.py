"""A connection of the agent's socket always ends, whatever its handler does."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable
from pathlib import Path

import pytest

from weft.agent.events import Log
from weft.agent.server import CONNECTION_LIMIT, SPARE, Connection, Server, connection_limit
from weft.wire.local import Frame, Kind, encode_frame


def closed_after(handler: object, tmp_path: Path) -> list[str]:
    """Ask once; the reasons that were logged when the agent had closed without an answer."""
    log = Log("error")
    said: list[str] = []
    log.line = lambda _, message, **__: said.append(message)  # type: ignore[method-assign]

    async def scenario() -> None:
        server = Server(tmp_path / "s", handler, log)  # type: ignore[arg-type]
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        connection = Connection(server, near, 0)
        server.connections.add(connection)
        connection.start()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(far, encode_frame(Kind.CNI_REQUEST, b"x"))
        async with asyncio.timeout(2):
            assert await loop.sock_recv(far, 10) == b""
        far.close()
        assert not server.connections

    asyncio.run(scenario())
    return said


def test_a_handler_that_breaks_at_once_closes_its_connection(tmp_path: Path) -> None:
    def broken(connection: Connection, frame: Frame, descriptor: int | None) -> None:
        raise ValueError("unforeseen")

    assert closed_after(broken, tmp_path) == ["a request failed"]


def test_a_handler_that_closes_and_waits_on_is_not_waited_for(tmp_path: Path) -> None:
    def closing(
        connection: Connection, frame: Frame, descriptor: int | None
    ) -> Awaitable[None] | None:
        connection.close()
        return asyncio.sleep(0)

    assert closed_after(closing, tmp_path) == []


def test_connections_leave_descriptors_for_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    limits = {"hard": 1024}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, limits["hard"]))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: set_to.append(pair))
    assert 2 * connection_limit() + SPARE <= 1024
    assert set_to == [(1024, 1024)]
    limits["hard"] = 1 << 20
    assert connection_limit() == CONNECTION_LIMIT
    limits["hard"] = 48
    assert connection_limit() == 1
