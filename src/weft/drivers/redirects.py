"""The redirection of what comes in by a link through another one."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Medium, Names, Position, Scope, Stage
from weft.drivers.transports import LinkTransport
from weft.kernel import traffic_control
from weft.kernel.netlink import Failure
from weft.rows.bandwidth import Redirect
from weft.rows.base import Place, Row, RowKey


class Redirects:
    """Driver of `Redirect`. Its notifications come with those of `drivers.buckets`."""

    kinds = (Redirect,)
    gone = frozenset((errno.ENODEV, errno.ENOENT, errno.EINVAL))
    watch = None

    def position(self, _: Redirect) -> Position:
        """Before the link is up; both links stand, and have their numbers."""
        return Stage.HOST, -2

    def encode(self, old: Redirect | None, new: Redirect | None, names: Names) -> Sequence[bytes]:
        """A wrong one goes with all that hangs at the link's hooks, and is made again: a filter
        of this kind cannot be changed."""
        row = new or old
        if row is None:
            return ()
        index = names.index(Place.HOST, row.link)
        taken = (traffic_control.delete_hooks(index),) if old is not None else ()
        if new is None:
            return taken
        to = names.index(Place.HOST, new.to)
        return (
            *taken,
            traffic_control.add_hooks(index),
            traffic_control.add_redirect(index, to),
        )

    def read(self, rows: Sequence[Redirect], scope: Scope) -> Mapping[RowKey, Row]:
        """One question a link that has hooks; which have is known from one dump."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        numbers = {
            number: row
            for row in rows
            if (number := scope.names.find(Place.HOST, row.link)) is not None
        }
        found: dict[RowKey, Row] = {}
        for number in _hooked(via) if numbers else ():
            row = numbers.get(number)
            if row is not None:
                goal = _target(via, number)
                to = scope.names.name(Place.HOST, goal) if goal else None
                found[row.key] = Redirect(link=row.link, to=to or "")
        return found

    def words(self, row: Redirect, found: Row | None) -> str:
        """Missing, or to somewhere else."""
        where = found.to if isinstance(found, Redirect) else ""
        instead = f" but to {where}" if where else ""
        return f"what comes in by {row.link} is not redirected to {row.to}{instead}"

    def touched(self, _: int, __: memoryview, ___: Names) -> Collection[RowKey]:
        """Never called: `drivers.buckets` listens."""
        return ()


def _hooked(via: LinkTransport) -> list[int]:
    """Numbers of links with hooks for what comes in."""
    queues = (
        traffic_control.decode_queue(body) for _, body in via.dump(traffic_control.get_queues())
    )
    return [queue.ifindex for queue in queues if queue.kind in ("clsact", "ingress")]


def _target(via: LinkTransport, number: int) -> int:
    """Where the first filter sends everything; 0: it does not, or there is none."""
    try:
        answers = via.dump(traffic_control.get_filters(number))
    except Failure as failure:  # its link went meanwhile
        if failure.errno not in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            raise
        return 0
    filters = (traffic_control.decode_filter(body) for _, body in answers)
    return next((each.to for each in filters if each is not None), 0)
