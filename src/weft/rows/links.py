"""Links and what hangs on them: veth pairs, ours or adopted, their up state, addresses, sysctls.

A veth pair is one row of the host: the peer is born in the pod's namespace under its final name
and is never moved or renamed. `Up` is a row of its own because guards and sysctls must stand
between the creation of a link and its first packet.
"""

from __future__ import annotations

import msgspec

from weft.rows.base import Place, Row, RowKey

PORT = -1
"""The `master` of a link of which a row `Port` tells."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The pod's end of a veth pair."""

    name: str
    mac: bytes  # 6 octets
    mtu: int


class Veth(Row, frozen=True, kw_only=True):
    """A veth pair seen from its host end; `peer` is None where the pod's side is not known.

    `master`: the number of the bridge that it is a port of; ours are ports of none (0), or of the
    one that a `Port` says (PORT).
    """

    name: str
    mac: bytes
    mtu: int
    alias: str  # IFLA_IFALIAS, at most 255 bytes: the attachment's record
    group: int  # IFLA_GROUP
    peer: Peer | None
    master: int = 0

    @property
    def key(self) -> RowKey:
        return ("Veth", self.name)


class Adoption(Row, frozen=True, kw_only=True):
    """A host's end of somebody else's veth pair, guarded as if it were ours: its mark.

    `alias` None: it has one of its maker's, which stays. `pod_link` and `pod_mac` are what the
    pod's end is called and its hardware address. `group_after` is the group to give back. `master`
    is the bridge that its maker made it a port of, or 0.
    """

    link: str
    index: int
    group: int
    alias: str | None
    pod_link: str
    pod_mac: bytes
    group_after: int = 0
    master: int = 0

    @property
    def key(self) -> RowKey:
        return ("Adoption", self.index)  # it may be renamed


class Bridge(Row, frozen=True, kw_only=True):
    """A bridge of the node's. `master`: as of a veth."""

    name: str
    mac: bytes
    alias: str
    group: int
    master: int = 0

    @property
    def key(self) -> RowKey:
        return ("Bridge", self.name)


class Port(Row, frozen=True, kw_only=True):
    """The link is a port of the bridge. `isolated`: it reaches no other isolated port."""

    link: str
    bridge: str
    isolated: bool

    @property
    def key(self) -> RowKey:
        return ("Port", self.link)


class Up(Row, frozen=True, kw_only=True):
    """The link is administratively up."""

    place: Place
    link: str

    @property
    def key(self) -> RowKey:
        return ("Up", self.place, self.link)


class Address(Row, frozen=True, kw_only=True):
    """An address on a link, without duplicate address detection (IFA_F_NODAD) for IPv6.

    `scope` is RT_SCOPE_UNIVERSE (0) or RT_SCOPE_LINK (253).
    """

    place: Place
    link: str
    ip: bytes
    prefix: int
    scope: int = 0

    @property
    def key(self) -> RowKey:
        return ("Address", self.place, self.link, self.ip, self.prefix)


class Sysctl(Row, frozen=True, kw_only=True):
    """One file below /proc/sys, path with slashes and without the root, for example
    `net/ipv6/conf/eth0/accept_ra`.

    `link` is the link whose life bounds the file's, or "" for a file of the whole namespace.
    `after` is what to write when the row is taken back; "": nothing, it goes with its link.
    """

    place: Place
    path: str
    value: str
    link: str = ""
    after: str = ""

    @property
    def key(self) -> RowKey:
        return ("Sysctl", self.place, self.path)
