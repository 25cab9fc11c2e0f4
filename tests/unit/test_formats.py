"""State of every format that a weft has written is read; a newer one is refused untouched."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from weft.agent import given, journal_file
from weft.agent.events import Log
from weft.agent.given import Given
from weft.agent.journal import Journal
from weft.agent.service import refuse_newer
from weft.cni.queue import read_queue
from weft.model.attachment import ALIAS_VERSION, PodRef, read_alias
from weft.model.errors import Unsupported, WeftError
from weft.model.settings import PathSettings, Settings
from weft.store import sqlite_file
from weft.store.sqlite import SqliteStore
from weft.wire import local

FIXTURES = Path(__file__).parent.parent / "formats"
sys.path.insert(0, str(FIXTURES))
import make  # noqa: E402  # a neighbour of the fixtures, not a package


def copied(fixture: Path, to: Path) -> Path:
    shutil.copyfile(fixture, to)
    to.chmod(0o600)
    return to


def numbered(kind: str) -> list[int]:
    numbers = (int(path.stem.partition("-")[2]) for path in FIXTURES.glob(f"{kind}-*"))
    return sorted(number for number in numbers if number < 99)


@pytest.mark.parametrize(
    ("kind", "format_now"),
    [
        ("journal", journal_file.FORMAT),
        ("store", sqlite_file.FORMAT),
        ("given", given.FORMAT),
        ("queue", local.VERSION),
    ],
)
def test_every_format_up_to_todays_has_a_fixture(kind: str, format_now: int) -> None:
    assert numbered(kind) == list(range(1, format_now + 1))


@pytest.mark.parametrize("number", numbered("journal"))
def test_a_journal_of_each_format_is_read_and_brought_up_to_date(
    number: int, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    copied(FIXTURES / f"journal-{number}.db", path)
    for _ in range(2):  # once of its own format, once of today's
        journal = Journal(path, make.BOOT)
        content = journal.read()
        journal.close()
        assert journal.fresh == ""
        imported = [make.taken_over()] if number > 2 else []
        assert content.attachments == [make.held(number), *imported]
        assert content.cooling == make.COOLING
        assert content.given == make.GIVEN
        assert content.seen == (make.OBJECTS if number > 1 else {})


@pytest.mark.parametrize("number", numbered("store"))
def test_a_store_of_each_format_is_read_and_brought_up_to_date(number: int, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    copied(FIXTURES / f"store-{number}.db", path)

    async def look() -> None:
        store = SqliteStore(str(path))
        listing = await store.list("/")
        await store.close()
        assert store.report == ""
        assert not store.is_new
        assert {item.key: item.value for item in listing.items} == make.OBJECTS

    asyncio.run(look())
    asyncio.run(look())


@pytest.mark.parametrize("number", numbered("given"))
def test_former_sysctls_of_each_format_are_read(number: int, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    copied(FIXTURES / f"given-{number}.json", path)
    journal = Journal(tmp_path / "journal.db", make.BOOT)
    assert Given(path, make.BOOT, journal, Log("error")).remembered() == make.GIVEN
    assert journal.remembered() == make.GIVEN
    journal.close()


@pytest.mark.parametrize("number", numbered("queue"))
def test_a_queued_deletion_of_each_version_is_read(number: int, tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(mode=0o700)
    copied(FIXTURES / f"queue-{number}.req", directory / "a.req")
    (waiting,) = read_queue(directory)
    assert waiting.request == make.REQUEST


ALIASES = {
    1: "weft:1 net c1 eth0 0a0102030405 m46 10.244.0.5,fd00::5 blue/web",
}


def test_a_links_record_of_each_format_is_read() -> None:
    assert sorted(ALIASES) == list(range(1, ALIAS_VERSION + 1))
    for alias in ALIASES.values():
        record = read_alias(alias)
        assert record is not None
        assert str(record.key) == "net/c1/eth0"
        assert record.addresses == ("10.244.0.5", "fd00::5")
        assert record.pod == PodRef(namespace="blue", name="web")


# -- newer than today's


def newer_journal(state: Path) -> Path:
    return copied(FIXTURES / "journal-99.db", state / "journal.db")


def newer_store(state: Path) -> Path:
    return copied(FIXTURES / "store-99.db", state / "store.db")


def newer_given(state: Path) -> Path:
    return copied(FIXTURES / "given-99.json", state / "given.json")


@pytest.mark.parametrize("place", [newer_journal, newer_store, newer_given])
def test_a_newer_file_is_refused_and_nothing_is_touched(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    path = place(tmp_path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    paths = PathSettings(
        journal=str(tmp_path / "journal.db"),
        store=str(tmp_path / "store.db"),
        queue=str(tmp_path / "queue"),
        socket=str(tmp_path / "agent.sock"),
    )
    with pytest.raises(Unsupported, match="format 99") as caught:
        refuse_newer(Settings(paths=paths))
    assert caught.value.reason in ("state-newer", "store-newer")
    assert str(path) in caught.value.message
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("kind", "opening"),
    [
        ("journal", lambda path: Journal(path, make.BOOT)),
        ("store", lambda path: SqliteStore(str(path))),
    ],
)
def test_opening_a_newer_database_leaves_it_byte_for_byte(
    tmp_path: Path, kind: str, opening: Callable[[Path], object]
) -> None:
    path = tmp_path / "state.db"
    copied(FIXTURES / f"{kind}-99.db", path)
    with pytest.raises(Unsupported):
        opening(path)
    assert path.read_bytes() == (FIXTURES / f"{kind}-99.db").read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == ["state.db"]


def test_a_queued_deletion_of_a_newer_launcher_waits_byte_for_byte(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(mode=0o700)
    copied(FIXTURES / "queue-99.req", directory / "b.req")
    copied(FIXTURES / "queue-1.req", directory / "a.req")
    newer: list[str] = []
    assert [one.path.name for one in read_queue(directory, newer)] == ["a.req"]
    assert newer == ["b.req"]
    assert (directory / "b.req").read_bytes() == (FIXTURES / "queue-99.req").read_bytes()


@pytest.mark.parametrize("header", ["UPDATE meta SET value = '6'", "PRAGMA user_version = 6"])
def test_a_format_that_only_one_place_confirms_is_damage_and_no_refusal(
    tmp_path: Path, header: str
) -> None:
    """One flipped bit makes a 2 a 6; the agent must start all the same."""
    import sqlite3

    path = tmp_path / "journal.db"
    copied(FIXTURES / f"journal-{journal_file.FORMAT}.db", path)
    with sqlite3.connect(path) as database:
        database.execute(header)
    database.close()
    journal = Journal(path, make.BOOT)
    assert "damaged" in journal.fresh
    journal.close()


# -- frames between neighbours


@pytest.mark.parametrize("kind", [local.Kind.CNI_REQUEST, local.Kind.API_REQUEST])
def test_a_frame_of_the_next_version_is_answered_with_an_error_that_says_so(kind: int) -> None:
    from weft.wire.refusal import refusal

    frame = local.encode_frame(kind, b"whatever it is", version=local.VERSION + 1)
    with pytest.raises(local.OtherVersion) as caught:
        local.Frames().feed(frame)
    (answer,) = local.Frames().feed(refusal(caught.value))
    assert answer.version == local.VERSION
    if kind == local.Kind.CNI_REQUEST:
        said = local.decode_cni_answer(answer.payload)
        assert said.status == 1
        assert b'"code":11' in said.stdout
        text = said.stdout.decode()
    else:
        text = local.decode_api_error(answer.payload).message
    assert f"version {local.VERSION + 1}" in text
    assert "one release" in text


def test_members_and_octets_that_a_newer_peer_adds_are_ignored() -> None:
    (frame,) = local.Frames().feed(local.encode_cni_request(make.REQUEST))
    assert local.decode_cni_request(frame.payload + b"more") == make.REQUEST
    call = local.decode_api_request(b'{"method":"status","params":{},"new":[1]}')
    assert call.method == "status"
    assert local.decode_api_answer(b'{"result":1,"new":2}').result == 1


def test_given_values_that_can_be_kept_nowhere_are_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", make.BOOT)
    kept = Given(tmp_path / "absent" / "given.json", make.BOOT, journal, Log("error"))
    (tmp_path / "absent").write_text("in the way")
    kept.remember("net/ipv4/ip_forward", "0", "1")  # the journal has it
    assert kept.trouble
    journal.path.unlink()
    with pytest.raises(WeftError):
        kept.remember("net/ipv6/conf/all/forwarding", "0", "1")
    journal.close()
