"""Addresses on links."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Names, Position, Scope, Stage, Watch
from weft.drivers.reading import dumps, written
from weft.kernel import routes
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Address


class Addresses:
    """Driver of `Address`."""

    kinds = (Address,)
    gone = frozenset((errno.EADDRNOTAVAIL, errno.ENODEV, errno.ESRCH))
    watch = Watch(
        protocol=NETLINK_ROUTE, groups=(routes.RTNLGRP_IPV4_IFADDR, routes.RTNLGRP_IPV6_IFADDR)
    )

    def position(self, row: Address) -> Position:
        """Before routes, which may prefer one as their source."""
        return (Stage.POD if row.place is Place.POD else Stage.HOST), 1

    def encode(self, old: Address | None, new: Address | None, names: Names) -> Sequence[bytes]:
        """Another scope makes another address: the kernel cannot change it in place. A host
        address of IPv6 comes with its local route, so that it receives at once."""
        row = new or old
        if row is None:
            return ()
        index = names.index(row.place, row.link)
        messages = []
        if old is not None:
            if old.prefix == 128:
                messages.append(routes.delete_local(index, old.ip))
            messages.append(routes.delete_address(index, old.ip, old.prefix))
        if new is not None:
            messages.append(routes.add_address(index, new.ip, new.prefix, new.scope))
            if new.prefix == 128:
                messages.append(routes.add_local(index, new.ip))
        return messages

    def read(self, rows: Sequence[Address], scope: Scope) -> Mapping[RowKey, Row]:
        """Addresses of the links of `rows`. Of IPv6 the kernel derives the scope itself."""
        wanted = {row.key: row for row in rows}
        found: dict[RowKey, Row] = {}
        families = {len(row.ip) for row in rows}
        for link, body in dumps(rows, families, scope, routes.get_addresses, routes.decode_address):
            row = Address(
                place=scope.place, link=link, ip=body.ip, prefix=body.prefix, scope=body.scope
            )
            asked = wanted.get(row.key)
            if asked is not None:
                found[row.key] = asked if len(row.ip) == 16 else row
        return found

    def words(self, row: Address, found: Row | None) -> str:
        """Missing, or of another scope."""
        what = f"the address {written(row.ip, row.prefix)} of {row.link}"
        where = " in the container" if row.place is Place.POD else " on the host"
        return what + where + (" is missing" if found is None else " has another scope")

    def touched(self, _: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """One address."""
        entry = routes.decode_address(body)
        link = names.name(Place.HOST, entry.ifindex) if entry is not None else None
        if entry is None or link is None:
            return ()
        return (("Address", Place.HOST, link, entry.ip, entry.prefix),)
