"""rtnetlink messages about links: veth pairs born in place, and what a link says of itself.

A veth's peer is created under its final name in its final namespace (IFLA_NET_NS_FD inside
VETH_INFO_PEER): moving or renaming it would cost a grace period each. Both ends are born down;
a peer that is asked to be born up is refused (ENOTCONN). The alias is not taken at birth, the
group is. Messages are fixed templates: one `pack` a message.
Source: rtnetlink(7), include/uapi/linux/if_link.h, drivers/net/veth.c.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from weft.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attributes,
    chosen,
    message,
    nest,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTNLGRP_LINK = 1

IFF_UP = 1
_ADDRESS = 1
_IFNAME = 3
_MTU = 4
_LINK = 5
_MASTER = 10
_LINKINFO = 18
_IFALIAS = 20
_AF_SPEC = 26
_GROUP = 27
_NET_NS_FD = 28
_LINK_NETNSID = 37
_EXT_MASK = 29
_NEW_NETNSID = 45
_INFO_KIND = 1
_INFO_DATA = 2
_INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 4, 5
_BRIDGE_SNOOPING = 23  # IFLA_BR_MCAST_SNOOPING
_BRIDGE_OPTIONS = 46  # IFLA_BR_MULTI_BOOLOPT
_NO_LINK_LOCAL_LEARNING = struct.pack("=II", 1, 1)  # value and mask of BR_BOOLOPT_NO_LL_LEARN
_PORT_ISOLATED = 33  # IFLA_BRPORT_ISOLATED
_NESTED = 0x8000
_INET, _INET_CONF = 2, 1  # AF_INET, IFLA_INET_CONF
_ACCEPT_REDIRECTS = 4  # IPV4_DEVCONF_ACCEPT_REDIRECTS (include/uapi/linux/ip.h)
_INET6, _INET6_ADDR_GEN_MODE = 10, 8  # AF_INET6, IFLA_INET6_ADDR_GEN_MODE
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS: statistics are half of every answer

_DECODED = frozenset(
    (_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _IFALIAS, _GROUP, _LINK_NETNSID)
)

_INFO = struct.Struct("=BBHiII")  # ifinfomsg: family, -, type, index, flags, change
_NUMBER = struct.Struct("=I")
_INDEX = struct.Struct("=i")
_HEADER = "IHHII"
_IFINFO = "BBHiII"
_BY_INDEX = struct.Struct(f"={_HEADER}{_IFINFO}")
_BY_NAME = struct.Struct(f"={_HEADER}{_IFINFO}HH16s")
_GET_BY_NAME = struct.Struct(f"={_HEADER}{_IFINFO}HH16sHHI")
_GET_BY_INDEX = struct.Struct(f"={_HEADER}{_IFINFO}HHI")
# both ends alike: name, hardware address (2 octets of padding), MTU, and group or namespace
_END = "HH16sHH6s2xHHIHHI"
_VETH = struct.Struct(f"={_HEADER}{_IFINFO}{_END}HHHH4sHHHH{_IFINFO}{_END}")
_NO_INFO = (0, 0, 0, 0, 0, 0)
_PEER_LENGTH = 4 + 16 + 20 + 12 + 8 + 8
_REQUEST = NLM_F_REQUEST | NLM_F_ACK


class Link(NamedTuple):
    """What the kernel says of one link. `peer` is IFLA_LINK: of a veth the other end's index, in
    the other end's namespace, whose number here is `peer_nsid` (-1: in this one); `master` the
    bridge or bond that the link is a port of, or 0."""

    ifindex: int
    name: str
    up: bool
    mac: bytes
    mtu: int
    group: int
    alias: str
    kind: str
    peer: int
    master: int = 0
    peer_nsid: int = -1
    isolated: bool = False  # as a port of a bridge


class End(NamedTuple):
    """One end of a veth pair, as it is to be born."""

    name: str
    mac: bytes
    mtu: int


def create_veth(host: End, group: int, peer: End, namespace: int) -> bytes:
    """A veth pair: `host` here, `peer` in the namespace of descriptor `namespace`, both down."""
    return _VETH.pack(
        _VETH.size, RTM_NEWLINK, _REQUEST | NLM_F_CREATE | NLM_F_EXCL, 0, 0,
        *_NO_INFO,
        20, _IFNAME, host.name.encode(),
        10, _ADDRESS, host.mac,
        8, _MTU, host.mtu,
        8, _GROUP, group,
        4 + 8 + 4 + _PEER_LENGTH, _LINKINFO | _NESTED,
        8, _INFO_KIND, b"veth",
        4 + _PEER_LENGTH, _INFO_DATA | _NESTED,
        _PEER_LENGTH, 1 | _NESTED,  # VETH_INFO_PEER
        *_NO_INFO,
        20, _IFNAME, peer.name.encode(),
        10, _ADDRESS, peer.mac,
        8, _MTU, peer.mtu,
        8, _NET_NS_FD, namespace,
    )  # fmt: skip


def create_ifb(name: str, mac: bytes, mtu: int, group: int) -> bytes:
    """An intermediate functional block, down. EOPNOTSUPP: the kernel has none."""
    body = (
        _INFO.pack(*_NO_INFO)
        + attribute(_IFNAME, name.encode() + b"\0")
        + attribute(_ADDRESS, mac)
        + attribute(_MTU, _NUMBER.pack(mtu))
        + attribute(_GROUP, _NUMBER.pack(group))
        + nest(_LINKINFO, attribute(_INFO_KIND, b"ifb"))
    )
    return message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)


def create_bridge(name: str, mac: bytes, group: int) -> bytes:
    """A bridge, down, without spanning tree. It passes on whatever is sent to a group: there is
    no querier to learn members from. Nor does it learn hardware addresses from frames for bridges
    (01:80:c2:00:00:0x), which no packet rule sees before it would."""
    options = attribute(_BRIDGE_OPTIONS, _NO_LINK_LOCAL_LEARNING)
    data = nest(_INFO_DATA, attribute(_BRIDGE_SNOOPING, b"\0") + options)
    body = (
        _INFO.pack(*_NO_INFO)
        + attribute(_IFNAME, name.encode() + b"\0")
        + attribute(_ADDRESS, mac)
        + attribute(_GROUP, _NUMBER.pack(group))
        + nest(_LINKINFO, attribute(_INFO_KIND, b"bridge"), data)
    )
    return message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)


def set_master(index: int, bridge: int) -> bytes:
    """Make a link a port of a bridge."""
    body = _INFO.pack(0, 0, 0, index, 0, 0) + attribute(_MASTER, _NUMBER.pack(bridge))
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_isolated(index: int, isolated: bool) -> bytes:
    """Whether a port of a bridge is kept from other isolated ports."""
    data = nest(_INFO_SLAVE_DATA, attribute(_PORT_ISOLATED, bytes((isolated,))))
    body = _INFO.pack(0, 0, 0, index, 0, 0) + nest(
        _LINKINFO, attribute(_INFO_SLAVE_KIND, b"bridge"), data
    )
    return message(RTM_NEWLINK, NLM_F_ACK, body)


def get_by_name(name: str) -> bytes:
    """Ask for one link; the answer comes without statistics."""
    return _GET_BY_NAME.pack(
        _GET_BY_NAME.size, RTM_GETLINK, _REQUEST, 0, 0,
        *_NO_INFO,
        20, _IFNAME, name.encode(),
        8, _EXT_MASK, _SKIP_STATS,
    )  # fmt: skip


def get_by_index(index: int) -> bytes:
    """As `get_by_name`."""
    return _GET_BY_INDEX.pack(
        _GET_BY_INDEX.size, RTM_GETLINK, _REQUEST, 0, 0,
        0, 0, 0, index, 0, 0,
        8, _EXT_MASK, _SKIP_STATS,
    )  # fmt: skip


def get_all(*, kind: str | None = None) -> bytes:
    """A dump of all links, or of those of one kind (a filter inside the kernel)."""
    body = _INFO.pack(*_NO_INFO) + attribute(_EXT_MASK, _NUMBER.pack(_SKIP_STATS))
    if kind is not None:
        body += nest(_LINKINFO, attribute(_INFO_KIND, kind.encode()))
    return message(RTM_GETLINK, NLM_F_DUMP, body)


def set_up(index: int) -> bytes:
    """Administratively up."""
    return _BY_INDEX.pack(
        _BY_INDEX.size, RTM_SETLINK, _REQUEST, 0, 0, 0, 0, 0, index, IFF_UP, IFF_UP
    )


def set_down(index: int) -> bytes:
    """Administratively down."""
    return _BY_INDEX.pack(_BY_INDEX.size, RTM_SETLINK, _REQUEST, 0, 0, 0, 0, 0, index, 0, IFF_UP)


def set_alias(name: str, alias: str) -> bytes:
    """Write the record of a link (at most 255 octets)."""
    record = alias.encode()
    start = _BY_NAME.pack(
        _BY_NAME.size + ((7 + len(record)) & ~3), RTM_SETLINK, _REQUEST, 0, 0,
        *_NO_INFO,
        20, _IFNAME, name.encode(),
    )  # fmt: skip
    return start + attribute(_IFALIAS, record)


def set_accept_redirects(index: int, value: int) -> bytes:
    """What `net/ipv4/conf/LINK/accept_redirects` shows."""
    conf = nest(_INET_CONF, attribute(_ACCEPT_REDIRECTS, _NUMBER.pack(value)))
    return _af_spec(index, nest(_INET, conf))


def set_addr_gen_mode(index: int, mode: int) -> bytes:
    """What `net/ipv6/conf/LINK/addr_gen_mode` shows. EAFNOSUPPORT: the link has no IPv6, because
    its MTU is below 1280."""
    return _af_spec(index, nest(_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes((mode,)))))


def _af_spec(index: int, family: bytes) -> bytes:
    body = _INFO.pack(0, 0, 0, index, 0, 0) + nest(_AF_SPEC, family)
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_properties(
    index: int, *, mac: bytes | None, mtu: int | None, group: int, alias: str
) -> bytes:
    """Bring the properties of a link back to what they should be; an ifb's address cannot be set
    (EOPNOTSUPP)."""
    body = (
        _INFO.pack(0, 0, 0, index, 0, 0)
        + (attribute(_ADDRESS, mac) if mac is not None else b"")
        + (attribute(_MTU, _NUMBER.pack(mtu)) if mtu is not None else b"")
        + attribute(_GROUP, _NUMBER.pack(group))
        + attribute(_IFALIAS, alias.encode())
    )
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_name(index: int, name: str) -> bytes:
    """Rename a link. Before Linux 6.2 it has to be down (EBUSY)."""
    body = _INFO.pack(0, 0, 0, index, 0, 0) + attribute(_IFNAME, name.encode() + b"\0")
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_free(index: int) -> bytes:
    """Take a link out of the bridge or bond that it is a port of."""
    body = _INFO.pack(0, 0, 0, index, 0, 0) + attribute(_MASTER, _NUMBER.pack(0))
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_mark(index: int, group: int, alias: str | None) -> bytes:
    """Group and alias of a link ("": none; None: as it is)."""
    body = _INFO.pack(0, 0, 0, index, 0, 0) + attribute(_GROUP, _NUMBER.pack(group))
    if alias is not None:
        body += attribute(_IFALIAS, alias.encode())
    return message(RTM_SETLINK, NLM_F_ACK, body)


def set_group(ifindex: int, group: int) -> bytes:
    """Put a link into a group."""
    body = _INFO.pack(0, 0, 0, ifindex, 0, 0) + attribute(_GROUP, _NUMBER.pack(group))
    return message(RTM_SETLINK, NLM_F_ACK, body)


def delete_by_name(name: str) -> bytes:
    """Delete a link; of a veth both ends go."""
    return _BY_NAME.pack(
        _BY_NAME.size, RTM_DELLINK, _REQUEST, 0, 0, *_NO_INFO, 20, _IFNAME, name.encode()
    )


def delete_by_index(index: int) -> bytes:
    """As `delete_by_name`."""
    return _BY_INDEX.pack(_BY_INDEX.size, RTM_DELLINK, _REQUEST, 0, 0, 0, 0, 0, index, 0, 0)


def delete_group(group: int) -> bytes:
    """Delete all links of a group, at the price of one. Group 0 is where every link of the
    machine is, so it is refused here."""
    if group == 0:
        raise ValueError("group 0 holds every link of the machine")
    body = _INFO.pack(*_NO_INFO) + attribute(_GROUP, _NUMBER.pack(group))
    return message(RTM_DELLINK, NLM_F_ACK, body)


def decode_indexes(body: memoryview) -> tuple[int, int]:
    """Index and peer index of an answer: the little that an attach needs of it."""
    index = _INFO.unpack_from(body)[3]
    found = chosen(body, _INFO.size, (_LINK,))
    return index, _INDEX.unpack(found[_LINK])[0] if _LINK in found else 0


def index_of(body: memoryview) -> int:
    """The interface index in any message about a link."""
    return int(_INFO.unpack_from(body)[3])


def is_moved(body: memoryview) -> bool:
    """Whether an RTM_DELLINK message is about a link that lives on in another namespace."""
    return any(kind == _NEW_NETNSID for kind, _ in attributes(body, _INFO.size))


def decode(body: memoryview) -> Link:
    """An RTM_NEWLINK or RTM_DELLINK message."""
    _, _, _, index, flags, _ = _INFO.unpack_from(body)
    found = chosen(body, _INFO.size, _DECODED)
    information, isolated = "", False
    if _LINKINFO in found:
        for kind, data in attributes(found[_LINKINFO]):
            if kind == _INFO_KIND:
                information = _text(data)
            elif kind == _INFO_SLAVE_DATA:
                isolated = any(at == _PORT_ISOLATED and port[0] for at, port in attributes(data))
    return Link(
        index,
        _text(found.get(_IFNAME)),
        bool(flags & IFF_UP),
        bytes(found.get(_ADDRESS, b"")),
        _number(found.get(_MTU)),
        _number(found.get(_GROUP)),
        _text(found.get(_IFALIAS)),
        information,
        _number(found.get(_LINK)),
        _number(found.get(_MASTER)),
        _INDEX.unpack(found[_LINK_NETNSID])[0] if _LINK_NETNSID in found else -1,
        isolated,
    )


def _text(data: memoryview | None) -> str:
    return "" if data is None else bytes(data).rstrip(b"\0").decode(errors="replace")


def _number(data: memoryview | None) -> int:
    return 0 if data is None else int(_NUMBER.unpack(data)[0])
