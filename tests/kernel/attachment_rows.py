"""The rows of one dual-stack attachment, as tests of the driver room want them."""

from __future__ import annotations

from weft.model.attachment import LIVE_GROUP
from weft.rows.base import Place, Row
from weft.rows.links import Address, Peer, Sysctl, Up, Veth
from weft.rows.routes import SCOPE_LINK, Neighbour, Route

HOST, POD = Place.HOST, Place.POD
GATEWAY4 = bytes((169, 254, 1, 1))
GATEWAY6 = bytes.fromhex("fe80" + "00" * 13 + "01")
_HOST_FILES = (
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/accept_redirects", "0"),
    ("ipv6/conf/{}/autoconf", "0"),
    ("ipv6/conf/{}/addr_gen_mode", "1"),
    ("ipv6/conf/{}/forwarding", "1"),
    ("ipv4/conf/{}/rp_filter", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/forwarding", "1"),
)
_POD_FILES = (
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/accept_redirects", "0"),
    ("ipv6/conf/{}/autoconf", "0"),
    ("ipv6/conf/{}/addr_gen_mode", "1"),
    ("ipv6/conf/{}/disable_ipv6", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
)


def link_name(number: int) -> str:
    return f"wf{number:013d}"


def address4(number: int) -> bytes:
    return bytes((10, 1, number >> 8, number & 255))


def address6(number: int) -> bytes:
    return bytes.fromhex("fd00") + bytes(12) + number.to_bytes(2, "big")


def host_mac(number: int) -> bytes:
    return b"\x02\xaa\0\0" + number.to_bytes(2, "big")


def pod_mac(number: int) -> bytes:
    return b"\x02\xbb\0\0" + number.to_bytes(2, "big")


def veth(number: int, ifname: str = "eth0") -> Veth:
    return Veth(
        name=link_name(number),
        mac=host_mac(number),
        mtu=1450,
        alias=f"weft:1:{number}",
        group=LIVE_GROUP,
        peer=Peer(name=ifname, mac=pod_mac(number), mtu=1450),
    )


def attachment(number: int) -> tuple[Row, ...]:
    """Veth, sysctls, addresses, routes and neighbours of attachment `number` (1..65535)."""
    name, eth = link_name(number), "eth0"
    four, six = address4(number), address6(number)
    local = bytes.fromhex("fe80") + bytes(12) + number.to_bytes(2, "big")
    local = local[:8] + b"\x0a" + local[9:]
    files = [
        Sysctl(place=HOST, path="net/" + path.format(name), value=value, link=name)
        for path, value in _HOST_FILES
    ]
    files += [
        Sysctl(place=POD, path="net/" + path.format(eth), value=value, link=eth)
        for path, value in _POD_FILES
    ]
    inside = (
        Up(place=POD, link="lo"),
        Up(place=POD, link=eth),
        Address(place=POD, link=eth, ip=four, prefix=32),
        Address(place=POD, link=eth, ip=six, prefix=128),
        Address(place=POD, link=eth, ip=local, prefix=64, scope=SCOPE_LINK),
        Route(place=POD, link=eth, dst=bytes(4), prefix=0, via=GATEWAY4),
        Route(place=POD, link=eth, dst=GATEWAY4, prefix=32, scope=SCOPE_LINK),
        Route(place=POD, link=eth, dst=bytes(16), prefix=0, via=GATEWAY6),
        Neighbour(place=POD, link=eth, ip=GATEWAY4, mac=host_mac(number)),
        Neighbour(place=POD, link=eth, ip=GATEWAY6, mac=host_mac(number)),
    )
    outside = (
        Up(place=HOST, link=name),
        Route(place=HOST, link=name, dst=four, prefix=32, scope=SCOPE_LINK),
        Route(place=HOST, link=name, dst=six, prefix=128),
        Neighbour(place=HOST, link=name, ip=four, mac=pod_mac(number)),
        Neighbour(place=HOST, link=name, ip=six, mac=pod_mac(number)),
    )
    return (*outside, *inside, *files, veth(number))
