"""Objects: decoding with messages that help, encoding, keys, and the rules of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from weft.model.errors import Invalid
from weft.model.ip_block import IPBlock, block_name, new_block
from weft.model.ip_pool import IPPool, block_length, check_pool_change, overlaps
from weft.model.kinds import (
    KINDS,
    decode_object,
    encode_object,
    find_kind,
    from_bytes,
    key_of,
    object_key,
    prefix_of_kind,
    to_bytes,
)
from weft.model.manifests import read_manifests
from weft.model.node import Condition, Node, NodeStatus, is_ready

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def manifest(kind: str = "IPPool", **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "it"},
    }
    return base | changes


def pool(**spec: Any) -> IPPool:
    decoded = decode_object(manifest(spec={"cidr": "10.1.0.0/16"} | spec))
    assert isinstance(decoded, IPPool)
    return decoded


def test_object_survives_the_store_and_gets_its_revision() -> None:
    before = pool(excludes=["10.1.0.5"], nodeSelector={}, reservations={"10.1.0.9": "a/b"})
    after = from_bytes(to_bytes(before), 7)
    assert after.metadata.resource_version == "7"
    assert to_bytes(after) == to_bytes(before)
    assert decode_object(encode_object(before)) == before


def test_absent_and_empty_selectors_stay_apart() -> None:
    both = pool(nodeSelector={})
    assert both.spec.node_selector is not None
    assert both.spec.namespace_selector is None
    spec = encode_object(both)["spec"]
    assert spec["nodeSelector"] == {}
    assert "namespaceSelector" not in spec
    assert pool(nodeSelector=None).spec.node_selector is None


INVALID = [
    (manifest(sepc={}), "sepc", "did you mean 'spec'?"),
    (manifest(spec={"cidr": "10.1.0.0/16", "blocksize": 26}), "spec.blocksize", "'blockSize'"),
    (manifest(), "spec", "missing"),
    (manifest(spec={}), "spec.cidr", "missing"),
    (manifest(spec=None), "spec", "null"),
    (manifest(spec={"cidr": 5}), "spec.cidr", "expected str, got int"),
    (manifest(kind="IPPol"), "kind", "did you mean 'IPPool'?"),
    (manifest(kind=5), "kind", "known are IPPool"),
    (manifest(apiVersion="v1"), "apiVersion", "weft.dev/v1alpha1"),
    (manifest(metadata={"name": "A"}), "metadata.name", "lower-case"),
    (manifest(metadata={"name": "a" * 254}), "metadata.name", "253"),
    (manifest(metadata={"name": "a\n"}), "metadata.name", "not a name"),
    (manifest(metadata={"name": "a", "lables": {}}), "metadata.lables", "'labels'"),
    (manifest("Pod", metadata={"name": "a", "namespace": "b.c"}), "metadata.namespace", "b.c"),
    (manifest("Namespace", metadata={"name": "b.c"}), "metadata.name", "b.c"),
    (
        manifest("Pod", metadata={"name": "a", "labels": {"-x": ""}}),
        "metadata.labels",
        "label key",
    ),
    (
        manifest("Pod", metadata={"name": "a", "labels": {"x": "a b"}}),
        "metadata.labels.x",
        "label value",
    ),
    (
        manifest("Pod", metadata={"name": "a", "labels": {"x": 5}}),
        "metadata.labels[...]",
        "expected str, got int",
    ),
    (
        manifest("Pod", metadata={"name": "a", "annotations": {"x": "y" * 300_000}}),
        "metadata.annotations",
        "at most",
    ),
    (manifest("Node", spec={"addresses": ["10.0.0.1", "10.0.0.1"]}), "spec.addresses[1]", "twice"),
]


@pytest.mark.parametrize(("data", "field", "says"), INVALID)
def test_what_is_wrong_with_an_object_is_named(data: dict[str, Any], field: str, says: str) -> None:
    if data["kind"] == "IPPool" and data["metadata"] != {"name": "it"}:
        data = data | {"spec": {"cidr": "10.1.0.0/16"}}
    with pytest.raises(Invalid) as caught:
        decode_object(data)
    assert caught.value.field == field
    assert says in caught.value.message


def test_a_namespace_is_refused_where_the_kind_has_none() -> None:
    data = manifest(spec={"cidr": "10.1.0.0/16"}, metadata={"name": "a", "namespace": "b"})
    with pytest.raises(Invalid, match="whole cluster"):
        decode_object(data)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"cidr": "10.1.0.1/16"}, "spec.cidr"),
        ({"cidr": "10.1.0.0"}, "spec.cidr"),
        ({"cidr": "10.1.0.0/255.255.0.0"}, "spec.cidr"),
        ({"cidr": "10.1.0.0/33"}, "spec.cidr"),
        ({"cidr": "10.1.0.0/\u0661\u0666"}, "spec.cidr"),
        ({"cidr": "fe80::/64"}, "spec.cidr"),
        ({"cidr": "::ffff:10.0.0.0/104"}, "spec.cidr"),
        ({"cidr": "0.0.0.0/0"}, "spec.cidr"),
        ({"cidr": "127.0.0.0/16"}, "spec.cidr"),
        ({"cidr": "224.0.0.0/8"}, "spec.cidr"),
        ({"cidr": "10.1.0.0/16", "blockSize": 15}, "spec.blockSize"),
        ({"cidr": "10.0.0.0/8", "blockSize": 15}, "spec.blockSize"),
        ({"cidr": "10.1.0.0/16", "blockSize": 33}, "spec.blockSize"),
        ({"cidr": "fd00::/48", "blockSize": 111}, "spec.blockSize"),
        ({"cidr": "10.1.0.0/16", "excludes": ["10.2.0.1"]}, "spec.excludes[0]"),
        ({"cidr": "10.1.0.0/16", "excludes": ["10.1.0.1", "fd00::1"]}, "spec.excludes[1]"),
        ({"cidr": "10.1.0.0/16", "excludes": ["10.1.0.9-10.1.0.8"]}, "spec.excludes[0]"),
        ({"cidr": "10.1.0.0/16", "excludes": ["10.1.0.9-fd00::"]}, "spec.excludes[0]"),
        ({"cidr": "10.1.0.0/16", "excludes": ["10.0.0.0/8"]}, "spec.excludes[0]"),
        (
            {"cidr": "10.1.0.0/16", "reservations": {"10.2.0.1": "a/b"}},
            "spec.reservations.10.2.0.1",
        ),
        ({"cidr": "fd00::/64", "reservations": {"fd00::1": "a", "fd00:0::1": "b"}}, None),
        ({"cidr": "10.1.0.0/16", "gateway": "10.2.0.1"}, "spec.gateway"),
        ({"cidr": "10.1.0.0/16", "gateway": "10.1.0.1-10.1.0.2"}, "spec.gateway"),
        (
            {"cidr": "10.1.0.0/16", "nodeSelector": {"matchExpressions": [{"key": "a"}]}},
            "spec.nodeSelector.matchExpressions[0].operator",
        ),
        (
            {
                "cidr": "10.1.0.0/16",
                "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
            },
            "spec.nodeSelector.matchExpressions[0].values",
        ),
        (
            {
                "cidr": "10.1.0.0/16",
                "namespaceSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
                },
            },
            "spec.namespaceSelector.matchExpressions[0].values",
        ),
    ],
)
def test_bad_pools_are_refused_at_the_field(spec: dict[str, Any], field: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        decode_object(manifest(spec=spec))
    assert field is None or caught.value.field == field


@pytest.mark.parametrize("cidr", ["10.1.0.0/31", "10.1.0.7/32", "fd00::2/127", "fd00::9/128"])
def test_the_smallest_pools_are_valid_and_their_block_is_the_pool(cidr: str) -> None:
    assert block_length(pool(cidr=cidr)) == ip_network(cidr).prefixlen


def test_block_sizes_have_the_defaults_of_their_family() -> None:
    assert [block_length(pool(cidr=cidr)) for cidr in ("10.0.0.0/8", "fd00::/48")] == [26, 122]
    assert block_length(pool(cidr="10.0.0.0/28")) == 28


def test_overlapping_pools_are_found() -> None:
    def named(name: str, cidr: str) -> IPPool:
        decoded = decode_object(manifest(metadata={"name": name}, spec={"cidr": cidr}))
        assert isinstance(decoded, IPPool)
        return decoded

    pools = [
        named("c", "10.1.2.0/24"),
        named("a", "10.1.0.0/16"),
        named("six", "fd00::/48"),
        named("apart", "10.2.0.0/16"),
        named("d", "10.1.3.0/24"),
        named("same", "10.2.0.0/16"),
    ]
    assert sorted(overlaps(pools)) == [("a", "c"), ("a", "d"), ("apart", "same")]


def test_range_and_block_size_cannot_change_but_the_rest_can() -> None:
    check_pool_change(pool(), pool(blockSize=26, disabled=True, excludes=["10.1.0.1"]))
    for field, change in (
        ("spec.cidr", {"cidr": "10.2.0.0/16"}),
        ("spec.blockSize", {"blockSize": 27}),
    ):
        with pytest.raises(Invalid) as caught:
            KINDS["IPPool"].check_change(pool(), pool(**change))
        assert caught.value.field == field


def test_a_block_is_named_by_its_range() -> None:
    block = new_block(ip_network("fd00:10::40/122"), pool="p", node="n")
    assert block.metadata.name == "fd00-10-0-0-0-0-0-40-122"
    assert isinstance(decode_object(encode_object(block)), IPBlock)
    assert block_name(ip_network("10.0.0.64/26")) == "10-0-0-64-26"
    data = encode_object(block) | {"metadata": {"name": "mine"}}
    with pytest.raises(Invalid, match="is called"):
        decode_object(data)


def test_kinds_are_found_by_any_of_their_names() -> None:
    for word in ("IPPool", "ippools", "POOL", "ippool"):
        assert find_kind(word).kind == "IPPool"
    with pytest.raises(Invalid, match="did you mean 'ippools'") as caught:
        find_kind("ippoools")
    assert caught.value.reason == "unknown-kind"


def test_no_two_kinds_share_a_name() -> None:
    names = [
        name for kind in KINDS.values() for name in {kind.kind.lower(), kind.plural, *kind.short}
    ]
    assert len(names) == len(set(names))


def test_keys_are_paths_below_the_plural() -> None:
    pod = decode_object(manifest("Pod"))
    assert object_key(pod) == key_of("Pod", "it", "default") == "/pods/default/it"
    assert object_key(pool()) == "/ippools/it"
    assert object_key(pod).startswith(prefix_of_kind("Pod", "default"))
    assert prefix_of_kind("IPPool") == "/ippools/"


def objects() -> Iterator[Any]:
    condition = Condition(type="Ready", status="True")
    yield pool(nodeSelector={"matchExpressions": [{"key": "a", "operator": "Exists"}]})
    yield new_block(ip_network("10.0.0.0/26"), pool="p", node="n")
    yield Node(
        metadata=pool().metadata, status=NodeStatus(families=("IPv4",), conditions=(condition,))
    )
    yield Node(metadata=pool().metadata)
    yield decode_object(manifest("Pod", status={"addresses": ["10.0.0.1"], "node": "n"}))
    yield decode_object(manifest("Pod", metadata={"name": "a", "labels": {"app": "web"}}))
    yield decode_object(manifest("Namespace"))


@pytest.mark.parametrize("item", list(objects()))
def test_every_column_of_every_kind_has_a_text(item: Any) -> None:
    kind = KINDS[item.kind]
    for _, accessor in (*kind.columns, *kind.wide):
        text = accessor(item)
        assert isinstance(text, str) and text


def test_readiness_is_unknown_until_the_agent_has_spoken() -> None:
    node = Node(metadata=pool().metadata)
    assert is_ready(node) == "Unknown"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*pool*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    found = [decode_object(data) for data in read_manifests(path.read_bytes())]
    assert any(isinstance(each, IPPool) for each in found)
    assert overlaps([each for each in found if isinstance(each, IPPool)]) == []
