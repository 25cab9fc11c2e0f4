"""One suite that every store passes. A new store is one line in `STORES`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.lab.etcd import Etcd
from weft.model.errors import Conflict, Invalid, NotReady
from weft.store.contract import ABSENT, ANY, MAX_CHANGES, Change, Event, Expect, Store, Watch
from weft.store.etcd.store import EtcdStore
from weft.store.memory import MemoryStore
from weft.store.sqlite import SqliteStore


class Maker(Protocol):
    def __call__(self, *, history: int = 1000, queue: int = 100) -> Store: ...


@contextmanager
def _memory() -> Iterator[Maker]:
    yield MemoryStore


@contextmanager
def _sqlite() -> Iterator[Maker]:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "store.db")
        yield lambda *, history=1000, queue=100: SqliteStore(path, history=history, queue=queue)


_count = itertools.count()


@functools.cache
def _shared() -> Etcd:
    """One etcd for all of these tests, ended with the process that runs them."""
    exits = contextlib.ExitStack()
    directory = exits.enter_context(tempfile.TemporaryDirectory())
    atexit.register(exits.close)
    return exits.enter_context(Etcd(Path(directory)))


@contextmanager
def _etcd() -> Iterator[Maker]:
    """A part of that etcd which nobody has used."""
    server, prefix = _shared(), f"/test-{next(_count)}"
    yield lambda *, history=1000, queue=100: EtcdStore(server.access(), prefix=prefix, queue=queue)


async def forget_history(store: Store, keep: int) -> None:
    """An etcd forgets when it is told to; the others keep what they were made with."""
    if isinstance(store, EtcdStore):
        last = (await store.list("/")).revision
        await asyncio.to_thread(_shared().ctl, "compact", str(last - keep))


STORES = {"memory": _memory, "sqlite": _sqlite, "etcd": _etcd}
every_store = pytest.mark.parametrize("kind", STORES)


def run(
    kind: str,
    story: Callable[[Store], Awaitable[None]],
    *,
    history: int = 1000,
    queue: int = 100,
) -> None:
    async def play() -> None:
        with STORES[kind]() as make:
            store = make(history=history, queue=queue)
            try:
                await asyncio.wait_for(story(store), 30)
            finally:
                await store.close()

    asyncio.run(play())


async def put(store: Store, key: str, value: bytes, expected: int | Expect = ANY) -> int:
    return await store.commit([Change(key=key, value=value, expected=expected)])


async def drop(store: Store, key: str, expected: int | Expect = ANY) -> int:
    return await store.commit([Change(key=key, value=None, expected=expected)])


async def take(watch: Watch, count: int) -> list[Event]:
    return [await asyncio.wait_for(anext(watch), 5) for _ in range(count)]


async def now(store: Store) -> int:
    """The revision before anything of the test."""
    return (await store.list("/")).revision


async def nothing_queued(store: Store, watch: Watch, under: str = "/") -> bool:
    """Whether the next that a watch gives is something that is written only now."""
    revision = await put(store, f"{under}mark", b"")
    return (await take(watch, 1))[0].revision == revision


@every_store
def test_a_key_that_was_never_written_is_absent(kind: str) -> None:
    async def story(store: Store) -> None:
        assert await store.get("/a/b") is None
        listing = await store.list("/")
        assert listing.items == ()
        assert listing.revision == await now(store)

    run(kind, story)


@every_store
def test_a_value_comes_back_with_the_revision_that_wrote_it(kind: str) -> None:
    async def story(store: Store) -> None:
        first = await put(store, "/a/b", b"one")
        await put(store, "/a/c", b"other")
        entry = await store.get("/a/b")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"one", first)

    run(kind, story)


@every_store
def test_listing_takes_a_prefix_and_sorts_by_key(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        for key in ("/pods/b/x", "/pods/a/y", "/podsX/z", "/nodes/n", "/pods/a/\u00e9"):
            await put(store, key, key.encode())
        listing = await store.list("/pods/")
        assert [each.key for each in listing.items] == ["/pods/a/y", "/pods/a/\u00e9", "/pods/b/x"]
        assert listing.revision == before + 5
        assert [each.key for each in (await store.list("/pods/a/")).items] == [
            "/pods/a/y",
            "/pods/a/\u00e9",
        ]

    run(kind, story)


@every_store
def test_a_commit_on_an_outdated_revision_is_refused_and_names_the_key(kind: str) -> None:
    async def story(store: Store) -> None:
        old = await put(store, "/a/b", b"one")
        await put(store, "/a/b", b"two", old)
        with pytest.raises(Conflict, match="/a/b"):
            await put(store, "/a/b", b"three", old)
        entry = await store.get("/a/b")
        assert entry is not None and entry.value == b"two"

    run(kind, story)


@every_store
def test_absent_is_refused_once_the_key_exists(kind: str) -> None:
    async def story(store: Store) -> None:
        await put(store, "/a/b", b"mine", ABSENT)
        with pytest.raises(Conflict, match="absent"):
            await put(store, "/a/b", b"theirs", ABSENT)
        with pytest.raises(Conflict, match="does not exist"):
            await put(store, "/a/c", b"x", 1)

    run(kind, story)


@every_store
def test_a_commit_of_several_keys_is_all_or_nothing(kind: str) -> None:
    async def story(store: Store) -> None:
        taken = await put(store, "/a/taken", b"x")
        with pytest.raises(Conflict, match="/a/taken"):
            await store.commit(
                [
                    Change(key="/a/new", value=b"1", expected=ABSENT),
                    Change(key="/a/taken", value=b"2", expected=ABSENT),
                ]
            )
        assert await store.get("/a/new") is None
        listing = await store.list("/")
        assert (len(listing.items), listing.revision) == (1, taken)

    run(kind, story)


@every_store
def test_keys_of_one_commit_share_its_revision(kind: str) -> None:
    async def story(store: Store) -> None:
        watch = store.watch("/", await now(store))
        revision = await store.commit(
            [Change(key="/a/1", value=b"1"), Change(key="/a/2", value=b"2")]
        )
        assert {each.revision for each in (await store.list("/")).items} == {revision}
        events = await take(watch, 2)
        assert [(each.key, each.revision, each.more) for each in events] == [
            ("/a/1", revision, True),
            ("/a/2", revision, False),
        ]

    run(kind, story)


@every_store
def test_deleting_what_is_not_there_changes_nothing(kind: str) -> None:
    async def story(store: Store) -> None:
        written = await put(store, "/a/b", b"x")
        watch = store.watch("/", written)
        assert await drop(store, "/a/none") == written
        assert await nothing_queued(store, watch)
        assert await drop(store, "/a/b", written) == written + 2
        assert await store.get("/a/b") is None

    run(kind, story)


@every_store
def test_a_watch_gives_the_past_and_then_the_present_without_gap(kind: str) -> None:
    async def story(store: Store) -> None:
        first = await put(store, "/a/1", b"1")
        await put(store, "/b/1", b"other")
        await put(store, "/a/1", b"2")
        watch = store.watch("/a/", first)
        await drop(store, "/a/1")
        await put(store, "/b/2", b"other")
        await put(store, "/a/1", b"3")
        events = await take(watch, 3)
        assert [(each.value, each.revision - first) for each in events] == [
            (b"2", 2),
            (None, 3),
            (b"3", 5),
        ]
        assert await nothing_queued(store, watch, "/a/")

    run(kind, story)


@every_store
def test_a_waiting_watcher_is_woken_by_a_commit(kind: str) -> None:
    async def story(store: Store) -> None:
        watch = store.watch("/", await now(store))
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0)
        await put(store, "/a/b", b"x")
        assert (await waiting)[0].key == "/a/b"

    run(kind, story)


@every_store
def test_more_is_false_on_the_last_event_that_the_prefix_lets_through(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        live = store.watch("/a/", before)
        await store.commit([Change(key="/a/1", value=b""), Change(key="/b/1", value=b"")])
        resumed = store.watch("/a/", before)
        for watch in (live, resumed):
            assert [(each.key, each.more) for each in await take(watch, 1)] == [("/a/1", False)]

    run(kind, story)


@every_store
def test_resuming_before_the_kept_history_is_compacted(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        for number in range(30):
            await put(store, "/a/b", str(number).encode())
        await forget_history(store, 10)
        with pytest.raises(Conflict) as caught:
            await asyncio.wait_for(anext(store.watch("/", before + 3)), 5)
        assert caught.value.reason == "compacted"
        assert len(await take(store.watch("/", before + 25), 5)) == 5

    run(kind, story, history=10)


@every_store
def test_resuming_from_a_revision_that_never_was_is_compacted(kind: str) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Conflict) as caught:
            await asyncio.wait_for(anext(store.watch("/", await now(store) + 7)), 5)
        assert caught.value.reason == "compacted"

    run(kind, story)


@every_store
def test_a_watcher_that_falls_behind_is_ended_and_others_are_not(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        slow, quick = store.watch("/", before), store.watch("/", before)
        for watch in (slow, quick):  # both have begun
            await put(store, "/a/b", b"")
            await take(watch, 1)
        await take(quick, 1)
        for number in range(12):
            revision = await put(store, "/a/b", str(number).encode())
            assert (await take(quick, 1))[0].revision == revision
        with pytest.raises(Conflict) as caught:
            while True:  # what was given out before is not taken back
                await asyncio.wait_for(anext(slow), 5)
        assert caught.value.reason == "compacted"
        listing = await store.list("/")
        assert listing.items[0].value == b"11"

    run(kind, story, queue=10)


@every_store
def test_a_past_longer_than_the_queue_is_given_whole(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        for number in range(12):
            await put(store, "/a/b", str(number).encode())
        watch = store.watch("/", before)
        await put(store, "/a/b", b"12")
        assert [event.value for event in await take(watch, 13)] == [
            str(number).encode() for number in range(13)
        ]

    run(kind, story, queue=5)


@every_store
def test_a_closed_watch_and_a_closed_store_end_the_iteration(kind: str) -> None:
    async def story(store: Store) -> None:
        before = await now(store)
        closed, open_until_the_end = store.watch("/", before), store.watch("/", before)
        await put(store, "/a/b", b"x")
        await take(closed, 1)
        await put(store, "/a/b", b"y")
        await closed.aclose()
        assert [event async for event in closed] == []
        await take(open_until_the_end, 1)
        ending = asyncio.ensure_future(_rest(open_until_the_end))
        await asyncio.sleep(0.1)
        await store.close()
        assert [event.value for event in await asyncio.wait_for(ending, 5)] == [b"y"]
        with pytest.raises(NotReady):
            await store.get("/a/b")
        with pytest.raises(NotReady):
            await put(store, "/a/b", b"y")

    run(kind, story)


async def _rest(watch: Watch) -> list[Event]:
    return [event async for event in watch]


@every_store
def test_what_is_held_goes_by_itself_unless_it_is_held_again(kind: str) -> None:
    async def story(store: Store) -> None:
        begun = await now(store)
        watch = store.watch("/held/", begun)
        await store.hold("/held/kept", b"1", 2)
        await store.hold("/held/left", b"1", 2)
        assert [each.key for each in await take(watch, 2)] == ["/held/kept", "/held/left"]
        ended = asyncio.ensure_future(anext(watch))
        for _ in range(100):  # etcd looks every half second, and grants two at least
            await asyncio.wait({ended}, timeout=0.5)
            if ended.done():
                break
            await store.hold("/held/kept", b"1", 2)
        event = ended.result()
        assert (event.key, event.value) == ("/held/left", None)
        assert await store.get("/held/left") is None
        kept = await store.get("/held/kept")
        assert kept is not None
        await store.hold("/held/kept", b"2", 2)
        event = (await take(watch, 1))[0]
        assert (event.key, event.value) == ("/held/kept", b"2")
        await store.hold("/held/left", b"again", 2)
        event = (await take(watch, 1))[0]
        assert (event.key, event.value) == ("/held/left", b"again")

    run(kind, story)


@every_store
def test_only_what_is_below_held_can_be_held_and_for_a_time(kind: str) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Invalid, match="/held/"):
            await store.hold("/nodes/a", b"", 2)
        for seconds in (0, -1, 3601, float("nan")):
            with pytest.raises(Invalid, match="allowed"):
                await store.hold("/held/a", b"", seconds)

    run(kind, story)


@every_store
@pytest.mark.parametrize(
    "changes",
    [
        [Change(key="a/b", value=b"")],
        [Change(key="/", value=b"")],
        [Change(key="/a//b", value=b"")],
        [Change(key="/a/\n", value=b"")],
        [Change(key="/" + "a" * 1024, value=b"")],
        [Change(key="/a", value=b"1"), Change(key="/a", value=b"2")],
        [Change(key="/a", value=b"x" * ((1 << 20) + 1))],
        [Change(key=f"/a/{number}", value=b"") for number in range(MAX_CHANGES + 1)],
    ],
)
def test_malformed_commits_are_refused_whole(kind: str, changes: list[Change]) -> None:
    async def story(store: Store) -> None:
        before = await store.list("/")
        with pytest.raises(Invalid):
            await store.commit(changes)
        assert await store.list("/") == before

    run(kind, story)


KEYS = st.sampled_from(["/a/1", "/a/2", "/a/3", "/b/1", "/b/2"])
CHANGES = st.lists(
    st.tuples(KEYS, st.none() | st.binary(max_size=3)),
    min_size=1,
    max_size=4,
    unique_by=lambda pair: pair[0],
)


@every_store
@settings(max_examples=40, deadline=None)
@given(history=st.lists(CHANGES, max_size=25), data=st.data())
def test_replaying_from_any_point_of_any_history_gives_the_present(
    kind: str, history: list[list[tuple[str, bytes | None]]], data: st.DataObject
) -> None:
    """Whoever lists at some revision and then watches ends with what the store has, in order."""
    points = data.draw(st.lists(st.integers(0, len(history)), max_size=4))

    async def story(store: Store) -> None:
        watchers: list[tuple[dict[str, bytes], int, Watch | None]] = []
        for index in range(len(history) + 1):
            for position, point in enumerate(points):
                if point == index:
                    listing = await store.list("/a/")
                    seen = {each.key: each.value for each in listing.items}
                    # half of them watch at once, half resume at the end from that revision
                    live = store.watch("/a/", listing.revision) if position % 2 else None
                    watchers.append((seen, listing.revision, live))
            if index < len(history):
                await store.commit([Change(key=key, value=value) for key, value in history[index]])
        await put(store, "/a/end", b"")
        final = await store.list("/a/")
        truth = {each.key: each.value for each in final.items}
        for seen, start, live in watchers:
            watch = live or store.watch("/a/", start)
            last = start
            complete = True
            while "/a/end" not in seen:
                event = (await take(watch, 1))[0]
                assert event.revision > last if complete else event.revision == last
                last, complete = event.revision, not event.more
                if event.value is None:
                    del seen[event.key]
                else:
                    seen[event.key] = event.value
            assert complete
            assert seen == truth

    run(kind, story)
