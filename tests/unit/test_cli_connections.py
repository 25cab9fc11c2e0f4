"""`weft get connections`: what is told of tracked connections, and how it is asked for."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Container, Iterator
from typing import Any

import pytest
from cli_run import fake, nobody, run
from fake_agent import Caller, Fake, request

from weft.agent import api as agent_api
from weft.agent import connections as agent_side
from weft.agent.api import Api
from weft.cli import connections as door
from weft.cli.app import own_kind
from weft.kernel import conntrack
from weft.kernel.conntrack import SEEN_REPLY, Flow, Tuple, Wanted
from weft.model.errors import Invalid
from weft.wire.api import ConnectionsParams

__all__ = ["fake", "nobody"]

WEB, DB, OUTSIDE, NODE = "10.244.0.5", "10.244.0.6", "203.0.113.9", "192.0.2.1"


def flow(
    source: str,
    target: str,
    *,
    asked: str = "",
    seen_as: str = "",
    port: int = 80,
    protocol: int = 6,
    state: str = "ESTABLISHED",
    octets: tuple[int, int] = (0, 0),
    number: int = 1,
) -> Flow:
    """A connection of `source` with `target`; `asked` and `seen_as` are what NAT made of them."""

    def raw(address: str) -> bytes:
        return ipaddress.ip_address(address).packed

    asked_port = 8080 if asked else port
    return Flow(
        original=Tuple(raw(source), raw(asked or target), protocol, 40000, asked_port),
        reply=Tuple(raw(target), raw(seen_as or source), protocol, port, 40000),
        status=SEEN_REPLY,
        timeout=300,
        state=state,
        mark=0,
        packets=(1, 1) if any(octets) else (0, 0),
        octets=octets,
        number=number,
        zone=0,
    )


class Table:
    """A connection tracking table that the kernel would filter in the same way."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []
        self.taken = 0

    def each(self, _via: object, wanted: Wanted, of: Container[bytes]) -> Iterator[Flow]:
        for one in self.flows:
            self.taken += 1
            of_family = len(one.original.source) == (4 if wanted.version == 4 else 16)
            of_protocol = wanted.protocol in (None, one.original.protocol)
            of_pod = one.original.source in of or one.reply.source in of
            if of_family and of_protocol and of_pod:
                yield one


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Table:
    made = Table()
    monkeypatch.setattr(conntrack, "each", made.each)
    own = frozenset((ipaddress.ip_address(NODE).packed,))
    monkeypatch.setattr(agent_side, "own_addresses", lambda _: own)
    fake.attach("c1", pod="shop/web", address=WEB)
    fake.attach("c2", pod="data/db", address=DB)
    made.flows = [
        flow(WEB, DB, port=5432, octets=(100, 2000), number=1),
        flow(OUTSIDE, WEB, asked=NODE, number=2),
        flow(WEB, OUTSIDE, seen_as=NODE, port=53, protocol=17, state="", number=3),
        flow(NODE, OUTSIDE, number=4),
        flow("fd00::5", "2001:db8::9", number=5),
    ]
    return made


@pytest.mark.usefixtures("table")
def test_both_ends_have_names_and_translation_is_shown() -> None:
    ran = run("get", "connections")
    assert ran.status == 0
    head, *lines = ran.out.splitlines()
    assert head.split() == [
        *("PROTOCOL", "STATE", "FROM", "SOURCE", "TO", "TARGET", "TRANSLATED", "BYTES")
    ]
    assert [" ".join(line.split()) for line in lines] == [
        f"tcp ESTABLISHED shop/web {WEB}:40000 data/db {DB}:5432 - 100/2000",
        f"tcp ESTABLISHED - {OUTSIDE}:40000 shop/web {WEB}:80 to {NODE}:8080 -",
        f"udp REPLIED shop/web {WEB}:40000 - {OUTSIDE}:53 as {NODE}:40000 -",
    ]
    assert "nf_conntrack_acct=1" in ran.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("shop/web",), {1, 2, 3}),
        (("db",), {1}),
        (("c2",), {1}),
        (("-n", "data"), {1}),
        (("-l", "app=db"), {1}),
        (("-l", "app=nobody"), set()),
        (("--port", "80"), {2}),
        (("--port", "8080"), {2}),
        (("--protocol", "udp"), {3}),
        (("--port", "53/udp"), {3}),
        (("--port", "53/tcp"), set()),
    ],
)
@pytest.mark.usefixtures("table")
def test_filters(words: tuple[str, ...], expected: set[int]) -> None:
    ran = run("get", "connections", *words, "-o", "json")
    assert {
        int(each["metadata"]["name"][:8], 16) for each in json.loads(ran.out)["items"]
    } == expected


