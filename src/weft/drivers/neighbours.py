"""Permanent neighbours."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Names, Position, Scope, Stage, Watch
from weft.drivers.reading import dumps, written
from weft.kernel import routes
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.rows.base import Place, Row, RowKey
from weft.rows.routes import Neighbour

_PERMANENT = 0x80


class Neighbours:
    """Driver of `Neighbour`."""

    kinds = (Neighbour,)
    gone = frozenset((errno.ENOENT, errno.ENODEV))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(routes.RTNLGRP_NEIGH,))

    def position(self, row: Neighbour) -> Position:
        """Before routes, so that the first packet of a route finds its neighbour."""
        return (Stage.POD if row.place is Place.POD else Stage.HOST), 2

    def encode(self, old: Neighbour | None, new: Neighbour | None, names: Names) -> Sequence[bytes]:
        """Replacing is one message."""
        if new is not None:
            return (routes.add_neighbour(names.index(new.place, new.link), new.ip, new.mac),)
        if old is None:
            return ()
        return (routes.delete_neighbour(names.index(old.place, old.link), old.ip),)

    def read(self, rows: Sequence[Neighbour], scope: Scope) -> Mapping[RowKey, Row]:
        """An entry that is not permanent counts as missing: the kernel may drop it any time."""
        wanted = {row.key for row in rows}
        found: dict[RowKey, Row] = {}
        families = {len(row.ip) for row in rows}
        for link, entry in dumps(
            rows, families, scope, routes.get_neighbours, routes.decode_neighbour
        ):
            row = Neighbour(place=scope.place, link=link, ip=entry.ip, mac=entry.mac)
            if entry.state & _PERMANENT and row.key in wanted:
                found[row.key] = row
        return found

    def words(self, row: Neighbour, found: Row | None) -> str:
        """Missing, or with another hardware address."""
        where = "in the container" if row.place is Place.POD else "on the host"
        what = f"the permanent neighbour {written(row.ip)} of {row.link} {where}"
        if not isinstance(found, Neighbour):
            return what + " is missing"
        return f"{what} has MAC {found.mac.hex(':')} instead of {row.mac.hex(':')}"

    def touched(self, _: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """One neighbour."""
        entry = routes.decode_neighbour(body)
        link = names.name(Place.HOST, entry.ifindex) if entry is not None else None
        if entry is None or link is None:
            return ()
        return (("Neighbour", Place.HOST, link, entry.ip),)
