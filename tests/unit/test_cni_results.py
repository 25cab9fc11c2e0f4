"""Results along a chain: reading what an earlier plugin said, and answering for both."""

from __future__ import annotations

import pytest

from weft.model.errors import Invalid
from weft.wire.cni import Dns, Interface, Ip, Result, Route, decode_result, merge

OWN = Result(
    interfaces=(Interface(name="wfhost"), Interface(name="eth0", sandbox="/run/netns/a")),
    ips=(Ip(address="10.244.0.2/32", interface=1), Ip(address="fd00::2/128")),
    routes=(Route(dst="0.0.0.0/0"),),
    dns=Dns(nameservers=("10.0.0.1", "10.0.0.2"), domain="own", search=("b",)),
)
PREV = Result(
    interfaces=(Interface(name="br0"), Interface(name="veth9")),
    ips=(Ip(address="192.0.2.7/24", interface=0),),
    routes=(Route(dst="192.0.2.0/24"),),
    dns=Dns(nameservers=("10.0.0.2",), search=("a",), options=("ndots:2",)),
)


def test_without_a_previous_result_ours_is_the_answer() -> None:
    assert merge(None, OWN) is OWN
    assert merge(Result(), OWN) == OWN


def test_what_came_before_stays_first_and_our_indexes_move() -> None:
    merged = merge(PREV, OWN)
    assert [each.name for each in merged.interfaces] == ["br0", "veth9", "wfhost", "eth0"]
    assert [each.interface for each in merged.ips] == [0, 3, None]
    assert merged.interfaces[3].sandbox == "/run/netns/a"
    assert [each.dst for each in merged.routes] == ["192.0.2.0/24", "0.0.0.0/0"]
    assert merged.dns == Dns(
        nameservers=("10.0.0.2", "10.0.0.1"), domain="own", search=("a", "b"), options=("ndots:2",)
    )


def test_addresses_are_kept_in_canonical_text_with_their_host_bits() -> None:
    result = decode_result(
        {
            "ips": [{"address": "FD00:0::2/064", "gateway": "fd00:0:0::1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": ""}, {"dst": "10.1.2.3/8"}],
        },
        "1.1.0",
    )
    assert result.ips == (Ip(address="fd00::2/64", gateway="fd00::1"),)
    assert result.routes == (Route(dst="0.0.0.0/0"), Route(dst="10.1.2.3/8"))


def test_minus_one_means_no_interface() -> None:
    obj = {"ips": [{"address": "10.0.0.2/24", "interface": -1}]}
    assert decode_result(obj, "0.4.0").ips[0].interface is None


@pytest.mark.parametrize("index", [1, 2, -2, 2**40])
def test_an_index_that_points_nowhere_is_refused(index: int) -> None:
    obj = {"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.2/24", "interface": index}]}
    with pytest.raises(Invalid) as caught:
        decode_result(obj, "1.0.0")
    assert caught.value.field == "prevResult.ips[0].interface"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.2", "10.0.0.2/", "10.0.0.2/33", "fd00::/129", "x/24", "/24", "10.0.0.2/24\n",
     "fe80::1%eth0/64", "10.0.0.2/\u0662", "10.0.0.2/99999999999999999999", "1" * 10**5 + "/8"],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_an_address_that_is_none_is_refused_with_its_place(address: str) -> None:
    for field, obj in {
        "prevResult.ips[0].address": {"ips": [{"address": address}]},
        "prevResult.routes[0].dst": {"routes": [{"dst": address}]},
    }.items():
        with pytest.raises(Invalid) as caught:
            decode_result(obj, "1.0.0")
        assert caught.value.field == field
        assert len(caught.value.message) < 300


def test_a_legacy_result_becomes_addresses_without_interface_and_one_list_of_routes() -> None:
    obj = {
        "cniVersion": "0.2.0",
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]},
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
    }
    assert decode_result(obj, "0.2.0") == Result(
        ips=(Ip(address="10.0.0.2/24", gateway="10.0.0.1"), Ip(address="fd00::2/64")),
        routes=(Route(dst="0.0.0.0/0"), Route(dst="::/0")),
    )


def test_what_a_version_does_not_know_is_not_read_from_it() -> None:
    obj = {
        "interfaces": [{"name": "a", "mtu": 9000, "pciID": "x"}],
        "routes": [{"dst": "::/0", "table": 5}],
    }
    assert decode_result(obj, "1.0.0") == Result(
        interfaces=(Interface(name="a"),), routes=(Route(dst="::/0"),)
    )
    assert decode_result(obj, "1.1.0").interfaces[0].mtu == 9000


def test_a_result_of_absurd_length_is_refused() -> None:
    with pytest.raises(Invalid):
        decode_result({"routes": [{"dst": "::/0"}] * 1025}, "1.1.0")
