"""What the host itself has: ways out, prefixes in use, links. For decisions, not for repair.

Reads whole tables by dump; asked at start and after a burst of notifications, never on ADD's path.
Source: rtnetlink(7).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import msgspec

from weft.kernel.netlink import NLM_F_DUMP, Socket, attribute, attributes, chosen, message

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
AF_INET, AF_INET6 = 2, 10
RTN_UNICAST = 1
RT_TABLE_MAIN = 254
_ROUTE = struct.Struct("=BBBBBBBBI")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_INDEX = struct.Struct("=I")
_INT = struct.Struct("=i")
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 6, 9, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_EXT_MASK = 3, 4, 18, 20, 29
_IFLA_ADDRESS, _IFLA_GROUP = 1, 27
_IFLA_LINK_NETNSID = 37
_OF_LINK = frozenset(
    (
        *(_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP),
        _IFLA_LINK_NETNSID,
    )
)
_IFF_UP = 1
_SKIP_STATISTICS = attribute(_IFLA_EXT_MASK, struct.pack("=I", 8))  # RTEXT_FILTER_SKIP_STATS
_IFLA_INFO_KIND = 1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HostLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the host."""

    index: int
    name: str
    mtu: int
    alias: str
    kind: str  # IFLA_INFO_KIND; "" for a device of the machine's own
    peer_nsid: int | None = None  # our number for the namespace of the other end (netns ids)
    up: bool = False
    group: int = 0
    mac: bytes = b""

    @property
    def is_veth(self) -> bool:
        """One end of a veth pair."""
        return self.kind == "veth"


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """A destination or address in use, and the link that has it ("" for none)."""

    network: Network
    link: str


class WayOut(msgspec.Struct, frozen=True, kw_only=True):
    """A default route: its link and metric."""

    family: int  # 4 or 6
    link: str
    metric: int


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment."""

    links: tuple[HostLink, ...]
    skipped: tuple[str, ...]  # names of the links that were passed over
    prefixes: tuple[Prefix, ...]
    ways_out: tuple[WayOut, ...]


def read_host(
    socket: Socket, *, skip_protocol: int, skip_links: tuple[str, ...], skip_group: int = 0
) -> HostView:
    """Links, prefixes of routes and addresses, and default routes of the socket's namespace.

    Routes of the routing protocol `skip_protocol` and links whose name begins with one of
    `skip_links` are passed over without decoding them: a node has thousands of its own. So is what
    is of links of `skip_group`; 0: of none.
    """
    links: dict[int, HostLink] = {}
    skipped: list[str] = []
    passed: set[int] = set()
    for body in _link_messages(socket):
        name = link_name(body).decode(errors="replace")
        if name.startswith(skip_links):
            skipped.append(name)
        else:
            found = _link(body)
            if skip_group and found.group == skip_group:
                skipped.append(name)
                passed.add(found.index)
            else:
                links[found.index] = found
    names = {index: link.name for index, link in links.items()}
    prefixes: list[Prefix] = []
    ways: list[WayOut] = []
    for network, link, metric in _routes(socket, names, skip_protocol, passed):
        if network.prefixlen == 0:
            ways.append(WayOut(family=network.version, link=link, metric=metric))
        else:
            prefixes.append(Prefix(network=network, link=link))
    prefixes += _addresses(socket, names, passed)
    ways.sort(key=lambda way: way.metric)
    return HostView(
        links=tuple(links.values()),
        skipped=tuple(skipped),
        prefixes=tuple(prefixes),
        ways_out=tuple(ways),
    )


def read_links(socket: Socket, *, skip: str = "") -> list[HostLink]:
    """All links of the socket's namespace, but those whose name begins with `skip`."""
    passed = skip.encode()
    return [
        _link(body)
        for body in _link_messages(socket)
        if not (passed and link_name(body).startswith(passed))
    ]


