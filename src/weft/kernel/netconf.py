"""Announcements of the few sysctls that the kernel announces: forwarding and rp_filter.

Source: include/uapi/linux/netconf.h; devinet.c and addrconf.c (inet{,6}_netconf_notify_devconf).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from weft.kernel.netlink import attributes
from weft.kernel.routes import AF_INET, AF_INET6

RTM_NEWNETCONF = 80
RTNLGRP_IPV4_NETCONF = 24
RTNLGRP_IPV6_NETCONF = 25
ALL = -1
"""Instead of an interface index: `net.ipvN.conf.all`."""

_HEADER = 4  # struct netconfmsg: the family, padded
_IFINDEX, _FORWARDING, _RP_FILTER = 1, 2, 3
_NUMBER = struct.Struct("=i")
_VERSIONS = {AF_INET: 4, AF_INET6: 6}


class Said(NamedTuple):
    """`version` 4 or 6; `ifindex` of a link, or ALL. None: the message does not say."""

    version: int
    ifindex: int
    forwarding: bool | None = None
    rp_filter: int | None = None


def decode(body: memoryview) -> Said | None:
    """An RTM_NEWNETCONF message; None where it is about nothing that we know."""
    version = _VERSIONS.get(body[0]) if len(body) >= _HEADER else None
    found = {kind: data for kind, data in attributes(body, _HEADER) if len(data) == _NUMBER.size}
    values = {kind: int(_NUMBER.unpack(data)[0]) for kind, data in found.items()}
    if version is None or _IFINDEX not in values or not values.keys() & {_FORWARDING, _RP_FILTER}:
        return None
    forwarding = values.get(_FORWARDING)
    return Said(
        version,
        values[_IFINDEX],
        None if forwarding is None else bool(forwarding),
        values.get(_RP_FILTER),
    )
