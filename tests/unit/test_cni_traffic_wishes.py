"""Published ports and bandwidth, from every place and in every spelling."""

from __future__ import annotations

import pytest

from weft.model.bandwidth import Bandwidth, parse_quantity
from weft.model.errors import Invalid
from weft.model.ports import MAX_PORTS, PortMapping
from weft.wire.cni.config import Conf
from weft.wire.cni.traffic_wishes import bandwidth, ports

WEB = PortMapping(host_port=8080, container_port=80)


def published(*mappings: dict[str, object]) -> tuple[PortMapping, ...]:
    return ports({"portMappings": list(mappings)}, {})


@pytest.mark.parametrize(
    "mapping",
    [
        {"hostPort": 8080, "containerPort": 80},
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
        {"hostport": 8080, "CONTAINERPORT": 80, "protocol": "tcp"},
        {"host_port": 8080, "container_port": 80},
        {"hostPort": 8080, "host_port": 1, "containerPort": 80, "protocol": ""},
    ],
)
def test_every_spelling_of_a_mapping_means_the_same(mapping: dict[str, object]) -> None:
    assert published(mapping) == (WEB,)


def test_mesos_says_it_in_its_own_arguments() -> None:
    info = {"port_mappings": [{"host_port": 8080, "container_port": 80, "protocol": "tcp"}]}
    args: dict[str, object] = {"org.apache.mesos": {"network_info": info}}
    assert ports({}, args) == (WEB,)
    runtime: dict[str, object] = {"portMappings": [{"hostPort": 1, "containerPort": 2}]}
    assert ports(runtime, args) == (PortMapping(host_port=1, container_port=2),)


def test_a_port_of_zero_or_none_publishes_nothing() -> None:
    assert published({"hostPort": 0, "containerPort": 80}, {"containerPort": 81}) == ()
    assert ports({}, {}) == ports({"portMappings": None}, {}) == ()


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"hostPort": 65536, "containerPort": 80}, "hostPort"),
        ({"hostPort": -1, "containerPort": 80}, "hostPort"),
        ({"hostPort": 80, "containerPort": 0}, "containerPort"),
        ({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}, "protocol"),
        ({"hostPort": 80, "containerPort": 80, "hostIP": "node-1"}, "hostIP"),
        ({"hostPort": 80, "containerPort": 80, "hostIP": "::ffff:1.2.3.4"}, "hostIP"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_by_its_field(
    mapping: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        published({"hostPort": 1, "containerPort": 1}, mapping)
    assert caught.value.field == f"runtimeConfig.portMappings[1].{field}"


def test_a_wrong_type_is_named() -> None:
    with pytest.raises(Invalid, match="portMappings"):
        published({"hostPort": "80", "containerPort": 80})


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ("", "", True),
        ("", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("0.0.0.0", "::", False),
        ("0.0.0.0", "fd00::1", False),
        ("::", "fd00::1", True),
        ("fd00::1", "FD00:0::1", True),
    ],
)
def test_one_container_asks_for_a_port_once(first: str, second: str, collide: bool) -> None:
    mappings = [{"hostPort": 80, "containerPort": 80, "hostIP": ip} for ip in (first, second)]
    if collide:
        with pytest.raises(Invalid, match="same port"):
            published(*mappings)
    else:
        assert len(published(*mappings)) == 2
    mappings[1]["protocol"] = "udp"
    assert len(published(*mappings)) == 2


def test_the_number_of_ports_is_bounded() -> None:
    with pytest.raises(Invalid, match=str(MAX_PORTS)):
        published(*({"hostPort": n, "containerPort": n} for n in range(1, MAX_PORTS + 2)))


def test_the_first_place_that_limits_is_taken() -> None:
    runtime: dict[str, object] = {"bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2_000}}
    annotations = {"kubernetes.io/egress-bandwidth": "10M"}
    conf = Conf(egress_rate=9_000)
    assert bandwidth(runtime, annotations, conf) == Bandwidth(
        ingress_rate=1_000_000, ingress_burst=2_000
    )
    assert bandwidth({}, annotations, conf) == Bandwidth(egress_rate=10_000_000)
    assert bandwidth({"bandwidth": {}}, {}, conf) == Bandwidth(egress_rate=9_000)
    assert not bandwidth({}, {}, Conf())


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"ingressRate": 10}, "ingressRate"),
        ({"egressRate": -1}, "egressRate"),
        ({"egressRate": 10**16}, "egressRate"),
        ({"egressBurst": 100}, "egressRate"),
        ({"ingressRate": 9_000, "ingressBurst": -1}, "ingressBurst"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(limits: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        bandwidth({"bandwidth": limits}, {}, Conf())
    assert caught.value.field == f"runtimeConfig.bandwidth.{field}"


@pytest.mark.parametrize(
    ("text", "value"),
    [("10M", 10**7), ("1Gi", 2**30), ("2.5e6", 2_500_000), ("1500m", 2), ("0", 0), ("1k", 1000)],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: int) -> None:
    assert parse_quantity(text, "x") == value


@pytest.mark.parametrize("text", ["", "M", "-1", "1 M", "1MB", "0x10", "1e", "1e-3", "1\n"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="quantity"):
        parse_quantity(text, "annotation")
