"""rtnetlink messages about addresses, routes and neighbours, in both families.

Routes and neighbours bear our mark (`PROTOCOL`), and only what bears it is ever deleted. All
additions are "create or replace", so that saying the same twice is no error. IPv6 addresses are
added without duplicate address detection; a host address (/128) without its own prefix route,
which would only repeat the local one.
Source: rtnetlink(7), include/uapi/linux/{if_addr,rtnetlink,neighbour}.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from weft.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    attributes,
    chosen,
    message,
    nest,
)

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTNLGRP_NEIGH = 3
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV6_IFADDR = 9
RTNLGRP_IPV6_ROUTE = 11

PROTOCOL = 119
"""Our mark on routes and neighbours (rtm_protocol, NDA_PROTOCOL): a number that iproute2's
rt_protos leaves free, and no routing daemon uses."""

METRIC6 = 1024
"""What the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER)."""

AF_INET, AF_INET6 = 2, 10
_FAMILY = {4: AF_INET, 16: AF_INET6}
_NODAD = 0x02
_NOPREFIXROUTE = 0x200
_ONLINK = 4
_UNICAST, _LOCAL = 1, 2  # RTN_*
_LOCAL_TABLE = 255
DEAD_ENDS = (6, 7, 8)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_LOOKUP_TABLE, _FIB_MATCH = 0x1000, 0x2000
_SCOPE_NOWHERE = 255
_COMPAT_TABLE = 252
_PERMANENT = 0x80
_DELETE = NLM_F_REQUEST | NLM_F_ACK
_ADD = _DELETE | NLM_F_CREATE | NLM_F_REPLACE

_IFA = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix, flags, scope, index
_RT = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst, src, tos, table, protocol, scope, type,..
_ND = struct.Struct("=BBHiHBB")  # ndmsg: family, -, -, index, state, flags, type
_NUMBER = struct.Struct("=I")
_ATTRIBUTE_NUMBER = struct.Struct("=HHI")
_ATTRIBUTE_ADDRESS = {4: struct.Struct("=HH4s"), 16: struct.Struct("=HH16s")}
# whole messages: netlink header, family's header, attributes that are always there
_ADDRESS4 = struct.Struct("=IHHIIBBBBiHH4sHH4s")
_ADDRESS6 = struct.Struct("=IHHIIBBBBiHH16sHHI")
_ROUTE = struct.Struct("=IHHIIBBBBBBBBIHHI")
_NEIGHBOUR = {
    4: struct.Struct("=IHHIIBBHiHBBHH4sHH6s2xHHB3x"),
    16: struct.Struct("=IHHIIBBHiHBBHH16sHH6s2xHHB3x"),
}

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _TABLE = 1, 4, 5, 6, 7, 8, 15
_RTAX_MTU = 2
_MAIN, _RTPROT_KERNEL = 254, 2  # RT_TABLE_MAIN
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX, _NDA_PROTOCOL = 1, 2, 8, 12


class FoundAddress(NamedTuple):
    """An address on a link; `flags` IFA_F_*."""

    ifindex: int
    ip: bytes
    prefix: int
    scope: int
    flags: int


class RouteEntry(NamedTuple):
    """A unicast route with one next hop. `metric` 0: none given (IPv6: the kernel's default)."""

    ifindex: int
    dst: bytes
    prefix: int
    via: bytes | None
    onlink: bool
    scope: int
    src: bytes | None
    mtu: int
    metric: int
    table: int


class AnyRoute(NamedTuple):
    """As much of anybody's route as it takes to find and to delete it. `ifindex` 0: it has no
    single next hop. `metric` is the kernel's own figure."""

    family: int
    dst: bytes
    prefix: int
    tos: int
    table: int
    protocol: int
    kind: int
    metric: int
    ifindex: int


class FoundNeighbour(NamedTuple):
    """A neighbour entry; `state` NUD_*, `protocol` 0 where nobody signed it."""

    ifindex: int
    ip: bytes
    mac: bytes
    state: int
    protocol: int


def add_address(ifindex: int, ip: bytes, prefix: int, scope: int) -> bytes:
    """An address, usable at once."""
    return _address(RTM_NEWADDR, _ADD, (ifindex, prefix, scope), ip)


def delete_address(ifindex: int, ip: bytes, prefix: int) -> bytes:
    """Refused with EADDRNOTAVAIL where it is not there."""
    return _address(RTM_DELADDR, _DELETE, (ifindex, prefix, 0), ip)


def _address(kind: int, flags: int, what: tuple[int, int, int], ip: bytes) -> bytes:
    ifindex, prefix, scope = what
    if len(ip) == 4:
        return _ADDRESS4.pack(
            _ADDRESS4.size, kind, flags, 0, 0,
            AF_INET, prefix, 0, scope, ifindex,
            8, _IFA_LOCAL, ip,
            8, _IFA_ADDRESS, ip,
        )  # fmt: skip
    return _ADDRESS6.pack(
        _ADDRESS6.size, kind, flags, 0, 0,
        AF_INET6, prefix, 0, scope, ifindex,
        20, _IFA_LOCAL, ip,
        8, _IFA_FLAGS, _NODAD | _NOPREFIXROUTE if prefix == 128 else _NODAD,
    )  # fmt: skip


def add_local(ifindex: int, ip: bytes) -> bytes:
    """What arrives for this IPv6 address is for us, from now on.

    The kernel makes its own such route for every address, but from deferred work
    (addrconf_dad_work, also without duplicate address detection), and until then drops what
    arrives: milliseconds on a busy machine. Ours stands beside it with another metric.
    """
    return _local(RTM_NEWROUTE, _ADD, ifindex, ip)


def delete_local(ifindex: int, ip: bytes) -> bytes:
    """ESRCH where it is not there."""
    return _local(RTM_DELROUTE, _DELETE, ifindex, ip)


def _local(kind: int, flags: int, ifindex: int, ip: bytes) -> bytes:
    return _ROUTE.pack(
        _ROUTE.size + 20, kind, flags, 0, 0,
        AF_INET6, 128, 0, 0, _LOCAL_TABLE, PROTOCOL, 0, _LOCAL, 0,
        8, _OIF, ifindex,
    ) + _ATTRIBUTE_ADDRESS[16].pack(20, _DST, ip)  # fmt: skip


def add_route(entry: RouteEntry) -> bytes:
    """A route with our mark; replaces the one of the same table, destination and metric."""
    return _route(RTM_NEWROUTE, _ADD, entry, entry.scope)


def delete_route(entry: RouteEntry) -> bytes:
    """Only one that bears our mark; ESRCH where there is none."""
    return _route(RTM_DELROUTE, _DELETE, entry, _SCOPE_NOWHERE)


def _route(kind: int, flags: int, entry: RouteEntry, scope: int) -> bytes:
    size = len(entry.dst)
    address = _ATTRIBUTE_ADDRESS[size]
    table = entry.table if entry.table < 256 else _COMPAT_TABLE
    rest = b""
    if entry.prefix:
        rest = address.pack(4 + size, _DST, entry.dst)
    if entry.via is not None:
        rest += address.pack(4 + size, _GATEWAY, entry.via)
    if entry.src is not None:
        rest += address.pack(4 + size, _PREFSRC, entry.src)
    if entry.metric:
        rest += _ATTRIBUTE_NUMBER.pack(8, _PRIORITY, entry.metric)
    if entry.mtu:
        rest += nest(_METRICS, _ATTRIBUTE_NUMBER.pack(8, _RTAX_MTU, entry.mtu))
    if table == _COMPAT_TABLE:
        rest += _ATTRIBUTE_NUMBER.pack(8, _TABLE, entry.table)
    start = _ROUTE.pack(
        _ROUTE.size + len(rest), kind, flags, 0, 0,
        _FAMILY[size], entry.prefix, 0, 0, table, PROTOCOL, scope, _UNICAST,
        _ONLINK if entry.onlink else 0,
        8, _OIF, entry.ifindex,
    )  # fmt: skip
    return start + rest


def add_neighbour(ifindex: int, ip: bytes, mac: bytes) -> bytes:
    """A permanent neighbour with our mark."""
    size = len(ip)
    template = _NEIGHBOUR[size]
    return template.pack(
        template.size, RTM_NEWNEIGH, _ADD, 0, 0,
        _FAMILY[size], 0, 0, ifindex, _PERMANENT, 0, 0,
        4 + size, _NDA_DST, ip,
        10, _NDA_LLADDR, mac,
        5, _NDA_PROTOCOL, PROTOCOL,
    )  # fmt: skip


def delete_neighbour(ifindex: int, ip: bytes) -> bytes:
    """ENOENT where it is not there."""
    body = _ND.pack(_FAMILY[len(ip)], 0, 0, ifindex, 0, 0, 0)
    return message(RTM_DELNEIGH, NLM_F_ACK, body + attribute(_NDA_DST, ip))


def get_addresses(family: int, index: int = 0) -> bytes:
    """A dump of addresses, of one link if `index` is not 0 (needs strict checking)."""
    return message(RTM_GETADDR, NLM_F_DUMP, _IFA.pack(family, 0, 0, 0, index))


def get_routes(family: int, *, index: int = 0, table: int = 0) -> bytes:
    """A dump of our unicast routes, of one link or table if given (needs strict checking)."""
    header = table if table < 256 else _COMPAT_TABLE
    body = _RT.pack(family, 0, 0, 0, header, PROTOCOL, 0, _UNICAST, 0)
    if index:
        body += _ATTRIBUTE_NUMBER.pack(8, _OIF, index)
    if table >= 256:
        body += _ATTRIBUTE_NUMBER.pack(8, _TABLE, table)
    return message(RTM_GETROUTE, NLM_F_DUMP, body)


def get_match(dst: bytes) -> bytes:
    """Ask which entry of the routing tables a packet to this address would take (Linux 4.13).

    An answer is an entry for `decode_any`; a blackhole and the like may be answered by an error."""
    size = len(dst)
    # only IPv4 takes the question for the table; IPv6 answers it anyway
    flags = _FIB_MATCH | _LOOKUP_TABLE if size == 4 else _FIB_MATCH
    body = _RT.pack(_FAMILY[size], size * 8, 0, 0, 0, 0, 0, 0, flags)
    return message(RTM_GETROUTE, NLM_F_ACK, body + attribute(_DST, dst))


def get_dead_ends(family: int, kind: int) -> bytes:
    """A dump of the routes of one of the DEAD_ENDS (needs strict checking)."""
    return message(RTM_GETROUTE, NLM_F_DUMP, _RT.pack(family, 0, 0, 0, 0, 0, 0, kind, 0))


def get_neighbours(family: int, index: int = 0) -> bytes:
    """A dump of neighbours, of one link if `index` is not 0."""
    body = _ND.pack(family, 0, 0, 0, 0, 0, 0)
    if index:
        body += _ATTRIBUTE_NUMBER.pack(8, _NDA_IFINDEX, index)
    return message(RTM_GETNEIGH, NLM_F_DUMP, body)


def decode_address(body: memoryview) -> FoundAddress | None:
    """An RTM_NEWADDR or RTM_DELADDR message."""
    _, prefix, flags, scope, index = _IFA.unpack_from(body)
    found = dict(attributes(body, _IFA.size))
    ip = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if ip is None:
        return None
    if _IFA_FLAGS in found:
        flags = _NUMBER.unpack(found[_IFA_FLAGS])[0]
    return FoundAddress(index, bytes(ip), prefix, scope, flags)


def prefix_link(body: memoryview) -> int | None:
    """Number of the link of a route that the kernel itself made in the main table, for an address
    that a link was given; None for any other route."""
    if body[4] != _MAIN or body[5] != _RTPROT_KERNEL:
        return None
    found = chosen(body, _RT.size, (_OIF,))
    return _number(found[_OIF]) if _OIF in found else None


def decode_route(body: memoryview) -> RouteEntry | None:
    """An RTM_NEWROUTE or RTM_DELROUTE message; None for what is not ours or not of our shape
    (multipath, nexthop objects, blackholes)."""
    family, prefix, _, _, table, protocol, scope, kind, flags = _RT.unpack_from(body)
    if protocol != PROTOCOL or kind != _UNICAST or family not in (AF_INET, AF_INET6):
        return None
    found = dict(attributes(body, _RT.size))
    if _OIF not in found:
        return None
    via, src = found.get(_GATEWAY), found.get(_PREFSRC)
    metric = _number(found.get(_PRIORITY))
    mtu = 0
    for number, data in attributes(found.get(_METRICS, b"")):
        if number == _RTAX_MTU:
            mtu = _NUMBER.unpack(data)[0]
    return RouteEntry(
        ifindex=_number(found[_OIF]),
        dst=bytes(found[_DST]) if _DST in found else bytes(4 if family == AF_INET else 16),
        prefix=prefix,
        via=None if via is None else bytes(via),
        onlink=bool(flags & _ONLINK),
        scope=scope,
        src=None if src is None else bytes(src),
        mtu=mtu,
        metric=0 if family == AF_INET6 and metric == METRIC6 else metric,
        table=_number(found.get(_TABLE)) or table,
    )


def decode_any(body: memoryview) -> AnyRoute | None:
    """Anybody's route, of any shape; None for what is no route of IPv4 or IPv6."""
    if len(body) < _RT.size:
        return None
    family, prefix, _, tos, table, protocol, _, kind, _ = _RT.unpack_from(body)
    if family not in (AF_INET, AF_INET6):
        return None
    found = dict(attributes(body, _RT.size))
    return AnyRoute(
        family=family,
        dst=bytes(found[_DST]) if _DST in found else bytes(4 if family == AF_INET else 16),
        prefix=prefix,
        tos=tos,
        table=_number(found.get(_TABLE)) or table,
        protocol=protocol,
        kind=kind,
        metric=_number(found.get(_PRIORITY)),
        ifindex=_number(found.get(_OIF)),
    )


def delete_any(route: AnyRoute) -> bytes:
    """Delete exactly this route; ESRCH where there is none."""
    table = route.table if route.table < 256 else _COMPAT_TABLE
    body = _RT.pack(
        route.family, route.prefix, 0, route.tos, table, route.protocol, _SCOPE_NOWHERE,
        route.kind, 0,
    )  # fmt: skip
    if route.prefix:
        body += attribute(_DST, route.dst)
    for kind, value in ((_PRIORITY, route.metric), (_OIF, route.ifindex), (_TABLE, route.table)):
        if value:
            body += _ATTRIBUTE_NUMBER.pack(8, kind, value)
    return message(RTM_DELROUTE, NLM_F_ACK, body)


def decode_neighbour(body: memoryview) -> FoundNeighbour | None:
    """An RTM_NEWNEIGH or RTM_DELNEIGH message; None for an entry without an address."""
    family, _, _, index, state, _, _ = _ND.unpack_from(body)
    found = dict(attributes(body, _ND.size))
    if _NDA_DST not in found or family not in (AF_INET, AF_INET6):
        return None
    protocol = found.get(_NDA_PROTOCOL)
    return FoundNeighbour(
        index,
        bytes(found[_NDA_DST]),
        bytes(found.get(_NDA_LLADDR, b"")),
        state,
        0 if protocol is None else protocol[0],
    )


def _number(data: memoryview | None) -> int:
    return 0 if data is None else int(_NUMBER.unpack(data)[0])
