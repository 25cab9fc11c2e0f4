"""What people may do with objects, and what they are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from fake_agent import Caller, Fake, ask, request

from weft.agent.api import Api
from weft.model.addresses import parse_prefix, prefix_of
from weft.model.ip_block import new_block
from weft.model.kinds import encode_object, from_bytes, key_of, object_key, to_bytes
from weft.model.metadata import Metadata
from weft.model.node import Node, NodeStatus
from weft.store.contract import MAX_CHANGES, Change


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def pool(name: str, cidr: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, **spec},
    }


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
    }


async def apply(fake: Fake, item: dict[str, Any], **params: Any) -> dict[str, Any]:
    return await ask(fake, "apply", {"object": item, **params})


async def get(fake: Fake, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    answer = await ask(fake, "get", {"kind": kind, "name": name, "namespace": namespace})
    return answer["result"]


async def put(fake: Fake, item: Any) -> None:
    await fake.store.commit([Change(key=object_key(item), value=to_bytes(item))])


def test_apply_creates_then_leaves_alone_then_configures() -> None:
    async def scenario() -> None:
        fake = Fake()
        words = []
        for item in (
            pool("a", "10.0.0.0/16"),
            pool("a", "10.0.0.0/16"),
            pool("a", "10.0.0.0/16", disabled=True),
        ):
            words.append((await apply(fake, item))["result"]["result"])
        assert words == ["created", "unchanged", "configured"]

    run(scenario())


def test_unchanged_apply_writes_nothing() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        before = (await fake.store.list("/")).revision
        await apply(fake, pool("a", "10.0.0.0/16"))
        assert (await fake.store.list("/")).revision == before

    run(scenario())


def test_dry_run_says_what_would_happen_and_writes_nothing() -> None:
    async def scenario() -> None:
        fake = Fake()
        answer = await apply(fake, pool("a", "10.0.0.0/16"), dryRun=True)
        assert answer["result"]["result"] == "created"
        assert (await fake.store.list("/")).items == ()
        refused = await apply(fake, pool("a", "10.0.0.1/16"), dryRun=True)
        assert refused["field"] == "spec.cidr"

    run(scenario())


def test_what_was_got_can_be_applied_again() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        item = await get(fake, "ippool", "a")
        assert (await apply(fake, item))["result"]["result"] == "unchanged"

    run(scenario())


def test_generation_rises_with_the_spec_and_not_with_labels() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        assert (await get(fake, "ippool", "a"))["metadata"]["generation"] == 1
        await ask(fake, "label", {"kind": "ippool", "name": "a", "set": {"x": "y"}})
        assert (await get(fake, "ippool", "a"))["metadata"]["generation"] == 1
        await apply(fake, pool("a", "10.0.0.0/16", disabled=True))
        assert (await get(fake, "ippool", "a"))["metadata"]["generation"] == 2

    run(scenario())


def test_uid_and_creation_are_the_store_sides_and_stay() -> None:
    async def scenario() -> None:
        fake = Fake()
        claimed = {"uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "generation": 9}
        await apply(fake, pod("p", **claimed))
        first = (await get(fake, "pod", "p"))["metadata"]
        assert first["uid"] != "mine"
        assert first["creationTimestamp"] > "2020"
        await apply(fake, pod("p", labels={"a": "b"}, **claimed))
        second = (await get(fake, "pod", "p"))["metadata"]
        assert (second["uid"], second["creationTimestamp"]) == (
            first["uid"],
            first["creationTimestamp"],
        )

    run(scenario())


def test_status_survives_an_apply_and_cannot_be_written_by_one() -> None:
    async def scenario() -> None:
        fake = Fake()
        node = Node(metadata=Metadata(name="n2"), status=NodeStatus(version="9.9", mtu=1400))
        await put(fake, node)
        item = encode_object(node) | {"spec": {"addresses": ["192.0.2.7"]}, "status": {"mtu": 1}}
        assert (await apply(fake, item))["result"]["result"] == "configured"
        found = await get(fake, "node", "n2")
        assert found["status"] == {"version": "9.9", "mtu": 1400}
        assert found["spec"] == {"addresses": ["192.0.2.7"]}
        await apply(fake, pod("p") | {"status": {"node": "elsewhere"}})
        assert "status" not in await get(fake, "pod", "p")

    run(scenario())


def test_labels_not_mentioned_stay_and_empty_ones_remove() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pod("p", labels={"a": "1"}, annotations={"n": "x"}))
        await apply(fake, pod("p"))
        metadata = (await get(fake, "pod", "p"))["metadata"]
        assert (metadata["labels"], metadata["annotations"]) == ({"a": "1"}, {"n": "x"})
        await apply(fake, pod("p", labels={}))
        metadata = (await get(fake, "pod", "p"))["metadata"]
        assert "labels" not in metadata
        assert metadata["annotations"] == {"n": "x"}

    run(scenario())


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"])
def test_pool_that_overlaps_another_is_refused_with_its_name(cidr: str) -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("first", "10.1.0.0/16"))
        answer = await apply(fake, pool("second", cidr))
        assert (answer["reason"], answer["field"]) == ("pool-overlap", "spec.cidr")
        assert "first (10.1.0.0/16)" in answer["message"]
        assert (await apply(fake, pool("second", "10.2.0.0/16")))["result"]["result"] == "created"

    run(scenario())


def test_two_overlapping_pools_applied_at_once_do_not_both_get_in() -> None:
    async def scenario() -> None:
        fake = Fake()
        api = Api(fake)
        callers = [Caller(), Caller()]
        frames = [request("apply", {"object": pool(name, "10.1.0.0/16")}) for name in ("a", "b")]
        await asyncio.gather(
            *(api.handle(caller, frame) for caller, frame in zip(callers, frames, strict=True))
        )
        answers = [caller.values()[0] for caller in callers]
        assert sorted("result" in answer for answer in answers) == [False, True]

    run(scenario())


def test_cidr_of_a_pool_cannot_change() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        answer = await apply(fake, pool("a", "10.0.0.0/17"))
        assert answer["field"] == "spec.cidr"

    run(scenario())


@pytest.mark.parametrize("kind", ["IPBlock", "Attachment", "Event"])
def test_what_agents_write_cannot_be_applied_labelled_or_deleted(kind: str) -> None:
    async def scenario() -> None:
        fake = Fake()
        item = {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}}
        answers = [
            await apply(fake, item),
            await ask(fake, "delete", {"kind": kind, "name": "x"}),
            await ask(fake, "label", {"kind": kind, "name": "x", "set": {"a": "b"}}),
        ]
        assert {answer["reason"] for answer in answers} == {"owned-by-agent"}

    run(scenario())


def test_node_is_neither_created_by_hand_nor_deleted_under_its_agent() -> None:
    async def scenario() -> None:
        fake = Fake()
        item = {"apiVersion": "weft.dev/v1alpha1", "kind": "Node", "metadata": {"name": "ghost"}}
        assert (await apply(fake, item))["reason"] == "owned-by-agent"
        await put(fake, Node(metadata=Metadata(name="node-a")))
        await put(fake, Node(metadata=Metadata(name="node-b")))
        own = await ask(fake, "delete", {"kind": "node", "name": "node-a"})
        other = await ask(fake, "delete", {"kind": "node", "name": "node-b"})
        assert own["reason"] == "owned-by-agent"
        assert other["result"]["result"] == "deleted"

    run(scenario())


def test_pool_in_use_is_kept_and_the_message_says_how_to_drain_it() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        fake.uses("a", 3)
        answer = await ask(fake, "delete", {"kind": "ippool", "name": "a"})
        assert answer["reason"] == "pool-in-use"
        assert "3 of its addresses" in answer["message"]
        assert "disabled: true" in answer["message"]
        forced = await ask(fake, "delete", {"kind": "ippool", "name": "a", "force": True})
        assert forced["result"]["result"] == "deleted"

    run(scenario())


def test_pool_with_blocks_on_another_node_is_kept() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        await put(fake, new_block(parse_prefix("10.0.0.0/26", ""), pool="a", node="node-b"))
        answer = await ask(fake, "delete", {"kind": "ippool", "name": "a"})
        assert answer["reason"] == "pool-in-use"
        assert "node-b" in answer["message"]

    run(scenario())


def test_unused_pool_goes_with_its_own_blocks_in_one_commit() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        await put(fake, new_block(parse_prefix("10.0.0.0/26", ""), pool="a", node="node-a"))
        kept = new_block(parse_prefix("10.9.0.0/26", ""), pool="b", node="node-a")
        await put(fake, kept)
        before = (await fake.store.list("/")).revision
        await ask(fake, "delete", {"kind": "ippool", "name": "a"})
        left = await fake.store.list("/")
        assert [entry.key for entry in left.items] == [object_key(kept)]
        assert left.revision == before + 1

    run(scenario())


def test_pool_with_more_blocks_than_one_commit_holds_goes_too() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/8"))
        for number in range(MAX_CHANGES + 5):
            prefix = prefix_of(4, (10 << 24) + number * 64, 26)
            await put(fake, new_block(prefix, pool="a", node="node-a"))
        answer = await ask(fake, "delete", {"kind": "ippool", "name": "a"})
        assert answer["result"]["result"] == "deleted"
        assert (await fake.store.list("/")).items == ()

    run(scenario())


def test_label_makes_a_pod_that_is_not_known_yet_but_no_pool() -> None:
    async def scenario() -> None:
        fake = Fake()
        named = {"kind": "po", "name": "web", "namespace": "shop"}
        answer = await ask(fake, "label", {**named, "set": {"app": "web"}})
        assert answer["result"]["result"] == "labeled"
        found = await get(fake, "pod", "web", "shop")
        assert found["metadata"]["labels"] == {"app": "web"}
        refused = await ask(fake, "label", {"kind": "ippool", "name": "x", "set": {"a": "b"}})
        assert refused["reason"] == "not-found"
        nothing = await ask(fake, "label", {"kind": "pod", "name": "new", "remove": ["a"]})
        assert nothing["reason"] == "not-found"

    run(scenario())


def test_label_keeps_a_value_unless_told_to_overwrite() -> None:
    async def scenario() -> None:
        fake = Fake()
        named = {"kind": "pod", "name": "web"}
        await ask(fake, "label", {**named, "set": {"app": "web", "x": "1"}})
        refused = await ask(fake, "label", {**named, "set": {"app": "db"}})
        assert refused["reason"] == "label-exists"
        same = await ask(fake, "label", {**named, "set": {"app": "web"}})
        assert same["result"]["result"] == "unchanged"
        await ask(fake, "label", {**named, "set": {"app": "db"}, "overwrite": True})
        gone = await ask(fake, "label", {**named, "remove": ["x"]})
        assert gone["result"]["result"] == "unlabeled"
        assert (await get(fake, "pod", "web"))["metadata"]["labels"] == {"app": "db"}

    run(scenario())


def test_bad_label_is_refused_and_nothing_is_written() -> None:
    async def scenario() -> None:
        fake = Fake()
        answer = await ask(
            fake, "label", {"kind": "pod", "name": "web", "set": {"app": "with space"}}
        )
        assert answer["field"].startswith("metadata.labels")
        assert (await fake.store.list("/")).revision == 0

    run(scenario())


def test_list_narrows_by_namespace_and_selector() -> None:
    async def scenario() -> None:
        fake = Fake()
        for namespace, name, app in (("a", "x", "web"), ("a", "y", "db"), ("b", "z", "web")):
            await apply(fake, pod(name, namespace=namespace, labels={"app": app}))
        selector = {"matchLabels": {"app": "web"}}
        wanted = {
            "all": {"kind": "pods"},
            "a": {"kind": "pods", "namespace": "a"},
            "web": {"kind": "pods", "selector": selector},
            "web in a": {"kind": "pods", "namespace": "a", "selector": selector},
        }
        found = {}
        for word, params in wanted.items():
            items = (await ask(fake, "list", params))["result"]["items"]
            found[word] = [item["metadata"]["name"] for item in items]
        assert found == {
            "all": ["x", "y", "z"],
            "a": ["x", "y"],
            "web": ["x", "z"],
            "web in a": ["x"],
        }

    run(scenario())


def test_namespace_does_not_leak_into_one_that_begins_alike() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pod("x", namespace="shop"))
        await apply(fake, pod("y", namespace="shop-2"))
        items = (await ask(fake, "list", {"kind": "pods", "namespace": "shop"}))["result"]["items"]
        assert [item["metadata"]["name"] for item in items] == ["x"]

    run(scenario())


def test_stored_rubbish_is_reported_and_hides_nothing() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pool("a", "10.0.0.0/16"))
        await fake.store.commit([Change(key="/ippools/broken", value=b"{")])
        listed = (await ask(fake, "list", {"kind": "ippools"}))["result"]
        assert len(listed["items"]) == 1
        assert listed["unreadable"][0].startswith("/ippools/broken: ")
        assert (await apply(fake, pool("b", "10.1.0.0/16")))["result"]["result"] == "created"

    run(scenario())


def test_attachment_is_found_by_link_pod_and_beginning_of_its_container() -> None:
    async def scenario() -> None:
        fake = Fake()
        first = fake.attach("3f2a91ccd0", pod="shop/web-0")
        fake.attach("3f77", pod="shop/web-1", address="10.244.0.6")
        for word in (first.host_link, "3f2a91ccd0", "3f2a", "shop/web-0", str(first.key)):
            found = await get(fake, "attachment", word)
            assert found["spec"]["container"] == "3f2a91ccd0"
            assert found["status"]["mac"] == first.mac.hex(":")
        several = await ask(fake, "get", {"kind": "attachment", "name": "3f"})
        assert several["reason"] == "ambiguous-name"
        none = await ask(fake, "get", {"kind": "attachment", "name": "zz"})
        assert none["reason"] == "not-found"

    run(scenario())


def test_attachments_are_narrowed_by_the_namespace_of_their_pods() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.attach("c1", pod="shop/web")
        fake.attach("c2", address="10.244.0.6")
        everyone = (await ask(fake, "list", {"kind": "att"}))["result"]["items"]
        of_shop = (await ask(fake, "list", {"kind": "att", "namespace": "shop"}))["result"]["items"]
        assert [item["spec"]["container"] for item in everyone] == ["c1", "c2"]
        assert [item["spec"]["container"] for item in of_shop] == ["c1"]

    run(scenario())


def test_events_are_the_newest_oldest_of_them_first() -> None:
    async def scenario() -> None:
        fake = Fake()
        for number in range(5):
            fake.log.event("info", "Counted", "node", f"number {number}")
        fake.log.event("info", "Counted", "node", "number 4")
        items = (await ask(fake, "events", {"limit": 2}))["result"]["items"]
        assert [(each["spec"]["message"], each["spec"].get("count", 1)) for each in items] == [
            ("number 3", 1),
            ("number 4", 2),
        ]

    run(scenario())


def test_stored_form_holds_neither_revision_nor_a_status_of_the_manifest() -> None:
    async def scenario() -> None:
        fake = Fake()
        await apply(fake, pod("p", resourceVersion="77") | {"status": {"node": "x"}})
        entry = await fake.store.get(key_of("Pod", "p", "default"))
        assert entry is not None
        data = msgspec.json.decode(entry.value)
        assert "resourceVersion" not in data["metadata"]
        assert "status" not in data
        assert from_bytes(entry.value, entry.revision).metadata.resource_version == "1"

    run(scenario())
