"""Announcements of the few sysctls that the kernel announces: forwarding, of all links or one.

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
_IFINDEX, _FORWARDING = 1, 2
_NUMBER = struct.Struct("=i")
_VERSIONS = {AF_INET: 4, AF_INET6: 6}


class Forwarding(NamedTuple):
    """`version` 4 or 6; `ifindex` of a link, or ALL."""

    version: int
    ifindex: int
    on: bool


def decode(body: memoryview) -> Forwarding | None:
    """An RTM_NEWNETCONF message; None where it is not about forwarding."""
    version = _VERSIONS.get(body[0]) if len(body) >= _HEADER else None
    found = {kind: data for kind, data in attributes(body, _HEADER) if len(data) == _NUMBER.size}
    if version is None or _IFINDEX not in found or _FORWARDING not in found:
        return None
    return Forwarding(
        version, _NUMBER.unpack(found[_IFINDEX])[0], bool(_NUMBER.unpack(found[_FORWARDING])[0])
    )