def _link_messages(socket: Socket) -> Iterator[memoryview]:
    request = message(RTM_GETLINK, NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0) + _SKIP_STATISTICS)
    return (body for _, body in socket.dump(request))


def link_name(body: memoryview) -> bytes:
    """The name in a message about a link: always its first attribute."""
    for kind, data in attributes(body, _LINK.size):
        if kind == _IFLA_IFNAME:
            return bytes(data).rstrip(b"\0")
    return b""


def _link(body: memoryview) -> HostLink:
    values = chosen(body, _LINK.size, _OF_LINK)
    info = dict(attributes(values.get(_IFLA_LINKINFO, memoryview(b""))))
    return HostLink(
        index=_LINK.unpack_from(body)[2],
        name=_text(values.get(_IFLA_IFNAME)),
        mtu=_INDEX.unpack(values[_IFLA_MTU])[0] if _IFLA_MTU in values else 0,
        alias=_text(values.get(_IFLA_IFALIAS)),
        kind=_text(info.get(_IFLA_INFO_KIND)),
        peer_nsid=_INT.unpack(values[_IFLA_LINK_NETNSID])[0]
        if _IFLA_LINK_NETNSID in values
        else None,
        up=bool(_LINK.unpack_from(body)[3] & _IFF_UP),
        group=_INDEX.unpack(values[_IFLA_GROUP])[0] if _IFLA_GROUP in values else 0,
        mac=bytes(values.get(_IFLA_ADDRESS, b"")),
    )


def _text(data: memoryview | None) -> str:
    return bytes(data).rstrip(b"\0").decode(errors="replace") if data is not None else ""


def _routes(
    socket: Socket, names: dict[int, str], skip_protocol: int, passed: set[int]
) -> list[tuple[Network, str, int]]:
    found = []
    for family in (AF_INET, AF_INET6):
        request = message(RTM_GETROUTE, NLM_F_DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        for _, body in socket.dump(request):
            _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
            if kind != RTN_UNICAST or protocol == skip_protocol:
                continue
            values = dict(attributes(body, _ROUTE.size))
            if _RTA_TABLE in values:
                table = _INDEX.unpack(values[_RTA_TABLE])[0]
            if table != RT_TABLE_MAIN or _out_link(values) in passed:
                continue
            destination = values.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
            network = ipaddress.ip_network((bytes(destination), length), strict=False)
            if network.is_multicast or (network.version == 6 and network.is_link_local):
                continue
            metric = _INDEX.unpack(values[_RTA_PRIORITY])[0] if _RTA_PRIORITY in values else 0
            found.append((network, names.get(_out_link(values), ""), metric))
    return found


def _out_link(values: dict[int, memoryview]) -> int:
    if _RTA_OIF in values:
        return int(_INDEX.unpack(values[_RTA_OIF])[0])
    if _RTA_MULTIPATH in values:  # struct rtnexthop: length, flags, hops, ifindex
        return int(struct.unpack_from("=HBBi", values[_RTA_MULTIPATH])[3])
    return 0


def own_addresses(socket: Socket) -> frozenset[bytes]:
    """Every address of the namespace, of 4 or 16 octets; loopback's among them."""
    request = message(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))
    found = (dict(attributes(body, _ADDRESS.size)) for _, body in socket.dump(request))
    return frozenset(bytes(v.get(_IFA_LOCAL) or v.get(_IFA_ADDRESS) or b"") for v in found)


def _addresses(socket: Socket, names: dict[int, str], passed: set[int]) -> list[Prefix]:
    found = []
    request = message(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))
    for _, body in socket.dump(request):
        _, length, _, _, index = _ADDRESS.unpack_from(body)
        values = dict(attributes(body, _ADDRESS.size))
        data = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
        if data is None or index in passed:
            continue
        network = ipaddress.ip_network((bytes(data), length), strict=False)
        if network.is_loopback or (network.version == 6 and network.is_link_local):
            continue
        found.append(Prefix(network=network, link=names.get(index, "")))
    return found
