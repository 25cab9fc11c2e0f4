"""The file of the embedded store: kept across runs, locked, private, refused or set aside."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from weft.model.errors import Conflict, NotReady, Unsupported
from weft.store import sqlite
from weft.store.contract import ABSENT, Change
from weft.store.sqlite import SqliteStore
from weft.store.sqlite_file import FORMAT, KEPT, Opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.db"


def fill(path: Path, count: int = 3, *, history: int = 100) -> None:
    async def play() -> None:
        store = SqliteStore(str(path), history=history)
        for number in range(count):
            await store.commit([Change(key=f"/a/{number}", value=b"x")])
        await store.close()

    asyncio.run(play())


def reopened_report(path: Path) -> tuple[str, int]:
    """(report, number of entries) of a store opened anew."""

    async def play() -> tuple[str, int]:
        store = SqliteStore(str(path))
        listing = await store.list("/")
        await store.close()
        return store.report, len(listing.items)

    return asyncio.run(play())


def test_entries_revision_and_history_survive_a_restart(path: Path) -> None:
    fill(path)

    async def play() -> None:
        store = SqliteStore(str(path))
        assert store.report == ""
        watch = store.watch("/", 1)
        assert [(await anext(watch)).revision for _ in range(2)] == [2, 3]
        with pytest.raises(Conflict):
            await store.commit([Change(key="/a/0", value=b"y", expected=ABSENT)])
        assert await store.commit([Change(key="/a/0", value=b"y", expected=1)]) == 4
        await store.close()

    asyncio.run(play())


def test_the_bound_of_compaction_survives_a_restart(path: Path) -> None:
    fill(path, 30, history=10)

    async def play() -> None:
        store = SqliteStore(str(path), history=10)
        with pytest.raises(Conflict) as caught:
            await anext(store.watch("/", 2))
        assert caught.value.reason == "compacted"
        assert (await anext(store.watch("/", 29))).revision == 30
        await store.close()

    asyncio.run(play())


def test_what_was_committed_survives_a_kill(path: Path) -> None:
    """The log is not merged at a kill: a copy of the files as they are is what is left."""
    left = path.parent / "left.db"

    async def live() -> None:
        store = SqliteStore(str(path))
        await store.commit([Change(key="/a/b", value=b"x")])
        copy(path, left)
        await store.close()

    asyncio.run(live())
    assert Path(f"{left}-wal").stat().st_size > 0
    assert reopened_report(left) == ("", 1)


def copy(path: Path, to: Path) -> None:
    for suffix in ("", "-wal"):
        Path(f"{to}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())


def test_the_files_are_private(path: Path) -> None:
    async def play() -> None:
        store = SqliteStore(str(path))
        await store.commit([Change(key="/a/b", value=b"x")])
        modes = {
            name: stat.S_IMODE(os.stat(path.parent / name).st_mode)
            for name in os.listdir(path.parent)
        }
        assert set(modes.values()) == {0o600}
        assert "store.db-wal" in modes
        await store.close()

    old_umask = os.umask(0)
    try:
        asyncio.run(play())
        os.chmod(path, 0o644)
        asyncio.run(play())
    finally:
        os.umask(old_umask)


def test_a_second_opener_is_refused_and_the_first_keeps_its_lock(path: Path) -> None:
    async def play() -> None:
        store = SqliteStore(str(path))
        for _ in range(2):
            with pytest.raises(NotReady, match="another process") as caught:
                SqliteStore(str(path))
            assert caught.value.reason == "store-unavailable"
        await store.commit([Change(key="/a/b", value=b"x")])
        await store.close()
        assert not list(path.parent.glob("*damaged*"))

    asyncio.run(play())


def test_a_newer_format_is_refused_and_nothing_is_touched(path: Path) -> None:
    fill(path)
    database = sqlite3.connect(path)
    database.execute("UPDATE format SET version = ?", (FORMAT + 1,))
    database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    database.commit()
    database.close()
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    mtime = path.stat().st_mtime_ns
    with pytest.raises(Unsupported) as caught:
        SqliteStore(str(path))
    assert caught.value.reason == "store-newer"
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    assert path.stat().st_mtime_ns == mtime


def test_the_format_stands_in_the_main_file_from_the_first_moment(path: Path) -> None:
    """An older release looks there before it touches anything, and may come after a kill."""
    alone = path.parent / "alone.db"

    async def live() -> None:
        store = SqliteStore(str(path))
        copy(path, alone)
        await store.close()

    asyncio.run(live())
    Path(f"{alone}-wal").unlink()
    database = sqlite3.connect(alone)
    assert database.execute("SELECT version FROM format").fetchall() == [(FORMAT,)]
    database.close()


def damage_header(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 100)


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4 * 4096] = b"\xa5" * (3 * 4096)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def lose_a_table(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("DROP TABLE state")
    database.commit()
    database.close()


@pytest.mark.parametrize("damage", [damage_header, damage_pages, cut_short, lose_a_table])
def test_a_damaged_file_is_kept_aside_and_reported(path: Path, damage: object) -> None:
    fill(path)
    assert callable(damage)
    damage(path)
    broken = path.read_bytes()
    report, count = reopened_report(path)
    aside = path.parent / "store.db.damaged-1"
    assert str(aside) in report
    assert count == 0
    assert aside.read_bytes()[:4096] == broken[:4096]
    fill(path)
    assert reopened_report(path) == ("", 3)
    damage(path)
    assert "damaged-2" in reopened_report(path)[0]


def test_of_damaged_files_the_newest_few_are_kept_and_their_numbers_rise(path: Path) -> None:
    for turn in range(KEPT + 2):
        fill(path)
        content = bytearray(path.read_bytes())
        content[:100] = bytes([turn]) * 100
        path.write_bytes(content)
        assert f"damaged-{turn + 1} " in reopened_report(path)[0]
        path.with_name(f"store.db.damaged-{turn + 1}-wal").touch()  # a log that went along
    names = {f"store.db.damaged-{turn + 1}" for turn in range(2, KEPT + 2)}
    left = {each.name for each in path.parent.iterdir() if "damaged" in each.name}
    assert {each for each in left if not each.endswith(("-wal", "-shm"))} == names
    assert left - names == {f"{each}-wal" for each in names}
    newest = path.with_name(f"store.db.damaged-{KEPT + 2}")
    assert newest.read_bytes()[:100] == bytes([KEPT + 1]) * 100


def test_damaged_files_of_an_earlier_release_are_cleared_at_the_start(path: Path) -> None:
    fill(path)
    endings = ("damaged", "damaged-x", "damaged-9y", "damaged-1-x")
    others = ["other.db.damaged-1", *(f"store.db.{ending}" for ending in endings)]
    for name in (*(f"store.db.damaged-{n}" for n in range(1, 12)), *others):
        path.with_name(name).touch()
    path.with_name("store.db.damaged-1-wal").mkdir()  # nothing of ours
    assert reopened_report(path) == ("", 3)
    left = {each.name for each in path.parent.iterdir()} - {path.name}
    assert left == {
        *(f"store.db.damaged-{n}" for n in (9, 10, 11)),
        *others,
        "store.db.damaged-1-wal",
    }


def test_a_database_of_something_else_is_left_untouched(path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE songs (title TEXT)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(NotReady, match="something else") as caught:
        SqliteStore(str(path))
    assert caught.value.reason == "store-unavailable"
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["store.db"]


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert reopened_report(path) == ("", 0)


def test_a_store_is_new_until_something_was_committed(path: Path) -> None:
    """Who gives a lost store its objects back may be ended before the first of them."""

    async def scenario() -> None:
        for _ in range(2):
            begun = SqliteStore(str(path))
            assert begun.is_new
            await begun.close()
        filled = SqliteStore(str(path))
        await filled.commit([Change(key="/a/b", value=b"1", expected=ABSENT)])
        await filled.close()
        again = SqliteStore(str(path))
        assert not again.is_new
        await again.close()

    asyncio.run(scenario())


def test_a_store_that_cannot_be_opened_again_says_so_and_recovers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> Opened:
        raise NotReady("the disk answers EIO", reason="store-unavailable")

    async def scenario() -> None:
        store = SqliteStore(str(path))
        with monkeypatch.context() as broken:
            broken.setattr(sqlite, "open_file", fail)
            with pytest.raises(NotReady, match="EIO"):
                store.renew({"/a/b": b"1"})
        for use in (
            store.get("/a/b"),
            store.list("/"),
            store.commit([Change(key="/a", value=b"")]),
        ):
            with pytest.raises(NotReady) as caught:
                await use
            assert caught.value.reason == "store-unavailable"
        store.renew({"/a/b": b"1"})
        assert [item.key for item in (await store.list("/")).items] == ["/a/b"]
        await store.close()

    asyncio.run(scenario())


def test_a_directory_in_place_of_the_file_is_an_error_not_damage(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(NotReady) as caught:
        SqliteStore(str(path))
    assert caught.value.reason == "store-unavailable"
    assert path.is_dir()


def test_a_failing_write_changes_nothing_and_the_store_goes_on(path: Path) -> None:
    """A full disk, played by SQLite's own bound on the number of pages."""

    async def play() -> None:
        store = SqliteStore(str(path))
        await store.commit([Change(key="/a/small", value=b"x")])
        database = store._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(NotReady, match="full") as caught:
            await store.commit([Change(key="/a/large", value=b"x" * 500_000)])
        assert caught.value.reason == "store-unavailable"
        assert await store.get("/a/large") is None
        assert (await store.list("/")).revision == 1
        database.execute("PRAGMA max_page_count = 1000000")
        assert await store.commit([Change(key="/a/large", value=b"x" * 500_000)]) == 2
        await store.close()

    asyncio.run(play())


def test_a_store_is_not_written_anew_where_others_can_write(path: Path) -> None:
    async def play() -> None:
        store = SqliteStore(str(path))
        await store.commit([Change(key="/a/1", value=b"x")])
        path.parent.rename(path.parent.with_name("moved"))
        path.parent.mkdir()
        path.parent.chmod(0o777)
        assert store.missing() is not None
        with pytest.raises(NotReady, match="not safe to use"):
            store.renew({"/a/1": b"x"})
        assert list(path.parent.iterdir()) == []
        path.parent.chmod(0o700)
        store.renew({"/a/1": b"x"})
        assert [item.key for item in (await store.list("/")).items] == ["/a/1"]
        await store.close()

    asyncio.run(play())
