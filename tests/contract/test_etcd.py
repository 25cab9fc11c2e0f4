"""What a store in etcd survives: members that die, freeze or come back older, TLS, users, loss."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from weft.lab.etcd import Etcd
from weft.model.errors import Conflict, Invalid, NotReady, WeftError
from weft.store.contract import Change, Event, Watch
from weft.store.etcd.calls import Access, Calls, Pause
from weft.store.etcd.store import EtcdStore

NOTICED = 15.0  # seconds within which a connection without answers is given up


def play(access: Access, story: Callable[[EtcdStore], Awaitable[None]], *, limit: float = 120):
    async def whole() -> None:
        store = EtcdStore(access)
        try:
            await asyncio.wait_for(story(store), limit)
        finally:
            await store.close()

    asyncio.run(whole())


async def put(store: EtcdStore, key: str, value: bytes) -> int:
    return await store.commit([Change(key=key, value=value)])


async def put_at_last(store: EtcdStore, key: str, value: bytes) -> int:
    """Write the same again until etcd says that it is written."""
    while True:
        try:
            return await put(store, key, value)
        except NotReady:
            await asyncio.sleep(0.1)


async def take(watch: Watch, limit: float = 5.0) -> Event:
    return await asyncio.wait_for(anext(watch), limit)


def test_a_watch_misses_nothing_and_repeats_nothing_while_its_member_is_killed(
    tmp_path: Path,
) -> None:
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            watch = store.watch("/", (await store.list("/")).revision)
            seen: list[Event] = []

            async def follow() -> None:
                while not seen or seen[-1].value != b"end":
                    seen.append(await anext(watch))

            following = asyncio.ensure_future(follow())
            for number in range(60):
                await put_at_last(store, f"/n/{number}", b"%d" % number)
                if number % 20 == 10:
                    await asyncio.to_thread(etcd.signal, signal.SIGKILL)
                    with pytest.raises(NotReady):
                        await store.get("/n/0")
                    assert "etcd" in store.trouble
                    await asyncio.to_thread(etcd.start)
            await put_at_last(store, "/n/end", b"end")
            await asyncio.wait_for(following, 60)
            assert store.trouble == ""
            revisions = [event.revision for event in seen]
            assert revisions == sorted(set(revisions))
            # what was asked twice may have been written twice: never less, never in another order
            values = [event.value for event in seen]
            assert list(dict.fromkeys(values)) == [b"%d" % n for n in range(60)] + [b"end"]

        play(etcd.access(), story)


def test_a_member_that_answers_nothing_any_more_is_left_for_another(tmp_path: Path) -> None:
    """Frozen, it still takes packets: like a connection whose far end is gone without a word."""
    with Etcd(tmp_path, members=3) as etcd:

        async def story(store: EtcdStore) -> None:
            watch = store.watch("/", await put(store, "/a/1", b""))
            await put(store, "/a/2", b"")
            await take(watch)
            frozen = etcd.endpoints.index(f"http://{store.calls.member}")
            etcd.signal(signal.SIGSTOP, frozen)
            begun = time.monotonic()
            await put_at_last(store, "/a/3", b"3")
            event = await take(watch, NOTICED + 5)
            assert (event.key, event.value) == ("/a/3", b"3")
            assert time.monotonic() - begun < NOTICED * 5
            etcd.signal(signal.SIGCONT, frozen)

        play(etcd.access(), story)


def test_an_older_copy_of_etcd_makes_watches_list_again(tmp_path: Path) -> None:
    """Revisions of a restored backup mean other things than those that were seen."""
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            await put(store, "/a/1", b"old")
            etcd.ctl("snapshot", "save", str(tmp_path / "copy"))
            for number in range(5):
                await put(store, "/a/1", b"%d" % number)
            watch = store.watch("/", (await store.list("/")).revision)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(etcd.signal, signal.SIGKILL)
            shutil.rmtree(etcd.data())
            await asyncio.to_thread(etcd.restore, tmp_path / "copy")
            await asyncio.to_thread(etcd.start)
            with pytest.raises(Conflict) as caught:
                await take(watch, 30)
            assert caught.value.reason == "compacted"
            listing = await store.list("/")
            assert [item.value for item in listing.items] == [b"old"]
            again = store.watch("/", listing.revision)
            await put(store, "/a/1", b"new")
            assert (await take(again)).value == b"new"

        play(etcd.access(), story)


def test_history_that_is_gone_while_the_connection_is_down_is_told(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            revision = await put(store, "/a/1", b"1")
            for number in range(20):
                await put(store, "/a/1", b"%d" % number)
            etcd.ctl("compact", str(revision + 10))
            with pytest.raises(Conflict) as caught:
                await take(store.watch("/", revision))
            assert caught.value.reason == "compacted"
            quiet = store.watch("/none/", (await store.list("/")).revision)
            await asyncio.sleep(0.3)
            for number in range(20):
                await put(store, "/a/1", b"%d" % number)
            etcd.ctl("compact", str((await store.list("/")).revision))
            await put(store, "/none/1", b"1")
            assert (await take(quiet)).key == "/none/1"

        play(etcd.access(), story)


def test_what_is_held_is_gone_when_its_holder_is(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            other = EtcdStore(etcd.access())
            watch = store.watch("/held/", (await store.list("/")).revision)
            await other.hold("/held/node", b"up", 2)
            assert (await take(watch)).value == b"up"
            await other.close()
            assert (await take(watch, 30)).value is None
            # and whoever comes back under the key holds it, whatever was there
            await store.hold("/held/node", b"1", 30)
            again = EtcdStore(etcd.access())
            await again.hold("/held/node", b"2", 30)
            entry = await store.get("/held/node")
            assert entry is not None and entry.value == b"2"
            await again.close()

        play(etcd.access(), story)


def test_a_long_list_comes_whole_and_of_one_revision(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            for start in range(0, 2500, 100):
                await store.commit(
                    [
                        Change(key=f"/n/{number:05}", value=b"x")
                        for number in range(start, start + 100)
                    ]
                )
            listing = await store.list("/n/")
            assert [item.key for item in listing.items] == [f"/n/{n:05}" for n in range(2500)]
            await put(store, "/other", b"")
            assert len((await store.list("/n/0")).items) == 2500
            assert len((await store.list("/n/001")).items) == 100

        play(etcd.access(), story)


def test_users_need_their_password_and_lose_nothing_when_tokens_are_forgotten(
    tmp_path: Path,
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    with Etcd(tmp_path) as etcd:
        etcd.ctl("user", "add", "root:rootly")
        etcd.ctl("user", "add", "weft:secret")
        etcd.ctl("role", "add", "weft")
        etcd.ctl("role", "grant-permission", "weft", "--prefix=true", "readwrite", "/weft/")
        etcd.ctl("user", "grant-role", "weft", "weft")
        etcd.ctl("auth", "enable")

        async def denied(store: EtcdStore) -> None:
            with pytest.raises(NotReady, match="refuses this user"):
                await store.get("/a/b")

        async def story(store: EtcdStore) -> None:
            watch = store.watch("/", (await store.list("/")).revision)
            await put(store, "/a/1", b"1")
            assert (await take(watch)).key == "/a/1"
            await asyncio.to_thread(etcd.signal, signal.SIGKILL)
            await asyncio.to_thread(etcd.start, wait=False)
            # by another connection: the watch has to find out by itself that its token is none
            other = EtcdStore(store.calls.access)
            await put_at_last(other, "/a/2", b"2")
            assert (await take(watch, 60)).key == "/a/2"
            await other.close()

        play(etcd.access(), denied)
        play(etcd.access(username="weft", password_file=str(password)), story)
        password.write_text("wrong")
        play(etcd.access(username="weft", password_file=str(password)), denied)
        password.unlink()

        async def missing(store: EtcdStore) -> None:
            with pytest.raises(NotReady, match=str(password)):
                await store.get("/a/b")

        play(etcd.access(username="weft", password_file=str(password)), missing)


def test_tls_shows_a_certificate_and_wants_one(tmp_path: Path) -> None:
    good, other = tmp_path / "good", tmp_path / "other"
    for each in (good, other):
        certificates(each)
    with Etcd(tmp_path, tls=good) as etcd:

        async def story(store: EtcdStore) -> None:
            await put(store, "/a/1", b"1")
            assert len((await store.list("/")).items) == 1

        async def refused(store: EtcdStore) -> None:
            with pytest.raises(NotReady):
                await store.get("/a/1")

        play(etcd.access(), story)
        files = {name: str(other / f"{name}.pem") for name in ("ca", "cert", "key")}
        play(Access(endpoints=etcd.endpoints, ca=files["ca"]), refused)
        mine = Access(endpoints=etcd.endpoints, ca=str(good / "ca.pem"), cert=files["cert"],
                      key=files["key"])  # fmt: skip
        play(mine, refused)
        play(Access(endpoints=etcd.endpoints, ca=str(tmp_path / "none")), refused)


def certificates(place: Path) -> None:
    """An authority and a certificate of it, for both ends."""
    place.mkdir()
    (place / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for line in (
        ["req", "-x509", *key, "-keyout", "cakey.pem", "-out", "ca.pem", "-days", "2",
         "-subj", "/CN=authority"],
        ["req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=weft"],
        ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "cakey.pem",
         "-CAcreateserial", "-out", "cert.pem", "-days", "2", "-extfile", "names"],
    ):  # fmt: skip
        subprocess.run(["openssl", *line], cwd=place, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"endpoints": ()}, "endpoints"),
        ({"endpoints": ("127.0.0.1:2379",)}, "endpoints"),
        ({"endpoints": ("ftp://a",)}, "endpoints"),
        ({"endpoints": ("http://a", "https://b")}, "endpoints"),
        ({"endpoints": ("http://",)}, "endpoints"),
        ({"endpoints": ("http://a:99999",)}, "endpoints"),
        ({"endpoints": ("http://a/path",)}, "endpoints"),
        ({"endpoints": ("http://user:secret@a",)}, "endpoints"),
        ({"endpoints": ("https://a",), "cert": "/x"}, "cert"),
        ({"endpoints": ("http://a",), "ca": "/x"}, "ca"),
        ({"endpoints": ("http://a",), "username": "x"}, "username"),
    ],
)
def test_a_wrong_setting_is_named(words: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Calls(Access(**words))  # type: ignore[arg-type]
    assert caught.value.field == f"store.etcd.{field}"


def test_pauses_grow_are_drawn_and_begin_anew() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.0

    async def story() -> None:
        pause = Pause(draw)
        for _ in range(9):
            await pause.wait()
        pause.reset()
        await pause.wait()

    asyncio.run(story())
    assert drawn[:3] == [(0.05, 0.1), (0.1, 0.2), (0.2, 0.4)]
    assert drawn[7:] == [(5.0, 10.0), (5.0, 10.0), (0.05, 0.1)]


def test_a_commit_that_is_too_large_for_etcd_says_so(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:

        async def story(store: EtcdStore) -> None:
            large = [Change(key=f"/a/{n}", value=b"x" * (1 << 20)) for n in range(4)]
            with pytest.raises(WeftError, match="too large"):
                await store.commit(large)
            assert (await store.list("/")).items == ()

        play(etcd.access(), story)
