"""Cloud Foundry's netOutRules: what they mean, and what is refused instead of guessed."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.model.boxes import WORK, Box, disjoint, without
from weft.model.egress import EgressList, Flow, canonical
from weft.model.errors import Invalid
from weft.render import egress as render
from weft.rows.rules import Element, Set
from weft.wire.cni import net_out
from weft.wire.cni.config import Conf, DenyNetworks
from weft.wire.cni.result import Dns

ANYWHERE = [{"start": "0.0.0.0", "end": "255.255.255.255"}]
HTTPS = [{"start": 443, "end": 443}]
small = st.integers(0, 12)


def made(rules: object, conf: Conf | None = None, **metadata: object) -> EgressList:
    found = net_out.egress({"netOutRules": rules}, metadata, conf or Conf())
    assert found is not None
    return found


def told(flows: tuple[Flow, ...]) -> list[tuple[Any, ...]]:
    return [
        (each.protocol, *(str(ipaddress.ip_address(ip)) for ip in (each.first, each.last)),
         each.low, each.high, each.log)
        for each in flows
    ]  # fmt: skip


def test_absent_null_and_empty_are_told_apart() -> None:
    assert net_out.egress({}, {}, Conf()) is None
    assert net_out.egress({"portMappings": None}, {}, Conf()) is None
    assert made(None) == made([]) == EgressList()
    assert EgressList().digest != EgressList(known=False).digest


def test_what_go_leaves_out_is_zero() -> None:
    networks = [{"start": "10.0.0.1", "end": "10.0.0.2"}]
    assert told(made([{"networks": networks}]).flows) == [
        (0, "10.0.0.1", "10.0.0.2", 0, 65535, False)
    ]
    assert told(made([{"protocol": 3, "networks": networks, "icmps": {"code": 1}}]).flows) == [
        (1, "10.0.0.1", "10.0.0.2", 1, 1, False)
    ]
    everything = {"protocol": 1, "networks": networks, "ports": [{"end": 65535}]}
    assert told(made([everything]).flows) == [(6, "10.0.0.1", "10.0.0.2", 0, 65535, False)]


@pytest.mark.parametrize(
    ("kind", "code", "low", "high"),
    [
        (8, 0, 0x800, 0x800),
        (8, 255, 0x800, 0x8FF),
        (8, -1, 0x800, 0x8FF),
        (255, 255, 0, 65535),
        (-1, 0, 0, 65535),
    ],
)
def test_255_is_every_type_or_code(kind: int, code: int, low: int, high: int) -> None:
    rule = {"protocol": 3, "networks": ANYWHERE, "icmps": {"type": kind, "code": code}}
    assert [(each.low, each.high) for each in made([rule]).flows] == [(low, high)]


def test_names_cidrs_and_keys_in_any_case_are_understood() -> None:
    one = {"protocol": "tcp", "networks": ["10.0.0.0/30"], "ports": HTTPS}
    other = {"Protocol": 1, "Networks": [{"Start": "10.0.0.0", "End": "10.0.0.3"}], "Ports": HTTPS}
    assert made([one]) == made([other])
    assert net_out.egress({"NETOUTRULES": [one]}, {}, Conf()) == made([one])


def test_the_order_of_rules_and_repetition_make_no_other_list() -> None:
    first = {"protocol": 1, "networks": ["10.0.0.0/30"], "ports": HTTPS}
    second = {"protocol": 2, "networks": ["10.0.0.4/30"], "ports": HTTPS}
    next_to = {"protocol": 1, "networks": ["10.0.0.4/30"], "ports": HTTPS}
    assert made([first, second]).digest == made([second, first, second]).digest
    assert told(made([first, next_to]).flows) == [(6, "10.0.0.0", "10.0.0.7", 443, 443, False)]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("tcp", "[0]"),
        ({"protocol": 9, "networks": ANYWHERE}, "[0].protocol"),
        ({"protocol": "sctp", "networks": ANYWHERE}, "[0].protocol"),
        ({"protocol": 1, "ports": HTTPS}, "[0].networks"),
        ({"protocol": 1, "networks": [], "ports": HTTPS}, "[0].networks"),
        ({"protocol": 1, "networks": ANYWHERE}, "[0].ports"),
        ({"protocol": 1, "networks": ANYWHERE, "ports": [{"start": 80}]}, "[0].ports[0].end"),
        ({"protocol": 1, "networks": ANYWHERE, "ports": [{"start": 9, "end": 8}]}, "[0].ports[0]"),
        ({"protocol": 1, "networks": ANYWHERE, "ports": [{"end": 65536}]}, "[0].ports[0]"),
        ({"networks": ANYWHERE, "ports": HTTPS}, "[0].ports"),
        ({"networks": ANYWHERE, "icmps": {"code": 0}}, "[0].icmps"),
        ({"protocol": 3, "networks": ANYWHERE}, "[0].icmps"),
        ({"protocol": 3, "networks": ANYWHERE, "icmps": {"type": 8}}, "[0].icmps.code"),
        ({"protocol": 3, "networks": ANYWHERE, "icmps": {"type": 256, "code": 0}}, "[0].icmps"),
        ({"protocol": 4, "networks": ANYWHERE, "icmps": {"code": 0}}, "[0].networks[0]"),
        ({"protocol": 3, "networks": ["::/0"], "icmps": {"code": 0}}, "[0].networks[0]"),
        ({"networks": [{"start": "10.0.0.2", "end": "10.0.0.1"}]}, "[0].networks[0]"),
        ({"networks": [{"start": "10.0.0.2", "end": "::1"}]}, "[0].networks[0]"),
        ({"networks": [{"start": "10.0.0.2"}]}, "[0].networks[0].end"),
        ({"networks": [{"start": "10.0.0.256", "end": "10.0.0.2"}]}, "[0].networks[0].start"),
        ({"networks": ["10.0.0.1/8"]}, "[0].networks[0]"),
        ({"networks": ANYWHERE, "log": "yes"}, "[0].log"),
        ({"networks": ANYWHERE, "direction": "out"}, "[0].'direction'"),
        ({"networks": [{**ANYWHERE[0], "except": "10.0.0.1"}]}, "[0].networks.'except'"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(rule: object, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        made([rule])
    assert caught.value.field == net_out.FIELD + field
    assert caught.value.message.count(field) == 1


def test_denied_networks_are_cut_out_of_every_rule() -> None:
    conf = Conf(deny_networks=DenyNetworks(always=("10.0.0.4/31",), staging=("10.0.0.7/32",)))
    rules = [{"networks": ["10.0.0.0/29"]}]
    assert [each[1:3] for each in told(made(rules, conf).flows)] == [
        ("10.0.0.0", "10.0.0.3"),
        ("10.0.0.6", "10.0.0.7"),
    ]
    staged = made(rules, conf, container_workload="staging")
    assert [each[1:3] for each in told(staged.flows)][1] == ("10.0.0.6", "10.0.0.6")
    with pytest.raises(Invalid, match="deny_networks"):
        net_out.egress({}, {}, conf)
    with pytest.raises(Invalid, match=r"deny_networks.running\[0\]"):
        made(rules, Conf(deny_networks=DenyNetworks(running=("10.0.0.1/8",))))


def test_services_of_the_node() -> None:
    conf = Conf(
        dns=Dns(nameservers=("169.254.0.2", "10.0.0.1")),
        host_tcp_services=("10.0.0.1:80", "[fd00::1]:81"),
    )
    assert told(made([], conf).services) == [
        (6, "10.0.0.1", "10.0.0.1", 80, 80, False),
        (6, "169.254.0.2", "169.254.0.2", 53, 53, False),
        (17, "169.254.0.2", "169.254.0.2", 53, 53, False),
        (6, "fd00::1", "fd00::1", 81, 81, False),
    ]
    for text in (
        "10.0.0.1",
        "10.0.0.1:0",
        "fd00::1:80",
        "host:80",
        "10.0.0.1:８０",
        "[10.0.0.1:80",
    ):
        with pytest.raises(Invalid, match=r"host_udp_services\[0\]"):
            made([], Conf(host_udp_services=(text,)))


def test_metadata_are_labels_as_far_as_labels_can_say_them() -> None:
    found = net_out.labels({"app_id": "a-1", "org_id": 3, "space_id": "no label", "other": "x"})
    assert found == {"cloudfoundry.org/app_id": "a-1"}


def test_rules_that_overlap_endlessly_are_refused_before_they_cost_much() -> None:
    rules = [
        {
            "protocol": 1,
            "networks": [{"start": f"10.0.{n >> 8}.{n & 255}", "end": "10.255.255.255"}],
            "ports": [{"start": n, "end": n}],
        }
        for n in range(2000)
    ]
    with pytest.raises(Invalid, match="overlap in too many ways"):
        made(rules)
    assert WORK < 2000 * 2000


def _covered(boxes: list[Box]) -> Iterator[tuple[int, int]]:
    for box in boxes:
        for at in range(box.first, box.last + 1):
            for port in range(box.low, box.high + 1):
                yield at, port


boxes = st.builds(
    lambda a, b, c, d, log: Box(min(a, b), max(a, b), min(c, d), max(c, d), log),
    small, small, small, small, st.booleans(),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(boxes, max_size=8))
def test_the_union_of_boxes_is_the_same_points_each_once(wanted: list[Box]) -> None:
    found = disjoint(wanted)
    points = list(_covered(found))
    assert len(points) == len(set(points))
    assert set(points) == set(_covered(wanted))
    logged = [box for box in wanted if box.log]
    assert set(_covered([box for box in found if box.log])) == set(_covered(logged))
    assert disjoint(found) == disjoint(wanted[::-1])


@given(small, small, st.lists(st.tuples(small, small).map(sorted).map(tuple), max_size=4))
def test_what_is_left_of_a_range(one: int, other: int, denied: list[tuple[int, int]]) -> None:
    first, last = sorted((one, other))
    left = [n for low, high in without(first, last, denied) for n in range(low, high + 1)]
    gone = {n for low, high in denied for n in range(low, high + 1)}
    assert left == [n for n in range(first, last + 1) if n not in gone]


@pytest.mark.parametrize(
    ("changed", "denied", "words"),
    [
        ({"networks": ANYWHERE * 500, "ports": HTTPS * 500}, 0, "more than 65536 ranges"),
        ({"networks": ["10.0.0.0/8"], "ports": HTTPS * 999}, 200, "more than 65536 ranges"),
        ({"networks": ANYWHERE, "ports": HTTPS}, 300, "deny_networks: more than 256"),
        ({"networks": ANYWHERE, "ports": [{"start": 0, "end": 1 << 70}]}, 0, "ports[0]: 0 to 118"),
        ({"protocol": 1 << 70, "networks": ANYWHERE}, 0, "netOutRules[0].protocol"),
    ],
)
def test_what_would_hold_the_agent_is_refused_at_once(
    changed: dict[str, Any], denied: int, words: str
) -> None:
    conf = Conf(deny_networks=DenyNetworks(always=tuple(f"10.{n}.0.0/24" for n in range(denied))))
    begun = time.process_time()
    with pytest.raises(Invalid) as caught:
        made([{"protocol": 1, **changed}], conf)
    assert words in caught.value.message
    assert time.process_time() - begun < 2


octets = st.sampled_from([bytes((10, 0, 0, n)) for n in range(9)])
flows = st.builds(
    lambda kind, a, b, low, high, log: Flow(
        kind, min(a, b), max(a, b), *((low, high) if kind else (0, 65535)), log
    ),
    st.sampled_from((0, 1, 6, 17)), octets, octets, st.integers(0, 9), st.integers(9, 20),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(flows, max_size=6), st.lists(flows.filter(lambda each: each.protocol), max_size=2))
def test_a_list_is_known_again_from_its_elements(wanted: list[Flow], own: list[Flow]) -> None:
    bare = (Flow(*(getattr(each, name) for name in Flow.__struct_fields__[:-1])) for each in own)
    whole = EgressList(flows=canonical(wanted), services=canonical(bare))
    rows = render.list_rows(whole)
    elements = [row for row in rows if isinstance(row, Element)]
    assert all(render.is_ours(row.name) for row in rows if isinstance(row, Set))
    assert render.lists_of(elements) == ({whole.digest: whole} if elements else {})
    if elements:
        assert whole.digest not in render.lists_of(elements[1:])
