"""Round trips of results through every version, and what each of them loses."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from weft.wire.cni import (
    SUPPORTED,
    Dns,
    Interface,
    Ip,
    Result,
    Route,
    decode_result,
    encode_result,
    merge,
)

# an example's time says more of the machine than of the code: no deadline
unhurried = settings(deadline=None)

text = st.text(st.characters(codec="utf-8"), max_size=12)
texts = st.lists(text, max_size=3, unique=True).map(tuple)
number = st.none() | st.integers(0, 2**32 - 1)
v4 = st.integers(0, 2**32 - 1).map(lambda n: str(IPv4Address(n)))
v6 = st.integers(0, 2**128 - 1).map(lambda n: str(IPv6Address(n)))
prefix = st.builds("{}/{}".format, v4, st.integers(0, 32)) | st.builds(
    "{}/{}".format, v6, st.integers(0, 128)
)
interface = st.builds(
    Interface, name=text, mac=text, mtu=number, sandbox=text, socket_path=text, pci_id=text
)
route = st.builds(
    Route,
    dst=prefix,
    gw=st.none() | v4 | v6,
    mtu=number,
    advmss=number,
    priority=number,
    table=number,
    scope=st.none() | st.sampled_from((0, 253, 254)),
)
dns = st.builds(Dns, nameservers=texts, domain=text, search=texts, options=texts)


@st.composite
def results(draw: st.DrawFn) -> Result:
    interfaces = tuple(draw(st.lists(interface, max_size=3)))
    index = st.none() | st.integers(0, len(interfaces) - 1) if interfaces else st.none()
    ip = st.builds(Ip, address=prefix, gateway=st.none() | v4 | v6, interface=index)
    return Result(
        interfaces=interfaces,
        ips=tuple(draw(st.lists(ip, max_size=4))),
        routes=tuple(draw(st.lists(route, max_size=4))),
        dns=draw(dns),
    )


def through(result: Result, version: str) -> Result:
    return decode_result(json.loads(encode_result(result, version)), version)


def kept_before_1_1(result: Result) -> Result:
    return replace(
        result,
        interfaces=tuple(
            replace(each, mtu=None, socket_path="", pci_id="") for each in result.interfaces
        ),
        routes=tuple(Route(dst=each.dst, gw=each.gw) for each in result.routes),
    )


def kept_before_0_3(result: Result) -> Result:
    first = [
        next((ip for ip in result.ips if (":" in ip.address) is six), None) for six in (False, True)
    ]
    ips = [ip for ip in first if ip is not None]
    return Result(
        ips=tuple(replace(ip, interface=None) for ip in ips),
        routes=tuple(
            Route(dst=each.dst, gw=each.gw)
            for ip in ips
            for each in result.routes
            if (":" in each.dst) is (":" in ip.address)
        ),
        dns=result.dns,
    )


@unhurried
@given(results())
def test_the_newest_version_loses_nothing(result: Result) -> None:
    assert through(result, "1.1.0") == result


@unhurried
@given(results(), st.sampled_from(SUPPORTED[2:-1]))
def test_versions_from_0_3_lose_what_1_1_added_and_nothing_else(
    result: Result, version: str
) -> None:
    assert through(result, version) == kept_before_1_1(result)


@unhurried
@given(results().filter(lambda result: result.ips), st.sampled_from(SUPPORTED[:2]))
def test_the_oldest_versions_keep_one_address_a_family_and_its_routes(
    result: Result, version: str
) -> None:
    assert through(result, version) == kept_before_0_3(result)


@unhurried
@given(results().filter(lambda result: result.ips), st.sampled_from(SUPPORTED))
def test_a_second_trip_changes_nothing(result: Result, version: str) -> None:
    once = through(result, version)
    assert through(once, version) == once
    assert encode_result(once, version) == encode_result(result, version)


@unhurried
@given(results(), results())
def test_a_merged_result_begins_with_the_earlier_one_and_keeps_every_link(
    prev: Result, own: Result
) -> None:
    merged = merge(prev, own)
    assert merged.interfaces[: len(prev.interfaces)] == prev.interfaces
    assert merged.ips[: len(prev.ips)] == prev.ips
    for before, after in zip(own.ips, merged.ips[len(prev.ips) :], strict=True):
        assert after.address == before.address
        if before.interface is None:
            assert after.interface is None
        else:
            assert after.interface is not None
            assert merged.interfaces[after.interface] == own.interfaces[before.interface]
