"""The exact object of every spec version, and which version may ask for which verb."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from weft.model.errors import Invalid
from weft.model.reasons import cni_code
from weft.wire.cni import (
    NEWEST,
    SUPPORTED,
    Dns,
    Interface,
    Ip,
    Result,
    Route,
    caller_version,
    decode_result,
    encode_result,
    encode_version,
    parse_request,
)

LAUNCHER = Path(__file__).resolve().parents[2] / "native" / "launcher"
ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

HOST = Interface(name="wfhost", mac="0a:77:65:66:74:00", mtu=1450)
INSIDE = Interface(
    name="eth0",
    mac="0a:00:00:00:00:02",
    mtu=1450,
    sandbox="/run/netns/a",
    socket_path="/run/s",
    pci_id="0000:04:00.5",
)
V4 = Ip(interface=1, address="10.244.0.2/32", gateway="169.254.1.1")
V6 = Ip(interface=1, address="fd00::2/128", gateway="fe80::1")
R4 = Route(dst="0.0.0.0/0", gw="169.254.1.1", mtu=1400, advmss=1360, priority=5, table=7, scope=0)
R6 = Route(dst="::/0")
DUAL = Result(interfaces=(HOST, INSIDE), ips=(V4, V6), routes=(R4, R6))

NAMES = [
    {"name": "wfhost", "mac": "0a:77:65:66:74:00"},
    {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/run/netns/a"},
]
OLD = {
    "ip4": {
        "ip": "10.244.0.2/32",
        "gateway": "169.254.1.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    },
    "ip6": {"ip": "fd00::2/128", "gateway": "fe80::1", "routes": [{"dst": "::/0"}]},
    "dns": {},
}
MIDDLE = {
    "interfaces": NAMES,
    "ips": [
        {"version": "4", "interface": 1, "address": "10.244.0.2/32", "gateway": "169.254.1.1"},
        {"version": "6", "interface": 1, "address": "fd00::2/128", "gateway": "fe80::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0"}],
    "dns": {},
}
FIRST = {
    "interfaces": NAMES,
    "ips": [
        {"interface": 1, "address": "10.244.0.2/32", "gateway": "169.254.1.1"},
        {"interface": 1, "address": "fd00::2/128", "gateway": "fe80::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0"}],
}
SECOND = {
    "interfaces": [
        {"name": "wfhost", "mac": "0a:77:65:66:74:00", "mtu": 1450},
        {
            "name": "eth0",
            "mac": "0a:00:00:00:00:02",
            "mtu": 1450,
            "sandbox": "/run/netns/a",
            "socketPath": "/run/s",
            "pciID": "0000:04:00.5",
        },
    ],
    "ips": FIRST["ips"],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "169.254.1.1",
            "mtu": 1400,
            "advmss": 1360,
            "priority": 5,
            "table": 7,
            "scope": 0,
        },
        {"dst": "::/0"},
    ],
}
GOLDEN: dict[str, dict[str, Any]] = {
    "0.1.0": OLD,
    "0.2.0": OLD,
    "0.3.0": MIDDLE,
    "0.3.1": MIDDLE,
    "0.4.0": MIDDLE,
    "1.0.0": FIRST,
    "1.1.0": SECOND,
}


def in_order(obj: object) -> str:
    return json.dumps(obj, indent=4)


@pytest.mark.parametrize("version", ALL)
def test_a_dual_stack_result_has_the_bytes_of_its_version(version: str) -> None:
    expected = in_order({"cniVersion": version, **GOLDEN[version]})
    assert encode_result(DUAL, version).decode() == expected


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("ip", [V4, V6], ids=["v4", "v6"])
def test_a_single_stack_result_says_nothing_of_the_other_family(version: str, ip: Ip) -> None:
    route = R4 if ip is V4 else R6
    result = Result(interfaces=(HOST, INSIDE), ips=(ip,), routes=(route,))
    obj = json.loads(encode_result(result, version))
    other = {"4": "6", "6": "4"}[ip.version]
    golden = GOLDEN[version]
    if "ip4" in golden:
        assert f"ip{other}" not in obj
        assert obj[f"ip{ip.version}"] == golden[f"ip{ip.version}"]
    else:
        assert [each["address"] for each in obj["ips"]] == [ip.address]
        assert obj["interfaces"] == golden["interfaces"]


@pytest.mark.parametrize("version", ALL)
def test_dns_keeps_its_shape_in_every_version(version: str) -> None:
    dns = Dns(nameservers=("10.96.0.10",), domain="x.y", search=("a", "b"), options=("ndots:5",))
    obj = json.loads(encode_result(Result(ips=(V4,), dns=dns), version))
    assert obj["dns"] == {
        "nameservers": ["10.96.0.10"],
        "domain": "x.y",
        "search": ["a", "b"],
        "options": ["ndots:5"],
    }


@pytest.mark.parametrize(
    ("version", "expected"),
    [(v, {"cniVersion": v, "dns": {}}) for v in ("0.3.0", "0.3.1", "0.4.0")]
    + [(v, {"cniVersion": v}) for v in ("1.0.0", "1.1.0")],
)
def test_an_empty_result_leaves_out_what_is_empty(version: str, expected: object) -> None:
    assert json.loads(encode_result(Result(), version)) == expected


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_result_without_address_has_no_form_in_the_oldest_versions(version: str) -> None:
    with pytest.raises(Invalid) as caught:
        encode_result(Result(interfaces=(HOST,)), version)
    assert cni_code(caught.value.reason) == 1


def test_the_oldest_versions_take_the_first_address_of_a_family() -> None:
    second = Ip(address="10.244.0.3/32")
    obj = json.loads(encode_result(Result(ips=(V4, second)), "0.2.0"))
    assert obj["ip4"] == {"ip": "10.244.0.2/32", "gateway": "169.254.1.1"}


def test_the_list_of_versions_is_the_specifications() -> None:
    assert SUPPORTED == ALL
    assert NEWEST == "1.1.0"


def test_the_launcher_answers_version_with_the_same_list() -> None:
    header = (LAUNCHER / "protocol.h").read_text()
    line = re.search(r"#define CNI_VERSIONS (.*)", header)
    newest = re.search(r'#define CNI_NEWEST "(.*)"', header)
    assert line is not None
    assert newest is not None
    assert tuple(re.findall(r'"([^"]*)"', line[1])) == SUPPORTED
    assert newest[1] == NEWEST


def test_the_answer_to_version_lists_every_version() -> None:
    assert json.loads(encode_version("0.4.0")) == {
        "cniVersion": "0.4.0",
        "supportedVersions": list(ALL),
    }


@pytest.mark.parametrize(
    ("stdin", "expected"),
    [
        (b"", "1.1.0"),
        (b'{"cniVersion":"0.3.1"}', "0.3.1"),
        (b'{"cniVersion":"9.9.9"}', "1.1.0"),
        (b"garbage", "1.1.0"),
    ],
)
def test_version_is_answered_whatever_standard_input_says(stdin: bytes, expected: str) -> None:
    assert parse_request({"CNI_COMMAND": "VERSION"}, stdin).spec_version == expected


ENV = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}
ALLOWED = {
    "ADD": ALL,
    "DEL": ALL,
    "CHECK": ALL[4:],
    "STATUS": ALL[6:],
    "GC": ALL[6:],
}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("verb", list(ALLOWED))
def test_a_verb_is_open_from_the_version_that_brought_it(verb: str, version: str) -> None:
    conf = {
        "cniVersion": version,
        "name": "net",
        "type": "weft",
        "prevResult": {},
        "cni.dev/valid-attachments": [],
    }
    env = {**ENV, "CNI_COMMAND": verb}
    if version in ALLOWED[verb]:
        assert parse_request(env, json.dumps(conf).encode()).spec_version == version
        return
    with pytest.raises(Invalid) as caught:
        parse_request(env, json.dumps(conf).encode())
    assert caught.value.message == f"config version does not allow {verb}"
    assert cni_code(caught.value.reason) == 1


@pytest.mark.parametrize("conf", [b'{"name":"net"}', b'{"name":"net","cniVersion":""}',
                                  b'{"name":"net","cniVersion":null}'])  # fmt: skip
def test_a_configuration_without_version_is_the_legacy_form(conf: bytes) -> None:
    assert parse_request({**ENV, "CNI_COMMAND": "ADD"}, conf).spec_version == "0.1.0"


@pytest.mark.parametrize("version", ["0.5.0", "1.2.0", "2.0.0", "1", "1.0", "999999999.0.0"])
def test_an_unsupported_version_is_answered_with_those_that_are(version: str) -> None:
    conf = json.dumps({"cniVersion": version, "name": "net"}).encode()
    with pytest.raises(Invalid) as caught:
        parse_request({**ENV, "CNI_COMMAND": "ADD"}, conf)
    assert caught.value.message == "incompatible CNI versions"
    assert caught.value.details == (
        f'config is "{version}", plugin supports '
        '["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
    )
    assert cni_code(caught.value.reason) == 1


@pytest.mark.parametrize(
    "version", ["x", "v1.0.0", "1.0.0-rc1", "1..0", "1.0.0.0", "1.0.0\n", "\u0661.0.0", "1" * 10**5]
)
def test_a_version_that_is_none_is_a_decode_failure(version: str) -> None:
    conf = json.dumps({"cniVersion": version, "name": "net"}).encode()
    with pytest.raises(Invalid) as caught:
        parse_request({**ENV, "CNI_COMMAND": "ADD"}, conf)
    assert cni_code(caught.value.reason) == 6
    assert len(caught.value.message) < 300


def test_a_result_names_its_own_version_before_the_configurations_counts() -> None:
    legacy = {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}}
    assert decode_result(legacy, "1.0.0").ips == (Ip(address="10.0.0.2/24"),)
    unnamed = {"cniVersion": "", "ips": [{"address": "10.0.0.2/24"}]}
    assert decode_result(unnamed, "1.0.0").ips == (Ip(address="10.0.0.2/24"),)


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion":"0.4.0"}', "0.4.0"),
        (b'{"CNIVERSION":"0.4.0"}', "0.4.0"),
        (b'{"cniVersion":"9.9.9"}', "9.9.9"),
        (b'{"cniVersion":"<script>"}', "1.1.0"),
        (b'{"cniVersion":7}', "1.1.0"),
        (b"{}", "1.1.0"),
        (b"\xff", "1.1.0"),
    ],
)
def test_an_error_answers_in_the_callers_version_where_it_can_be_read(
    stdin: bytes, version: str
) -> None:
    assert caller_version(stdin) == version
