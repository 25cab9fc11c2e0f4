"""Who wins when a container asks for something in several places, and what nobody may ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weft.model.attachment import PodRef
from weft.model.errors import Invalid
from weft.model.reasons import cni_code
from weft.wire.cni import Request, Wishes, parse_request

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}
HEAD = {"cniVersion": "1.1.0", "name": "net"}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


def ask(cni_args: str = "", **keys: Any) -> Request:
    env = {**ENV, "CNI_ARGS": cni_args} if cni_args else ENV
    return parse_request(env, json.dumps({**HEAD, **keys}).encode())


def wishes(cni_args: str = "", **keys: Any) -> Wishes:
    return ask(cni_args, **keys).wishes


def refusal(cni_args: str = "", **keys: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        ask(cni_args, **keys)
    return caught.value


def places(name: str, texts: list[str]) -> list[dict[str, Any]]:
    """The same wish in the four places, the strongest first."""
    many = name == "ips"
    values: list[Any] = [[text] if many else text for text in texts]
    variable = "IP" if many else "MAC"
    return [
        {"runtimeConfig": {name: values[0]}},
        {"args": {"cni": {name: values[1]}}},
        {"cni_args": f"{variable}={texts[2]}"},
        {name: values[3]},
    ]


@pytest.mark.parametrize("first", range(4))
def test_the_same_place_wins_for_addresses(first: int) -> None:
    texts = [f"10.0.0.{n}" for n in range(1, 5)]
    keys = {k: v for place in places("ips", texts)[first:] for k, v in place.items()}
    assert [str(ip) for ip in wishes(**keys).ips] == [texts[first]]


@pytest.mark.parametrize("first", range(4))
def test_the_same_place_wins_for_the_mac(first: int) -> None:
    texts = [f"0a:00:00:00:00:0{n}" for n in range(1, 5)]
    keys = {k: v for place in places("mac", texts)[first:] for k, v in place.items()}
    assert wishes(**keys).mac == texts[first]


@pytest.mark.parametrize("first", range(4))
def test_the_same_place_wins_for_each_label(first: int) -> None:
    sources: list[dict[str, Any]] = [
        {"runtimeConfig": {ANNOTATIONS: {"weft.dev/labels": "a=1,only1=x"}}},
        {"args": {"cni": {"labels": [{"key": "a", "value": "2"}, {"key": "only2", "value": "x"}]}}},
        {"cni_args": "WEFT_LABELS=a:3,only3:x"},
        {"labels": {"a": "4", "only4": "x"}},
    ]
    keys = {k: v for source in sources[first:] for k, v in source.items()}
    expected = {"a": str(first + 1)} | {f"only{n}": "x" for n in range(first + 1, 5)}
    assert wishes(**keys).labels == expected


def test_labels_of_mesos_are_labels_below_those_of_args_cni() -> None:
    listed = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "c"}]
    mesos = {"network_info": {"name": "net", "labels": {"labels": listed}}}
    args = {"org.apache.mesos": mesos, "cni": {"labels": [{"key": "b", "value": "3"}]}}
    assert wishes(args=args, labels={"a": "9"}).labels == {"a": "1", "b": "3", "c": ""}
    assert wishes(args={"org.apache.mesos": {"network_info": {}}}).labels == {}
    listed[0]["key"] = "not a key"
    error = refusal(args=args)
    assert cni_code(error.reason) == 7
    assert "args.org.apache.mesos.network_info.labels" in error.message


def test_a_place_that_lost_is_not_even_read() -> None:
    found = wishes("IP=nonsense", runtimeConfig={"ips": ["10.0.0.1"]}, ips=["worse"])
    assert [str(ip) for ip in found.ips] == ["10.0.0.1"]


def test_each_family_is_a_wish_of_its_own() -> None:
    found = wishes("IP=10.0.0.3,fd00::3", runtimeConfig={"ips": ["fd00::1"]}, ips=["10.0.0.9"])
    assert [str(ip) for ip in found.ips] == ["fd00::1", "10.0.0.3"]
    error = refusal("IP=10.0.0.999", runtimeConfig={"ips": ["fd00::1"]})
    assert cni_code(error.reason) == 4


def test_an_empty_wish_is_none() -> None:
    found = wishes("IP=10.0.0.3", runtimeConfig={"ips": [], "mac": ""}, args={"cni": {"ips": []}})
    assert [str(ip) for ip in found.ips] == ["10.0.0.3"]
    assert wishes() == Wishes()


def test_addresses_come_with_or_without_prefix_and_in_both_families() -> None:
    found = wishes(runtimeConfig={"ips": ["10.1.2.3", "fd00::5/64"]})
    assert [str(ip) for ip in found.ips] == ["10.1.2.3", "fd00::5"]
    assert [str(ip) for ip in wishes("IP=10.1.2.3/24,fd00::6").ips] == ["10.1.2.3", "fd00::6"]


BAD_ADDRESSES = [
    "gateway", "10.0.0.1/0", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/-1", "10.0.0.1/\u0661", "10.0.0",
    "010.0.0.1", "10.0.0.256", "10.0.0.1\n", "224.0.0.1", "0.0.0.0", "0.1.2.3", "127.0.0.1",
    "169.254.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "fe80::1",
    "fe80::1%eth0", "::ffff:10.0.0.1", "fd00::1/0", "fd00::1/129", "fd00::1/0064", "10.0.0.1/24/24",
    "1" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_ADDRESSES, ids=lambda text: ascii(text[:20]))
def test_an_address_that_no_container_can_have_is_refused(text: str) -> None:
    error = refusal(runtimeConfig={"ips": [text]})
    assert (error.field, cni_code(error.reason)) == ("runtimeConfig.ips", 7)
    assert len(error.message) < 300
    error = refusal(f"IP={text}")
    assert (error.field, cni_code(error.reason)) == ("CNI_ARGS IP", 4)


def test_the_bad_one_of_several_addresses_is_named() -> None:
    assert refusal(args={"cni": {"ips": ["10.0.0.1", "x"]}}).field == "args.cni.ips[1]"
    assert cni_code(refusal(ips=["10.0.0.1", "10.0.0.1/24"]).reason) == 7
    assert cni_code(refusal(ips=[f"10.0.0.{n}" for n in range(17)]).reason) == 7


@pytest.mark.parametrize("text", ["0A:58:0a:F4:00:02", "0a-58-0a-f4-00-02"])
def test_a_hardware_address_is_kept_in_one_spelling(text: str) -> None:
    assert wishes(f"MAC={text}").mac == "0a:58:0a:f4:00:02"


@pytest.mark.parametrize(
    "text",
    ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "00:00:00:00:00:00", "0a:58",
     "0a:58:0a:f4:00:02:03", "0a58.0af4.0002", "0a:58-0a:f4:00:02", "0a:58:0a:f4:00:0g",
     "0a:58:0a:f4:00:02\n", "\u0660a:58:0a:f4:00:02"],
    ids=ascii,
)  # fmt: skip
def test_a_hardware_address_that_is_no_unicast_one_is_refused(text: str) -> None:
    assert cni_code(refusal(f"MAC={text}").reason) == 4
    assert refusal(runtimeConfig={"mac": text}).field == "runtimeConfig.mac"


def test_kubernetes_names_the_pod() -> None:
    found = wishes(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;"
        "K8S_POD_INFRA_CONTAINER_ID=f00;K8S_POD_UID=6d2f-11"
    )
    assert found.pod == PodRef(namespace="prod", name="web-0", uid="6d2f-11")


def test_a_runtime_may_name_a_container_only() -> None:
    assert wishes("IgnoreUnknown=1;K8S_POD_NAME=My_Container").pod == PodRef(name="My_Container")


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ("K8S_POD_NAMESPACE=Prod", "CNI_ARGS K8S_POD_NAMESPACE"),
        ("K8S_POD_NAMESPACE=a/b", "CNI_ARGS K8S_POD_NAMESPACE"),
        (f"K8S_POD_NAMESPACE={'a' * 64}", "CNI_ARGS K8S_POD_NAMESPACE"),
        ("K8S_POD_NAME=../x", "CNI_ARGS K8S_POD_NAME"),
        ("K8S_POD_NAME=a\n", "CNI_ARGS K8S_POD_NAME"),
        (f"K8S_POD_NAME={'a' * 254}", "CNI_ARGS K8S_POD_NAME"),
        ("K8S_POD_UID=a b", "CNI_ARGS K8S_POD_UID"),
    ],
)
def test_a_pod_name_that_is_none_is_refused(args: str, field: str) -> None:
    error = refusal(args)
    assert (error.field, cni_code(error.reason)) == (field, 4)


def test_a_label_cannot_pose_as_what_the_runtime_said_of_the_pod() -> None:
    found = wishes(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=mine;K8S_POD_NAME=a;"
        "WEFT_LABELS=io.kubernetes.pod.namespace:other,kubernetes.io/metadata.name:other"
    )
    assert found.pod.namespace == "mine"
    assert found.labels["io.kubernetes.pod.namespace"] == "other"


@pytest.mark.parametrize(
    "labels", ["a", "a:b:c", ":v", "a b:c", "-a:b", "a/b/c:d", "a:-", f"a:{'x' * 64}", "a:\u0661"]
)
def test_labels_obey_the_rules_of_kubernetes(labels: str) -> None:
    error = refusal(f"WEFT_LABELS={labels}")
    assert cni_code(error.reason) == 4
    assert "WEFT_LABELS" in error.message
    annotated = refusal(runtimeConfig={ANNOTATIONS: {"weft.dev/labels": labels}})
    assert cni_code(annotated.reason) == 7


def test_labels_may_be_empty_and_spaced() -> None:
    annotated = {ANNOTATIONS: {"weft.dev/labels": " app = web , tier= ,"}}
    assert wishes(runtimeConfig=annotated).labels == {"app": "web", "tier": ""}
    listed = [{"key": "example.com/a", "value": ""}, {"Key": "b"}]
    assert wishes(args={"cni": {"labels": listed}}).labels == {"example.com/a": "", "b": ""}


def test_too_many_labels_are_refused() -> None:
    listed = [{"key": f"k{n}", "value": "v"} for n in range(257)]
    assert cni_code(refusal(args={"cni": {"labels": listed}}).reason) == 7


def test_annotations_pass_as_they_are_up_to_their_bound() -> None:
    annotations = {"Some/Key": "any \u2028 text", "some/key": "another"}
    assert wishes(runtimeConfig={ANNOTATIONS: annotations}).annotations == annotations
    assert cni_code(refusal(runtimeConfig={ANNOTATIONS: {"a": "x" * 262_144}}).reason) == 7
    assert cni_code(refusal(runtimeConfig={ANNOTATIONS: {"a": 1}}).reason) == 6