@pytest.mark.parametrize("form", ["json", "yaml", "name", "wide"])
def test_every_form_of_no_one_and_many(table: Table, form: str) -> None:
    import yaml

    many = [flow(WEB, DB, number=number) for number in range(agent_side.PIECE * 2 + 1)]
    for flows in ([], many[:1], many):
        table.flows = flows
        ran = run("get", "conn", "-o", form)
        assert ran.status == 0
        if form in ("json", "yaml"):
            assert len(yaml.safe_load(ran.out)["items"]) == len(flows)
        else:
            assert len(ran.out.splitlines()) == len(flows) + (form == "wide" and bool(flows))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody",), "no pod or container 'nobody'"),
        (("--protocol", "tpc"), "no protocol is called 'tpc'"),
        (("--port", "70000"), "is no port"),
        (("--port", "80", "--port", "81"), "ports 80 and 81 at once"),
        (("--port", "tcp/udp"), "at once"),
        (("--port", ""), "an empty port"),
    ],
)
@pytest.mark.usefixtures("table")
def test_what_cannot_be_asked_for_is_said(words: tuple[str, ...], says: str) -> None:
    ran = run("get", "connections", *words)
    assert ran.status in (1, 2)
    assert says in ran.err
    assert ran.out == ""


def test_watch_shows_what_is_new_changed_and_gone(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [
        [flow(WEB, DB, number=1, state="SYN_SENT")],
        [flow(WEB, DB, number=1), flow(DB, WEB, number=2)],
        [flow(DB, WEB, number=2)],
    ]
    table.flows = looks.pop(0)

    def sleep(_seconds: float) -> None:
        if not looks:
            raise KeyboardInterrupt
        table.flows = looks.pop(0)

    monkeypatch.setattr(door.time, "sleep", sleep)
    ran = run("get", "connections", "--watch", "-o", "json")
    changes = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["type"], each["object"]["metadata"]["name"][:8]) for each in changes] == [
        ("ADDED", "00000001"),
        ("MODIFIED", "00000001"),
        ("ADDED", "00000002"),
        ("DELETED", "00000001"),
    ]
    assert ran.status == 130


def test_words_of_get_are_not_mistaken_for_the_kind() -> None:
    assert own_kind(["get", "connections"]) == 1
    assert own_kind(["get", "-n", "conn", "-w", "CONN", "x"]) == 4
    assert own_kind(["get", "-n", "conn", "pods"]) is None
    assert own_kind(["get", "pods", "conn"]) is None
    assert own_kind(["get"]) is None
    assert door.parse_only(["443", "tcp"]) == door.parse_only(["443/tcp"]) == (443, "tcp")
    with pytest.raises(Invalid):
        door.parse_only(["1/2"])


class Reader(Caller):
    """One that takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def send(self, data: bytes, *, last: bool = True) -> bool:
        self.told.set()
        self.pending += len(data)
        return super().send(data, last=last)


def test_next_piece_is_made_when_the_reader_has_taken_the_last(
    table: Table, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.flows = [flow(WEB, DB, number=number) for number in range(agent_side.PIECE * 4)]
    monkeypatch.setattr(agent_api, "PACE", 1000)

    async def asked() -> tuple[int, list[Any], int]:
        reader = Reader()
        running = asyncio.ensure_future(
            Api(fake).handle(reader, request("connections", ConnectionsParams()))
        )
        await reader.told.wait()
        await asyncio.sleep(0.1)  # no condition to wait for: that nothing more comes
        so_far, taken = len(reader.sent), table.taken
        while not running.done():
            reader.pending = 0
            await asyncio.sleep(0.01)
        return so_far, reader.values(), taken

    so_far, values, taken = asyncio.run(asked())
    assert so_far == 1
    assert taken <= agent_side.PIECE + 1
    assert [len((value["result"] or {}).get("items", ())) for value in values] == [
        *[agent_side.PIECE] * 4,
        0,
    ]


def test_reader_that_takes_nothing_is_given_up(
    table: Table, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.flows = [flow(WEB, DB, number=number) for number in range(agent_side.PIECE * 2)]
    monkeypatch.setattr(agent_api, "PACE", 1000)
    monkeypatch.setattr(agent_api, "STALL", 0.05)
    reader = Reader()
    asyncio.run(Api(fake).handle(reader, request("connections", ConnectionsParams())))
    assert reader.values()[-1]["reason"] == "compacted"


def test_one_answer_for_all_of_them_is_refused(table: Table, fake: Fake) -> None:
    caller = Caller()
    asyncio.run(Api(fake).handle(caller, request("list", {"kind": "connections"})))
    assert caller.values()[0]["reason"] == "invalid-call"
    assert table.taken == 0
