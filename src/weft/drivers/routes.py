"""Routes with our mark, in any table."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

import msgspec

from weft.drivers.contract import Names, Position, Scope, Stage, Watch
from weft.drivers.reading import dumps, written
from weft.kernel import routes
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.rows.base import Place, Row, RowKey
from weft.rows.routes import SCOPE_UNIVERSE, Route


class Routes:
    """Driver of `Route`."""

    kinds = (Route,)
    gone = frozenset((errno.ESRCH, errno.ENODEV, errno.ENOENT))
    watch = Watch(
        protocol=NETLINK_ROUTE, groups=(routes.RTNLGRP_IPV4_ROUTE, routes.RTNLGRP_IPV6_ROUTE)
    )

    def position(self, row: Route) -> Position:
        """What is on-link comes first: gateways are looked up in it."""
        stage = Stage.POD if row.place is Place.POD else Stage.HOST
        return stage, 3 if row.via is None else 4

    def encode(self, old: Route | None, new: Route | None, names: Names) -> Sequence[bytes]:
        """Replacing is one message, whatever the old route said."""
        if new is not None:
            return (routes.add_route(_entry(new, names)),)
        return (routes.delete_route(_entry(old, names)),) if old is not None else ()

    def read(self, rows: Sequence[Route], scope: Scope) -> Mapping[RowKey, Row]:
        """Our routes through the links of `rows`, of all tables."""
        wanted = {_plain(row).key: row for row in rows}
        found: dict[RowKey, Row] = {}
        families = {len(row.dst) for row in rows}
        for link, entry in dumps(rows, families, scope, _request, routes.decode_route):
            row = _row(scope.place, link, entry)
            asked = wanted.get(row.key)
            if asked is not None:
                found[asked.key] = asked if row == _plain(asked) else row
        return found

    def words(self, row: Route, found: Row | None) -> str:
        """Missing, or leading elsewhere."""
        where = "in the container" if row.place is Place.POD else "on the host"
        what = f"the route to {written(row.dst, row.prefix)} through {row.link} {where}"
        if not isinstance(found, Route):
            return what + " is missing"
        for field in ("via", "link", "mtu", "src", "scope", "onlink"):
            one, other = getattr(_plain(row), field), getattr(found, field)
            if one != other:
                return f"{what} has {field} {_shown(other)} instead of {_shown(one)}"
        return what + " is another one"

    def touched(self, _: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """One route, if it is ours. When a link goes, the kernel announces only the link."""
        entry = routes.decode_route(body)
        link = names.name(Place.HOST, entry.ifindex) if entry is not None else None
        if entry is None or link is None:
            return ()
        return (_row(Place.HOST, link, entry).key,)


def _request(family: int, index: int) -> bytes:
    return routes.get_routes(family, index=index)


def _entry(row: Route, names: Names) -> routes.RouteEntry:
    return routes.RouteEntry(
        names.index(row.place, row.link), row.dst, row.prefix, row.via, row.onlink, row.scope,
        row.src, row.mtu, row.metric, row.table,
    )  # fmt: skip


def _row(place: Place, link: str, entry: routes.RouteEntry) -> Route:
    return Route(
        place=place,
        link=link,
        dst=entry.dst,
        prefix=entry.prefix,
        via=entry.via,
        onlink=entry.onlink,
        scope=entry.scope,
        src=entry.src,
        mtu=entry.mtu,
        metric=entry.metric,
        table=entry.table,
    )


def _plain(row: Route) -> Route:
    """As the kernel gives it back: IPv6 has no scope, and 1024 is its metric for "none"."""
    if len(row.dst) == 4 or (row.scope == SCOPE_UNIVERSE and row.metric != routes.METRIC6):
        return row
    metric = 0 if row.metric == routes.METRIC6 else row.metric
    return msgspec.structs.replace(row, scope=SCOPE_UNIVERSE, metric=metric)


def _shown(value: object) -> str:
    return written(value) if isinstance(value, bytes) else str(value)
