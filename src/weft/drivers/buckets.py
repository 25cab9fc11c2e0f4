"""Token buckets at the root of links of the host."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

import msgspec

from weft.drivers.contract import Medium, Names, Position, Scope, Stage, Watch
from weft.drivers.transports import LinkTransport
from weft.kernel import traffic_control
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.kernel.traffic_control import Queue
from weft.rows.bandwidth import Bucket
from weft.rows.base import Place, Row, RowKey

SECOND = 1_000_000_000


class Buckets:
    """Driver of `Bucket`."""

    kinds = (Bucket,)
    gone = frozenset((errno.ENODEV, errno.ENOENT, errno.EINVAL))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(traffic_control.RTNLGRP_TC,))

    def position(self, _: Bucket) -> Position:
        """Before the link is up: no packet passes unlimited, and the kernel has no queue to wait
        for (a change under a link that is up takes a grace period)."""
        return Stage.HOST, -2

    def encode(self, old: Bucket | None, new: Bucket | None, names: Names) -> Sequence[bytes]:
        """Whatever was at the root is changed or replaced."""
        row = new or old
        if row is None:
            return ()
        index = names.index(Place.HOST, row.link)
        if new is None:
            return (traffic_control.delete_bucket(index),)
        return (traffic_control.set_bucket(index, new.rate, new.burst, new.limit),)

    def read(self, rows: Sequence[Bucket], scope: Scope) -> Mapping[RowKey, Row]:
        """From one dump: it holds no link's own queue, so it is as long as there are limits."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        numbers = {
            number: row
            for row in rows
            if (number := scope.names.find(Place.HOST, row.link)) is not None
        }
        found: dict[RowKey, Row] = {}
        for _, body in via.dump(traffic_control.get_queues()) if numbers else ():
            asked = numbers.get(traffic_control.index_of(body))
            queue = traffic_control.decode_queue(body)
            if asked is not None and queue.is_root and queue.rate:
                standing = bucket_of(asked.link, queue)
                found[asked.key] = asked if _is_same(asked, standing, queue) else standing
        return found

    def words(self, row: Bucket, found: Row | None) -> str:
        """Missing, or of other figures."""
        if not isinstance(found, Bucket):
            return f"the token bucket of {row.link} is missing"
        return (
            f"the token bucket of {row.link} has rate {found.rate}, burst {found.burst} and limit "
            f"{found.limit} instead of {row.rate}, {row.burst} and {row.limit} octets"
        )

    def touched(self, _: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """All that is limited on a link of ours."""
        link = names.name(Place.HOST, traffic_control.index_of(body))
        return () if link is None else (("Bucket", link), ("Redirect", link))


def bucket_of(link: str, queue: Queue) -> Bucket:
    """A bucket that stands on a link, its burst as near as the kernel tells."""
    return Bucket(
        link=link,
        rate=queue.rate,
        burst=round(queue.lasts * queue.rate / SECOND),
        limit=queue.limit,
    )


def _is_same(asked: Bucket, standing: Bucket, queue: Queue) -> bool:
    """The kernel keeps a burst as a time, in ticks of 64 ns, and counts in steps of its own."""
    lasts = asked.burst * SECOND / asked.rate
    close = abs(lasts - queue.lasts) <= max(256, lasts / 1000)
    return close and msgspec.structs.replace(standing, burst=asked.burst) == asked
