"""Routes and neighbours: who is reached through which link, and at which hardware address."""

from __future__ import annotations

from weft.rows.base import Place, Row, RowKey

MAIN_TABLE = 254
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253


class Route(Row, frozen=True, kw_only=True):
    """One entry of a routing table with our protocol mark; a change of `via` replaces it.

    `via` None: the destination is on-link. `onlink`: the gateway needs no covering route
    (RTNH_F_ONLINK). `mtu` 0: none set.
    """

    place: Place
    link: str
    dst: bytes  # 4 or 16 octets
    prefix: int
    via: bytes | None = None
    onlink: bool = False
    scope: int = SCOPE_UNIVERSE  # IPv4 only; the kernel ignores it for IPv6
    src: bytes | None = None
    mtu: int = 0
    metric: int = 0
    table: int = MAIN_TABLE

    @property
    def key(self) -> RowKey:
        return ("Route", self.place, self.table, self.dst, self.prefix, self.metric)


class Neighbour(Row, frozen=True, kw_only=True):
    """A permanent neighbour entry (NUD_PERMANENT): never asked for, never overwritten."""

    place: Place
    link: str
    ip: bytes
    mac: bytes

    @property
    def key(self) -> RowKey:
        return ("Neighbour", self.place, self.link, self.ip)
