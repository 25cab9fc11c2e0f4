"""Routes with our mark, in any table.

A route to one address of ours may stand and yet lead nobody: somebody has put another in front of
it, with a better metric or the same, or replaced it by one without our mark. What we promise is
where packets go, so for such routes the kernel is asked for that (RTM_F_FIB_MATCH). A rival is a
route to exactly the same address, in the same table; it goes. No other foreign route is touched.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from weft.drivers.contract import Medium, Names, Position, Scope, Stage, Watch
from weft.drivers.reading import dumps, written
from weft.drivers.transports import LinkTransport
from weft.kernel import routes
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.rows.base import Place, Row, RowKey
from weft.rows.routes import SCOPE_UNIVERSE, Route

Ends = dict[tuple[int, bytes], routes.AnyRoute]
_AT_ONCE = 250
"""Questions in one exchange: their answers wait in the receive buffer."""


class Rivalled(Row, frozen=True, kw_only=True):
    """A route of ours behind somebody else's. `standing`: ours, if it is there at all."""

    wanted: Route
    rival: routes.AnyRoute
    standing: Route | None

    @property
    def key(self) -> RowKey:
        return self.wanted.key


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

    def encode(
        self, old: Route | Rivalled | None, new: Route | None, names: Names
    ) -> Sequence[bytes]:
        """Replacing is one message, whatever the old route said; a rival is deleted before."""
        if isinstance(old, Rivalled):
            ours = routes.add_route(_entry(new, names)) if new is not None else b""
            return routes.delete_any(old.rival), *((ours,) if ours else ())
        if new is not None:
            return (routes.add_route(_entry(new, names)),)
        return (routes.delete_route(_entry(old, names)),) if old is not None else ()

    def read(self, rows: Sequence[Route], scope: Scope) -> Mapping[RowKey, Row]:
        """Our routes through the links of `rows`, of all tables."""
        found: dict[RowKey, Row] = {}
        rivals: dict[RowKey, routes.AnyRoute] = {}
        if scope.place is Place.HOST:
            asked = [row for row in rows if row.prefix == len(row.dst) * 8]
            found, rivals = _leading(asked, scope)
        rest = [row for row in rows if row.key not in found]
        standing = _standing(rest, scope) if rest else {}
        for row in rest:
            known = standing.get(row.key)
            rival = rivals.get(row.key)
            if rival is not None:
                found[row.key] = Rivalled(wanted=row, rival=rival, standing=known)
            elif known is not None:
                found[row.key] = known
        return found

    def words(self, row: Route, found: Row | None) -> str:
        """Missing, or leading elsewhere."""
        where = "in the container" if row.place is Place.POD else "on the host"
        what = f"the route to {written(row.dst, row.prefix)} through {row.link} {where}"
        if isinstance(found, Rivalled):
            how = "hidden by another" if found.standing is not None else "replaced by another"
            return f"{what} is {how} of protocol {found.rival.protocol}"
        if not isinstance(found, Route):
            return what + " is missing"
        for field in ("via", "link", "mtu", "src", "scope", "onlink"):
            one, other = getattr(_plain(row), field), getattr(found, field)
            if one != other:
                return f"{what} has {field} {_shown(other)} instead of {_shown(one)}"
        return what + " is another one"

    def touched(self, _: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """A route to one address, whosesoever it is: it may be in front of ours, or have replaced
        it. When a link goes, the kernel announces only the link."""
        other = routes.decode_any(body)
        if other is None:
            return ()
        if other.prefix == len(other.dst) * 8:
            key = ("Route", Place.HOST, other.table, other.dst, other.prefix)
            return (*key, 0), (*key, other.metric)
        entry = routes.decode_route(body)
        link = names.name(Place.HOST, entry.ifindex) if entry is not None else None
        if entry is None or link is None:
            return ()
        return (_row(Place.HOST, link, entry).key,)


def _standing(rows: Sequence[Route], scope: Scope) -> dict[RowKey, Route]:
    """Those of `rows` that have an entry with our mark, whether or not it leads anybody."""
    wanted = {_plain(row).key: row for row in rows}
    found: dict[RowKey, Route] = {}
    families = {len(row.dst) for row in rows}
    for link, entry in dumps(rows, families, scope, _request, routes.decode_route):
        row = _row(scope.place, link, entry)
        asked = wanted.get(row.key)
        if asked is not None:
            found[asked.key] = asked if row == _plain(asked) else row
    return found


def _leading(
    rows: Sequence[Route], scope: Scope
) -> tuple[dict[RowKey, Row], dict[RowKey, routes.AnyRoute]]:
    """Of routes to one address each: those that lead there as wanted, and rivals of the others."""
    via: LinkTransport = scope.transport(Medium.HOST_LINKS)
    right: dict[RowKey, Row] = {}
    rivals: dict[RowKey, routes.AnyRoute] = {}
    dead = []
    for row, body in _matches(rows, via):
        if body is None:
            dead.append(row)
            continue
        entry = routes.decode_route(body)
        if entry is not None and entry.dst == row.dst and entry.prefix == row.prefix:
            link = scope.names.name(scope.place, entry.ifindex)
            if _row(scope.place, link or "", entry) == _plain(row):
                right[row.key] = row
            continue
        other = routes.decode_any(body)
        if other is not None and _same_goal(row, other):
            rivals[row.key] = other
    if dead:
        ends = _dead_ends({len(row.dst) for row in dead}, via)
        for row in dead:
            if (row.table, row.dst) in ends:
                rivals[row.key] = ends[row.table, row.dst]
    return right, rivals


def _matches(
    rows: Sequence[Route], via: LinkTransport
) -> Iterator[tuple[Route, memoryview | None]]:
    """Each row with the entry that packets take; None where they take none."""
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        outcome = via.commit([routes.get_match(row.dst) for row in part])
        answers = {at: body for at, _, body in outcome.answers}
        for at, row in enumerate(part):
            yield row, answers.get(at)


def _same_goal(row: Route, other: routes.AnyRoute) -> bool:
    return (other.table, other.dst, other.prefix) == (row.table, row.dst, row.prefix)


def _dead_ends(
    lengths: Collection[int], via: LinkTransport
) -> dict[tuple[int, bytes], routes.AnyRoute]:
    found = {}
    for length in lengths:
        family = routes.AF_INET if length == 4 else routes.AF_INET6
        for kind in routes.DEAD_ENDS:
            for _, body in via.dump(routes.get_dead_ends(family, kind)):
                other = routes.decode_any(body)
                if other is not None and other.prefix == length * 8:
                    found[other.table, other.dst] = other
    return found


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
