"""The group's socket: reading only, and never more room than it was given."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_agent import Caller, Fake, request

from weft.agent.api import Api
from weft.agent.doors import GroupDoor
from weft.agent.events import Log
from weft.agent.readers import Readers, close_door, find_group
from weft.agent.server import Connection, Server
from weft.model.errors import Invalid
from weft.model.settings import PathSettings, Settings, SocketSettings, load_settings
from weft.wire.api import METHODS, Nothing
from weft.wire.local import ApiRequest, CniRequest, Frame, encode_api, encode_cni_request

READING = {
    *("status", "events", "list", "get", "watch"),
    *("ipam.show", "ipam.check", "findings"),
}
ASK = encode_api(ApiRequest(method="status"))


def test_what_members_of_the_group_may_call_is_what_reads() -> None:
    assert {name for name, method in METHODS.items() if method.reads} >= READING
    changing = {"apply", "delete", "label", "ipam.release"}
    assert not any(METHODS[name].reads for name in changing)


@pytest.mark.parametrize("method", sorted(name for name, each in METHODS.items() if not each.reads))
def test_a_call_that_changes_something_is_refused_by_name(method: str) -> None:
    async def scenario() -> dict[str, Any]:
        caller = Caller(group="watchers")
        await Api(Fake()).handle(caller, request(method, {}))
        return dict(*caller.values())

    answer = asyncio.run(scenario())
    assert answer["reason"] == "not-permitted"
    assert "watchers" in answer["message"] and method in answer["message"]


def test_a_call_that_reads_is_answered() -> None:
    async def scenario() -> dict[str, Any]:
        caller = Caller(group="watchers")
        await Api(Fake()).handle(caller, request("status", Nothing()))
        return dict(*caller.values())

    assert asyncio.run(scenario())["result"]["node"] == "node-a"


@pytest.mark.parametrize("text", ["socket: {group: 65534}", "socket: {group: 0}"])
def test_a_group_that_stands_for_others_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"socket\.group"):
        load_settings(text)


def test_the_group_needs_a_directory_of_its_own() -> None:
    with pytest.raises(Invalid, match="another directory"):
        load_settings("paths: {querySocket: /run/weft/q.sock}")


def test_groups_are_found_by_name_and_by_number() -> None:
    assert find_group("root") == (0, "root")
    assert find_group("0") == (0, "root")
    assert find_group(54321) == (54321, "54321")
    for wrong in ("no-such-group", "nogroup", "", "a\0b"):
        with pytest.raises(Invalid, match=r"socket\.group"):
            find_group(wrong)


# -- the door, served ------------------------------------------------------------------------------


class Short(GroupDoor):
    """A door whose limits pass while a test waits."""

    room = msgspec.structs.replace(GroupDoor.room, idle=0.2, stall=0.2, breath=0.01)


def _serve(path: Path, scenario: Callable[[], Awaitable[None]], answer: bytes = b"x") -> None:
    def handle(connection: Connection, frame: Frame, descriptor: int | None) -> None:
        assert descriptor is None
        connection.send(answer)

    async def main() -> None:
        server = Server(path, handle, Log("error"), Short(os.getegid(), "own"))
        server.listen()
        server.serve()
        async with asyncio.timeout(10):
            await scenario()
        await server.stop()
        assert not server.connections

    asyncio.run(main())


async def _end(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side closed."""
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


def test_socket_and_directory_are_the_groups_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "query" / "q.sock"

    async def look() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        assert path.stat().st_gid == os.getegid()

    _serve(path, look)
    assert not path.exists()


def test_one_user_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "query" / "q.sock"

    async def crowd() -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(GroupDoor.each + 1)]
        # root is not told apart here: the limit is anybody's
        told = await _end(held[-1][0])
        assert b"busy" in told
        held[0][1].write(ASK)
        assert await _end(held[0][0]) == b"x"
        for reader, _ in held[1:-1]:  # half open: they have their time, then they are closed
            assert await _end(reader) == b""
        for _, writer in held:
            writer.close()

    _serve(path, crowd)


def test_a_reader_that_does_not_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "query" / "q.sock"

    async def slow() -> None:
        reader, writer = await asyncio.open_unix_connection(path, limit=1024)
        writer.write(ASK)
        await asyncio.sleep(0.6)
        assert len(await _end(reader)) < 4 << 20
        writer.close()

    _serve(path, slow, answer=b"x" * (8 << 20))


def test_a_large_request_is_not_gathered(tmp_path: Path) -> None:
    path = tmp_path / "query" / "q.sock"

    async def large() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(encode_api(ApiRequest(method="status", params={"x": "y" * (65 << 10)})))
        assert await _end(reader) == b""
        writer.close()

    _serve(path, large)


def _settings(tmp_path: Path, group: int | str) -> Settings:
    return Settings(
        socket=SocketSettings(group=group),
        paths=PathSettings(query_socket=f"{tmp_path}/weft-query/query.sock"),
    )


def test_cni_verbs_are_refused_on_the_groups_socket(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        settings = _settings(tmp_path, os.getegid() or "root")
        readers = Readers(settings, Api(Fake()), Log("error"))
        await readers.open()
        assert readers.trouble == ""
        reader, writer = await asyncio.open_unix_connection(settings.paths.query_socket)
        writer.write(encode_cni_request(CniRequest(program="weft", environment=(), stdin=b"{}")))
        told = await _end(reader)
        writer.close()
        await readers.stop()
        return told

    told = asyncio.run(scenario())
    assert b"not-permitted" in told and b"CNI verbs" in told
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_cannot_be_served_is_told_and_keeps_nobody_from_serving(
    tmp_path: Path,
) -> None:
    async def trouble(group: str) -> str:
        readers = Readers(_settings(tmp_path, group), Api(Fake()), Log("error"))
        await readers.open()
        await readers.stop()
        return readers.trouble

    assert "no group 'no-such-group'" in asyncio.run(trouble("no-such-group"))
    (tmp_path / "weft-query").mkdir()
    (tmp_path / "weft-query").chmod(0o777)
    assert "lets others write" in asyncio.run(trouble("root"))


def test_a_group_that_is_no_longer_set_leaves_nothing(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "")
    path = Path(settings.paths.query_socket)
    path.parent.mkdir(mode=0o750)
    path.touch()

    async def open_() -> None:
        await Readers(settings, Api(Fake()), Log("error")).open()

    asyncio.run(open_())
    assert list(tmp_path.iterdir()) == []
    close_door(path)
