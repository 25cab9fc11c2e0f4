"""Links that are administratively up, in the pod and on the host."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Medium, Names, Position, Scope, Stage
from weft.drivers.links import FEW
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.model.attachment import LIMITER_PREFIX
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Up


class Ups:
    """Driver of `Up`. Its notifications come with those of `drivers.links`."""

    kinds = (Up,)
    gone = frozenset((errno.ENODEV,))
    watch = None

    def position(self, row: Up) -> Position:
        """First of the rtnetlink stage of its place: routes need a link that is up. Of a host's end
        only what limits its rates comes before, the ifb being up included."""
        if row.place is Place.POD:
            return Stage.POD, 0
        return Stage.HOST, -1 if row.link.startswith(LIMITER_PREFIX) else 0

    def encode(self, _: Up | None, new: Up | None, names: Names) -> Sequence[bytes]:
        """A link is never taken down: it is deleted, and lo belongs to the pod."""
        if new is None:
            return ()
        return (links.set_up(names.index(new.place, new.link)),)

    def read(self, rows: Sequence[Up], scope: Scope) -> Mapping[RowKey, Row]:
        """By name, or from a dump."""
        inside = scope.place is Place.POD
        via: LinkTransport = scope.transport(Medium.POD_LINKS if inside else Medium.HOST_LINKS)
        if len(rows) <= FEW:
            standing = [via.find(row.link) for row in rows]
        else:
            standing = [links.decode(body) for _, body in via.dump(links.get_all())]
        up = {link.name for link in standing if link is not None and link.up}
        return {row.key: row for row in rows if row.link in up}

    def words(self, row: Up, _: Row | None) -> str:
        """There is only one way to differ."""
        where = "in the container" if row.place is Place.POD else "on the host"
        return f"the link {row.link} {where} is missing or down"

    def touched(self, _: int, __: memoryview, ___: Names) -> Collection[RowKey]:
        """Never called: `drivers.links` watches links."""
        return ()
