"""What annotations of an OCI container ask for, and that a pod's in Kubernetes cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weft.model.errors import Invalid
from weft.model.reasons import cni_code
from weft.wire.cni import Request, parse_request
from weft.wire.cni.annotated import IPS, MAC, OCI_ANNOTATIONS, POD_MARKS, PORTS, runtime_config
from weft.wire.cni.wishes import POD_ANNOTATIONS

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/7/ns/net",
    "CNI_IFNAME": "eth0",
}
CONF = {"cniVersion": "1.1.0", "name": "weft", "type": "weft"}


def ask(annotations: Any, key: str = OCI_ANNOTATIONS, **keys: Any) -> Request:
    stdin = {**CONF, "runtimeConfig": {key: annotations}, **keys}
    return parse_request(ENV, json.dumps(stdin).encode())


def refusal(**annotations: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        ask({f"weft.dev/{name}": value for name, value in annotations.items()})
    assert cni_code(caught.value.reason) == 7
    return caught.value


def test_annotations_are_wishes_like_those_of_a_cni_runtime() -> None:
    asked = ask(
        {
            "weft.dev/network": "weft",
            "weft.dev/ips": "10.0.0.5, fd00::5/64",
            "weft.dev/mac": "0A-58-0a-00-00-05",
            "weft.dev/labels": "app:web,tier=front",
            "kubernetes.io/ingress-bandwidth": "10M",
            "org.opencontainers.image.title": "anything",
        }
    )
    assert asked.hooked
    assert [str(ip) for ip in asked.wishes.ips] == ["10.0.0.5", "fd00::5"]
    assert asked.wishes.mac == "0a:58:0a:00:00:05"
    assert asked.wishes.labels == {"app": "web", "tier": "front"}
    assert asked.wishes.bandwidth.ingress_rate == 10_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", [("tcp", 8080, 80, "")]),
        ("8080:80/udp", [("udp", 8080, 80, "")]),
        ("127.0.0.1:53:53/udp", [("udp", 53, 53, "127.0.0.1")]),
        ("[::1]:53:5353/SCTP", [("sctp", 53, 5353, "::1")]),
        (" 1:2 , 3:4,", [("tcp", 1, 2, ""), ("tcp", 3, 4, "")]),
        ("", []),
    ],
)
def test_ports_are_written_as_people_publish_them(text: str, expected: list[Any]) -> None:
    found = ask({"weft.dev/ports": text}).wishes.ports
    assert [(p.protocol, p.host_port, p.container_port, p.host_ip) for p in found] == expected


@pytest.mark.parametrize(
    "text",
    [
        "80",
        "a:80",
        "80:",
        ":80",
        "80:80/",
        "::1:53:53",
        "[::1:5:5",
        "1:2:3:4",
        "²:1",
        "80:80:",
        "-1:80",
        "9999999999:1",
    ],
)
def test_ports_of_another_form_are_refused_with_the_form(text: str) -> None:
    error = refusal(ports=text)
    assert error.field == "annotation weft.dev/ports"
    assert "[ADDRESS:]HOSTPORT:PORT[/PROTOCOL]" in error.message


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("ports", "70000:80", "annotation weft.dev/ports[0].hostPort"),
        ("ports", "80:0", "annotation weft.dev/ports[0].containerPort"),
        ("ports", "80:80/tls", "annotation weft.dev/ports[0].protocol"),
        ("ports", "1.2.3:80:80", "annotation weft.dev/ports[0].hostIP"),
        ("ips", "10.0.0.300", "annotation weft.dev/ips"),
        ("ips", "10.0.0.1,127.0.0.1", "annotation weft.dev/ips[1]"),
        ("mac", "ff:ff:ff:ff:ff:ff", "annotation weft.dev/mac"),
        ("labels", "a b", "annotation weft.dev/labels"),
        ("network", "blue", "annotation weft.dev/network"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_the_annotations_name(
    name: str, value: str, field: str
) -> None:
    error = refusal(**{name: value})
    assert error.field.startswith(field)
    assert error.message.startswith("annotation weft.dev/")


def test_an_unknown_name_of_ours_is_refused_with_the_nearest() -> None:
    assert "did you mean 'weft.dev/ports'?" in refusal(port="80:80").message
    assert "known are weft.dev/network" in refusal(zzzzzzzzzzzz="80:80").message


def test_annotations_that_are_no_texts_are_refused() -> None:
    for wrong in ("x", 5, ["x"], {"a": 5}):
        with pytest.raises(Invalid) as caught:
            ask(wrong)
        assert cni_code(caught.value.reason) == 6


def test_annotations_of_a_pod_ask_for_no_ports_addresses_or_mac() -> None:
    pod = {"weft.dev/ports": "80:80", "weft.dev/ips": "10.0.0.5", "weft.dev/nonsense": "x"}
    asked = ask(pod, key=POD_ANNOTATIONS)
    assert not asked.hooked
    assert (asked.wishes.ports, asked.wishes.ips, asked.wishes.mac) == ((), (), "")


@pytest.mark.parametrize("mark", POD_MARKS)
@pytest.mark.parametrize("name", [PORTS, IPS, MAC])
def test_annotations_of_a_pod_that_its_runtime_copied_ask_for_none_either(
    mark: str, name: str
) -> None:
    value = {PORTS: "80:80", IPS: "10.0.0.9", MAC: "02:00:00:00:00:09"}[name]
    with pytest.raises(Invalid, match=f"annotation {name}: a pod of Kubernetes"):
        runtime_config({OCI_ANNOTATIONS: {mark: "default", name: value}}, "weft")
    assert runtime_config({OCI_ANNOTATIONS: {mark: "default"}}, "weft") is not None


def test_a_hook_without_annotations_is_known_for_one() -> None:
    asked = ask({})
    assert asked.hooked and asked.wishes.ports == ()
    assert not parse_request(ENV, json.dumps(CONF).encode()).hooked


def test_the_networks_own_keys_count_where_annotations_are_silent() -> None:
    asked = ask({"weft.dev/mac": "0a:00:00:00:00:01"}, ips=["10.0.0.9"], mac="0a:00:00:00:00:02")
    assert [str(ip) for ip in asked.wishes.ips] == ["10.0.0.9"]
    assert asked.wishes.mac == "0a:00:00:00:00:01"
