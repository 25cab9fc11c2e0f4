"""The agent's API: calls, refusals, hostile input, streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from fake_agent import Caller, Fake, ask, request

from weft.agent.api import BACKLOG_LIMIT, Api
from weft.model.errors import Conflict
from weft.model.reasons import REASONS
from weft.store.contract import ANY, Change
from weft.wire.api import METHODS, WatchParams, decode_params, encode_params
from weft.wire.local import Frame, Kind

POOL = {
    "apiVersion": "weft.dev/v1alpha1",
    "kind": "IPPool",
    "metadata": {"name": "default"},
    "spec": {"cidr": "10.244.0.0/16"},
}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def pool(name: str, cidr: str, **spec: Any) -> dict[str, Any]:
    return {**POOL, "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}


def test_table_of_methods_and_dispatch_agree() -> None:
    async def methods() -> set[str]:
        api = Api(Fake())
        return set(api._calls) | set(api._streams)

    assert run(methods()) == set(METHODS)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_params_survive_the_way_there(method: str) -> None:
    given = {"kind": "pods", "name": "x", "object": {"a": 1}, "address": "10.0.0.1"}
    known = {field.encode_name for field in msgspec.structs.fields(METHODS[method].params)}
    params = decode_params(method, {key: value for key, value in given.items() if key in known})
    assert decode_params(method, encode_params(params)) == params


HOSTILE: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"method":1}',
    b'{"method":"nothing"}',
    b'{"method":"status","params":[]}',
    b'{"method":"list"}',
    b'{"method":"list","params":{"kind":7}}',
    b'{"method":"list","params":{"kind":"pods","kinde":"x"}}',
    b'{"method":"list","params":{"kind":"\\ud800"}}',
    b'{"method":"list","params":{"kind":"pods","selector":{"matchLabels":[]}}}',
    b'{"method":"get","params":{"kind":"pods","name":"../../etc/passwd"}}',
    b'{"method":"get","params":{"kind":"pods","name":"x","namespace":"a/b"}}',
    b'{"method":"watch","params":{"kind":"pods","after":-5}}',
    b'{"method":"watch","params":{"kind":"pods","after":99999999999999999999999999}}',
    b'{"method":"apply","params":{"object":{"apiVersion":["x"],"kind":{}}}}',
    b'{"method":"apply","params":{"object":{"apiVersion":"weft.dev/v1alpha1","kind":"Pod"}}}',
    b'{"method":"apply","params":{"object":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}",
    b'{"method":"events","params":{"limit":1e400}}',
    b'{"method":"label","params":{"kind":"pod","name":"x","set":{"a b":"c"}}}',
    b'{"method":"ipam.release","params":{"address":"10.0.0.0/8"}}',
    b'{"method":"delete","params":{"kind":"ippool","name":""}}',
    b'{"method":"' + b"x" * 100_000 + b'"}',
    b"\xff\xfe" * 100,
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_call_gets_one_clear_error_and_changes_nothing(payload: bytes) -> None:
    fake = Fake()

    async def call() -> Caller:
        caller = Caller()
        await asyncio.wait_for(
            Api(fake).handle(caller, Frame(kind=Kind.API_REQUEST, payload=payload)), 5
        )
        assert (await fake.store.list("/")).revision == 0
        return caller

    caller = run(call())
    (answer,) = caller.values()
    assert caller.sent[0].kind == Kind.API_ERROR
    assert answer["reason"] in REASONS
    assert answer["reason"] != "internal"
    assert 10 < len(answer["message"]) < 2000
    assert "Traceback" not in answer["message"]


def test_frame_that_is_no_call_is_refused() -> None:
    async def call() -> Caller:
        caller = Caller()
        await Api(Fake()).handle(caller, Frame(kind=77, payload=b""))
        return caller

    assert run(call()).values()[0]["reason"] == "peer-fault"


def test_unknown_method_says_that_releases_may_differ() -> None:
    answer = run(ask(Fake(), "teleport", {}))
    assert answer["reason"] == "unknown-method"
    assert "weft version" in answer["message"]


def test_misspelt_param_names_the_nearest() -> None:
    answer = run(ask(Fake(), "list", {"kind": "pods", "namespac": "x"}))
    assert (answer["reason"], answer["field"]) == ("invalid-call", "params.namespac")
    assert "did you mean 'namespace'" in answer["message"]


def test_defect_in_a_method_costs_one_call_and_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(Fake):
        def ipam_show(self) -> Any:
            raise ZeroDivisionError("secret")

    answer = run(ask(Broken(), "ipam.show", {}))
    assert answer["reason"] == "internal"
    assert "secret" not in answer["message"] + answer["details"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_answer_is_in_the_version_of_the_question() -> None:
    async def call() -> Caller:
        caller = Caller()
        frame = msgspec.structs.replace(request("status", {}), version=1)
        await Api(Fake()).handle(caller, frame)
        return caller

    assert run(call()).sent[0].version == 1


def test_status_is_what_the_agent_says() -> None:
    assert run(ask(Fake(), "status", {}))["result"]["node"] == "node-a"


class Watching:
    """A running watch, and what it has sent so far."""

    def __init__(self, fake: Fake, **params: Any) -> None:
        self.fake = fake
        self.api = Api(fake)
        self.caller = Caller()
        frame = request("watch", WatchParams(**params))
        self.task = asyncio.create_task(self.api.handle(self.caller, frame))

    async def until(self, count: int) -> list[tuple[str, str]]:
        """Wait until there are so many items; their types and names."""
        end = time.monotonic() + 5
        while len(self.caller.sent) < count and not self.task.done():
            assert time.monotonic() < end, self.caller.values()
            await asyncio.sleep(0.005)
        return [
            (each["result"]["type"], each["result"]["object"]["metadata"]["name"])
            for each in self.caller.values()
            if each.get("result")
        ]

    async def leave(self) -> None:
        self.caller.gone.set()
        await asyncio.wait_for(self.task, 5)


def test_watch_gives_what_there_is_and_then_every_change() -> None:
    async def scenario() -> None:
        fake = Fake()
        await ask(fake, "apply", {"object": POOL})
        watch = Watching(fake, kind="ippools")
        assert await watch.until(1) == [("ADDED", "default")]
        await ask(fake, "apply", {"object": pool("default", "10.244.0.0/16", disabled=True)})
        await ask(fake, "delete", {"kind": "ippool", "name": "default"})
        assert (await watch.until(3))[1:] == [("MODIFIED", "default"), ("DELETED", "default")]
        await watch.leave()

    run(scenario())


def test_watch_after_a_list_misses_and_repeats_nothing() -> None:
    async def scenario() -> None:
        fake = Fake()
        await ask(fake, "apply", {"object": POOL})
        listed = (await ask(fake, "list", {"kind": "ippools"}))["result"]
        await ask(fake, "apply", {"object": pool("second", "10.9.0.0/16")})
        watch = Watching(fake, kind="ippools", after=listed["revision"])
        assert await watch.until(1) == [("ADDED", "second")]
        await ask(fake, "apply", {"object": pool("default", "10.244.0.0/16", disabled=True)})
        assert (await watch.until(2))[1:] == [("MODIFIED", "default")]
        await watch.leave()

    run(scenario())


def test_object_that_no_longer_matches_the_selector_is_told_as_deleted() -> None:
    async def scenario() -> None:
        fake = Fake()
        named = {"kind": "pod", "name": "web"}
        await ask(fake, "label", {**named, "set": {"app": "web"}})
        selector = decode_params(
            "list", {"kind": "pods", "selector": {"matchLabels": {"app": "web"}}}
        ).selector  # type: ignore[attr-defined]
        watch = Watching(fake, kind="pods", selector=selector)
        await watch.until(1)
        await ask(fake, "label", {**named, "set": {"app": "db"}, "overwrite": True})
        assert (await watch.until(2))[1:] == [("DELETED", "web")]
        await watch.leave()

    run(scenario())


def test_watch_of_history_that_is_gone_ends_with_compacted() -> None:
    async def scenario() -> None:
        watch = Watching(Fake(), kind="pods", after=7)
        await asyncio.wait_for(watch.task, 5)
        (answer,) = watch.caller.values()
        assert answer["reason"] == "compacted"

    run(scenario())


def test_closing_the_api_ends_streams() -> None:
    async def scenario() -> None:
        watch = Watching(Fake(), kind="pods")
        await asyncio.sleep(0)
        watch.api.close()
        await asyncio.wait_for(watch.task, 5)
        assert watch.caller.ended
        assert watch.caller.values() == [{"result": None}]

    run(scenario())


def test_caller_that_leaves_frees_its_watch() -> None:
    async def scenario() -> None:
        fake = Fake()
        watch = Watching(fake, kind="pods")
        await asyncio.sleep(0.01)
        await watch.leave()
        assert fake.store._watchers._all == {}

    run(scenario())


def test_stream_whose_reader_has_stopped_reading_is_ended() -> None:
    async def scenario() -> None:
        fake = Fake()
        await ask(fake, "apply", {"object": POOL})
        watch = Watching(fake, kind="ippools")
        watch.caller.pending = BACKLOG_LIMIT + 1
        await asyncio.wait_for(watch.task, 5)
        assert watch.caller.values()[-1]["reason"] == "compacted"

    run(scenario())


def test_attachments_can_be_watched() -> None:
    async def scenario() -> None:
        fake = Fake()
        first = fake.attach("c1")
        watch = Watching(fake, kind="attachments")
        assert await watch.until(1) == [("ADDED", first.host_link)]
        fake.attachments.drop(first.key)
        assert (await watch.until(2))[1:] == [("DELETED", first.host_link)]
        await watch.leave()

    run(scenario())


def test_lost_race_is_repeated_until_it_is_won() -> None:
    async def scenario() -> None:
        fake = Fake()
        await ask(fake, "apply", {"object": POOL})
        commit, lost = fake.store.commit, [3]

        async def contended(changes: Any) -> int:
            if lost[0]:
                lost[0] -= 1
                key = changes[0].key
                entry = await fake.store.get(key)
                assert entry is not None
                await commit([Change(key=key, value=entry.value, expected=ANY)])
            return await commit(changes)

        fake.store.commit = contended  # type: ignore[method-assign]
        answer = await ask(
            fake, "apply", {"object": pool("default", "10.244.0.0/16", disabled=True)}
        )
        assert answer["result"]["result"] == "configured"
        assert lost == [0]

    run(scenario())


def test_race_that_is_never_won_ends_as_conflict() -> None:
    async def scenario() -> None:
        fake = Fake()

        async def always(changes: Any) -> int:
            raise Conflict("somebody else")

        fake.store.commit = always  # type: ignore[method-assign]
        assert (await ask(fake, "apply", {"object": POOL}))["reason"] == "conflict"

    run(scenario())
