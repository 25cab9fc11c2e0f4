"""What each verb needs of the network configuration, and what it passes over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weft.model.attachment import AttachmentKey
from weft.model.errors import Invalid
from weft.model.reasons import cni_code
from weft.wire.cni import Dns, Interface, Ip, Request, Result, Unreadable, parse_request

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}
HEAD = {"cniVersion": "1.1.0", "name": "net", "type": "weft"}
SECOND = {"interfaces": [{"name": "br0"}], "ips": [{"address": "10.0.0.2/24", "interface": 0}]}


def parse(command: str = "ADD", **keys: Any) -> Request:
    conf = {**HEAD, **keys}
    return parse_request({**ENV, "CNI_COMMAND": command}, json.dumps(conf).encode())


def raw(stdin: bytes, command: str = "ADD") -> Request:
    return parse_request({**ENV, "CNI_COMMAND": command}, stdin)


def refusal(command: str = "ADD", **keys: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse(command, **keys)
    return caught.value


def raw_refusal(stdin: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        raw(stdin)
    return caught.value


def test_a_request_knows_its_attachment() -> None:
    assert parse().key == AttachmentKey("net", "c1", "eth0")


def test_keys_count_in_any_case() -> None:
    request = raw(
        b'{"CNIVERSION":"1.1.0","NAME":"net","Mtu":1400,"IPMASQ":true,'
        b'"RuntimeConfig":{"IPS":["10.0.0.9"]},"DNS":{"NameServers":["1.1.1.1"]}}'
    )
    assert request.conf.mtu == 1400
    assert request.conf.ip_masq is True
    assert request.conf.dns == Dns(nameservers=("1.1.1.1",))
    assert [str(ip) for ip in request.wishes.ips] == ["10.0.0.9"]


def test_case_folds_as_in_go() -> None:
    assert raw('{"cniVer\u017fion":"1.0.0","name":"net"}'.encode()).spec_version == "1.0.0"


@pytest.mark.parametrize(
    ("text", "mtu"),
    [
        (b'"mtu":1400,"mtu":1500', 1500),
        (b'"mtu":1400,"MTU":1500', 1500),
        (b'"mtu":1300,"MTU":1400,"mtu":1500', 1500),
        (b'"mtu":1400,"MTU":null', None),
    ],
)
def test_the_last_of_duplicate_keys_counts(text: bytes, mtu: int | None) -> None:
    assert raw(b'{"name":"net",' + text + b"}").conf.mtu == mtu


def test_null_is_absent() -> None:
    request = parse(mtu=None, ipMasq=None, prevResult=None, ipam=None, runtimeConfig=None)
    assert (request.conf.mtu, request.conf.ip_masq, request.prev_result) == (None, None, None)


def test_unknown_keys_and_capabilities_are_passed_over() -> None:
    request = parse(capabilities={"ips": "nonsense"}, bandWidth=[{"deep": [1]}], args={"org": 1})
    assert request.conf == parse().conf


def test_absent_and_false_masquerade_are_told_apart() -> None:
    assert parse().conf.ip_masq is None
    assert parse(ipMasq=False).conf.ip_masq is False


@pytest.mark.parametrize(
    "stdin",
    [
        b"", b" \n", b"{", b"[]", b"null", b'"x"', b"7", b'{"name":"net"', b'{"name":"net"}{}',
        b'{"name":"net","mtu":NaN}', b'{"name":"net","mtu":Infinity}', b'{"name":"net","x":-NaN}',
        b'\xef\xbb\xbf{"name":"net"}', '{"name":"net"}'.encode("utf-16"),
        '{"name":"net"}'.encode("utf-16-le"), '{"name":"net"}'.encode("utf-32-be"),
        b'{"name":"\xff"}', b'{"name":"a\x00"}', b'{"name":"\\ud800"}',
        b'{"name":"net","x":' + b"1" * 10**6 + b"}", b'{"name":7}', b'{"cniVersion":1.0}',
        b'{"name":"net","mtu":"1500"}', b'{"name":"net","mtu":1.5}', b'{"name":"net","ipMasq":1}',
        b'{"name":"net","ipam":[]}', b'{"name":"net","runtimeConfig":[]}',
        b'{"name":"net","args":"x"}', b'{"name":"net","args":{"cni":[]}}',
        b'{"name":"net","prevResult":[]}', b'{"name":"net","dns":{"search":"x"}}',
    ],
)  # fmt: skip
def test_what_is_not_json_of_the_shape_is_a_decode_failure(stdin: bytes) -> None:
    error = raw_refusal(stdin)
    assert cni_code(error.reason) == 6
    assert error.message.startswith("error unmarshall network config: ")
    assert len(error.message) < 300


def test_a_wrong_type_is_named_with_its_path() -> None:
    assert refusal(dns={"search": [1]}).field == "dns.search[0]"
    assert refusal(runtimeConfig={"ips": "x"}).field == "runtimeConfig.ips"
    assert refusal(prevResult={"ips": [{"address": 1}]}).field == "prevResult.ips[0].address"


def test_deep_nesting_is_refused_before_it_is_decoded() -> None:
    assert raw(b'{"name":"net","x":' + b"[" * 63 + b"]" * 63 + b"}").network == "net"
    for levels in (64, 65, 1000, 100_000):
        error = raw_refusal(b'{"name":"net","x":' + b"[" * levels + b"]" * levels + b"}")
        assert "64 levels" in error.message
    assert "64 levels" in raw_refusal(b'{"name":' + b'{"a":' * 100_000).message


def test_brackets_within_strings_do_not_nest() -> None:
    assert raw(b'{"name":"net","x":"' + b"[{" * 500 + b'\\"[[\\\\"}').network == "net"
    wide = b'{"name":"net","x":[' + b",".join([b'{"a":[]}'] * 1000) + b"]}"
    assert raw(wide).network == "net"


def test_too_many_keys_are_refused() -> None:
    def conf(count: int) -> bytes:
        return json.dumps({"name": "net", **{f"k{n}": n for n in range(count - 1)}}).encode()

    assert raw(conf(1024)).network == "net"
    assert "1024 keys" in raw_refusal(conf(1025)).message


def test_more_than_the_bound_is_an_input_failure() -> None:
    exactly = b'{"name":"net"' + b" " * (2**20 - 14) + b"}"
    assert raw(exactly).network == "net"
    assert cni_code(raw_refusal(exactly + b" ").reason) == 5


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_every_verb_needs_a_network_name(command: str) -> None:
    for name in (None, ""):
        error = refusal(command, name=name)
        assert (error.message, cni_code(error.reason)) == ("missing network name", 7)
    for name in ("a/b", "..", "-a", "a\n", "a b", "\u0661", "a\u202e"):
        error = refusal(command, name=name)
        assert (error.field, cni_code(error.reason)) == ("name", 7)


@pytest.mark.parametrize("ipam", [{}, {"type": "weft"}, {"type": ""}, {"type": None}, {"x": 1}])
def test_our_own_address_management_may_be_named(ipam: object) -> None:
    assert parse(ipam=ipam).network == "net"


def test_another_address_management_is_an_unsupported_field() -> None:
    error = refusal(ipam={"type": "host-local"})
    assert cni_code(error.reason) == 2
    assert "ipam.type" in error.message
    assert "host-local" in error.message


@pytest.mark.parametrize("name", ["../../bin/x", "a/b", "a\\b", "..", ".", "-x", "a\0b", "/x"])
def test_a_type_that_is_no_file_name_is_refused(name: str) -> None:
    assert cni_code(refusal(type=name).reason) == 7


@pytest.mark.parametrize("mtu", [1, 575, 65536, -1, -1500, 2**62])
def test_an_impossible_mtu_is_refused(mtu: int) -> None:
    error = refusal(mtu=mtu)
    assert (error.field, cni_code(error.reason)) == ("mtu", 7)


def test_pools_absent_and_empty_differ() -> None:
    assert parse().conf.pools is None
    assert parse(pools=["a", "b.c"]).conf.pools == ("a", "b.c")
    assert cni_code(refusal(pools=[]).reason) == 7
    assert refusal(pools=["a", "B!"]).field == "pools[1]"


def test_check_requires_the_result_of_add() -> None:
    error = refusal("CHECK")
    assert error.message == "required prevResult missing"
    assert cni_code(error.reason) == 7
    assert parse("CHECK", prevResult={}).prev_result == Result()


def test_a_previous_result_is_normalised() -> None:
    assert parse(prevResult=SECOND).prev_result == Result(
        interfaces=(Interface(name="br0"),), ips=(Ip(address="10.0.0.2/24", interface=0),)
    )


@pytest.mark.parametrize(
    "previous",
    [7, "x", {"ips": 7}, {"ips": [{"address": "x"}]}, {"cniVersion": "7.0.0"}, {"cniVersion": 1},
     {"ips": [{"address": "10.0.0.2/24", "interface": 3}]}, {"ips": [{}]}],
)  # fmt: skip
def test_only_delete_goes_on_with_an_unreadable_previous_result(previous: object) -> None:
    assert isinstance(parse("DEL", prevResult=previous).prev_result, Unreadable)
    assert cni_code(refusal("ADD", prevResult=previous).reason) in {1, 6, 7}
    assert cni_code(refusal("CHECK", prevResult=previous).reason) in {1, 6, 7}


def test_delete_tells_absent_from_empty_previous_results() -> None:
    assert parse("DEL").prev_result is None
    assert parse("DEL", prevResult=None).prev_result is None
    assert parse("DEL", prevResult={}).prev_result == Result()
    assert parse("DEL", prevResult=SECOND).prev_result == parse(prevResult=SECOND).prev_result


def test_delete_is_not_held_up_by_what_add_refuses() -> None:
    request = parse(
        "DEL", ipam={"type": "dhcp"}, mtu="x", pools=[], type="../x", runtimeConfig=7, args=[]
    )
    assert request.key == AttachmentKey("net", "c1", "eth0")


def test_garbage_collection_without_a_list_removes_nothing() -> None:
    error = refusal("GC")
    assert cni_code(error.reason) == 7
    assert "cni.dev/valid-attachments" in error.message


@pytest.mark.parametrize(
    "keys", [("cni.dev/valid-attachments",), ("cni.dev/attachments",),
             ("CNI.dev/valid-attachments", "cni.dev/attachments")],
)  # fmt: skip
def test_a_list_that_is_null_is_libcnis_empty_one(keys: tuple[str, ...]) -> None:
    assert parse("GC", **dict.fromkeys(keys)).valid_attachments == frozenset()


def test_an_empty_list_of_valid_attachments_is_not_an_absent_one() -> None:
    assert parse("GC", **{"cni.dev/valid-attachments": []}).valid_attachments == frozenset()
    assert parse("GC", **{"cni.dev/attachments": []}).valid_attachments == frozenset()
    assert parse("ADD").valid_attachments is None


def test_both_keys_of_valid_attachments_are_united() -> None:
    one, two = ({"containerID": c, "ifname": "eth0"} for c in ("a", "b"))
    request = parse("GC", **{"cni.dev/valid-attachments": [one], "CNI.dev/Attachments": [two, one]})
    assert request.valid_attachments == frozenset({("a", "eth0"), ("b", "eth0")})
    half = parse("GC", **{"cni.dev/valid-attachments": None, "cni.dev/attachments": [two]})
    assert half.valid_attachments == frozenset({("b", "eth0")})


@pytest.mark.parametrize(
    "entries",
    [7, {}, [7], [{}], [{"containerID": "a"}], [{"containerID": "", "ifname": "eth0"}],
     [{"containerID": "a", "ifname": ""}], [{"containerID": "a", "ifname": None}]],
)  # fmt: skip
def test_a_list_that_cannot_be_read_keeps_everything(entries: object) -> None:
    error = refusal("GC", **{"cni.dev/valid-attachments": entries})
    assert cni_code(error.reason) in {6, 7}


def test_status_judges_the_configuration() -> None:
    assert parse("STATUS").conf.type == "weft"
    assert cni_code(refusal("STATUS", mtu=1).reason) == 7
    # which may be that of an interface that an earlier plugin makes: only its ADD tells
    assert parse("STATUS", ipam={"type": "dhcp"}).network == "net"


MADE = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.1.0.2/24", "interface": 1}, {"address": "10.9.0.1/8", "interface": 0}],
}


def test_an_interface_of_the_previous_result_is_adopted() -> None:
    request = parse(prevResult=MADE, ipam={"type": "host-local"})
    assert request.adopts
    assert isinstance(request.prev_result, Result)
    assert request.prev_result.addresses_of("eth0") == ("10.1.0.2",)
    assert parse("CHECK", prevResult=MADE, ipam={"type": "dhcp"}).adopts


@pytest.mark.parametrize(
    "interfaces", [[], [{"name": "eth0"}], [{"name": "eth1", "sandbox": "/run/netns/a"}]]
)
def test_a_previous_result_without_the_interface_is_added_to(interfaces: object) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": interfaces}
    assert not parse(prevResult=previous).adopts
    error = refusal(prevResult=previous, ipam={"type": "host-local"})
    assert cni_code(error.reason) == 2


def test_addresses_without_an_index_are_those_of_the_only_interface() -> None:
    ips = [{"address": "10.1.0.2/24"}, {"address": "fd00::2/64", "interface": -1}]
    result = parse(prevResult={**MADE, "ips": ips}).prev_result
    assert isinstance(result, Result)
    assert result.addresses_of("eth0") == ("10.1.0.2", "fd00::2")
    two = [*MADE["interfaces"], {"name": "eth1", "sandbox": "/run/netns/a"}]  # type: ignore[misc]
    result = parse(prevResult={**MADE, "interfaces": two, "ips": ips}).prev_result
    assert isinstance(result, Result)
    assert result.addresses_of("eth0") == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [("mtu", 1400), ("mac", "0a:00:00:00:00:01"), ("ips", ["10.0.0.9"]), ("pools", ["blue"])],
)
def test_what_an_adopted_interface_is_like_is_its_makers_to_say(key: str, value: object) -> None:
    error = refusal(prevResult=MADE, **{key: value})
    assert (error.field, cni_code(error.reason)) == (key, 2)
    assert "prevResult" in error.message
