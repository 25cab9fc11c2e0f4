"""What keeps an attachment's rates: token buckets, and the device that makes one possible inwards.

    towards the pod   Bucket at the root of the host link
    from the pod      Redirect at the host link's ingress -> Ifb with a Bucket at its root

A packet that the Ifb lets through comes back as if it had just arrived by the host link, so rules
see it as ever. `fabric.bandwidth` says which of them an attachment needs.
"""

from __future__ import annotations

from weft.rows.base import Row, RowKey


class Ifb(Row, frozen=True, kw_only=True):
    """An intermediate functional block on the host: packets are sent through it to be queued.

    `master`: the bridge that somebody put it into; ours are ports of none (0).
    """

    name: str
    mtu: int
    alias: str
    group: int
    master: int = 0

    @property
    def key(self) -> RowKey:
        return ("Ifb", self.name)


class Bucket(Row, frozen=True, kw_only=True):
    """A token bucket (tbf) at the root of a link of the host.

    `rate`: octets a second, with the link's own header of each packet. `burst`: octets that may
    go at once. `limit`: octets that may wait; what comes then is dropped.
    """

    link: str
    rate: int
    burst: int
    limit: int

    @property
    def key(self) -> RowKey:
        return ("Bucket", self.link)


class Redirect(Row, frozen=True, kw_only=True):
    """Whatever comes in by `link` goes out by the link `to`, before any packet rule sees it."""

    link: str
    to: str

    @property
    def key(self) -> RowKey:
        return ("Redirect", self.link)
