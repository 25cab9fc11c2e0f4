"""How the rates of an attachment are kept, as rows; and what rows that stand say of the rates.

A rate counts the octets of IP packets. A token bucket counts frames, so it is given the rate of
frames that carry full packets of the attachment's MTU: exact for those, and less for smaller
ones, each of which pays for its 14 octets of Ethernet header.

A bucket's depth (burst) is what passes at once after a silence. It has to last longer than the
kernel is late with its timer, or tokens are lost and the rate is not reached, and it is what a
short transfer gets beyond its rate. 20 ms of the rate are both: much more than a timer is late,
2 % of what passes in a second. Below about 2 Mbit/s that is less than four full frames, which is
the least: one frame must fit in any case, and with only one each late timer costs tokens.

TCP hands down up to 64 KiB as one packet. Where the bucket holds it (from about 27 Mbit/s on) it
goes as it is; a smaller bucket lets the kernel cut it into frames (tbf_segment), which is cheap at
such rates. All of them fit the queue from about 3 Mbit/s on; below, the last ones may be dropped.

What does not go at once waits: 50 ms of the rate, as a drop-tail queue. Less makes TCP lose packets
at the rate's edge (the reference plugin's 25 ms are two packets at 1 Mbit/s), more is delay for
all connections of the container. Two packets of 64 KiB, cut into frames, are the least, or TCP on
this machine loses a part of each (measured at 10 Mbit/s: 7 % less than the rate); but no more
than 200 ms, and in any case sixteen full frames, so that a connection's first ten fit (RFC 6928).
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.model.attachment import (
    LIVE_GROUP,
    Attachment,
    AttachmentKey,
    limiter_alias,
    limiter_of,
)
from weft.model.bandwidth import Bandwidth
from weft.rows.bandwidth import Bucket, Ifb, Redirect
from weft.rows.base import Place, Row
from weft.rows.links import Up

HEADER = 14
"""Octets of an Ethernet header, which a bucket counts with each packet."""
BURST_PER_SECOND = 50  # a bucket holds a 50th of a second
QUEUE_PER_SECOND, SLOWEST_PER_SECOND = 20, 5  # a 20th of a second may wait, a fifth at most
LARGEST = 2 * (1 << 16)
FEWEST_FRAMES, FEWEST_WAITING = 4, 16
PLACEHOLDER = 2**31 - 1
"""Bits from which on a burst is "none" in other words: the kubelet says 2**31-1, containerd
2**32-1."""
LONGEST_BURST = 10
"""Seconds; a burst that lasts longer at its rate is no limit for what most containers do."""
MOST = 1 << 30
"""Octets of a burst or queue at most: the kernel keeps them in 32 bits."""
IFB_MTU = 1000
"""An ifb takes packets of every size whatever its MTU is (only who routes to a link asks for its
MTU, and nobody routes to this one). Below 1280 it gets no IPv6: no address of its own, no
solicitations, no files."""


def bucket(link: str, rate: int, burst: int, mtu: int) -> Bucket:
    """The token bucket of a link for `rate` bits a second and `burst` bits (0: not said)."""
    frame = mtu + HEADER
    octets = -(-rate * frame // (8 * mtu))
    wanted = octets // BURST_PER_SECOND
    if 0 < burst < PLACEHOLDER and burst <= rate * LONGEST_BURST:
        wanted = -(-burst // 8)
    return Bucket(
        link=link,
        rate=octets,
        burst=min(max(wanted, FEWEST_FRAMES * frame), MOST),
        limit=min(_limit(octets, mtu), MOST),
    )


def _limit(octets: int, mtu: int) -> int:
    """Octets that may wait, as the module says."""
    frame = mtu + HEADER
    large = LARGEST * frame // mtu + frame
    return max(
        octets // QUEUE_PER_SECOND,
        min(large, octets // SLOWEST_PER_SECOND),
        FEWEST_WAITING * frame,
    )


def limits(attachment: Attachment) -> tuple[Row, ...]:
    """The rows that keep the rates of an attachment; none where nothing is limited."""
    wanted, link, mtu = attachment.bandwidth, attachment.host_link, attachment.mtu
    rows: list[Row] = []
    if wanted.ingress_rate:
        rows.append(bucket(link, wanted.ingress_rate, wanted.ingress_burst, mtu))
    if wanted.egress_rate:
        between = limiter_of(attachment.key.host_link)
        rows += (
            Ifb(
                name=between,
                mtu=IFB_MTU,
                alias=limiter_alias(attachment.key.host_link),
                group=LIVE_GROUP,
            ),
            bucket(between, wanted.egress_rate, wanted.egress_burst, mtu),
            Redirect(link=link, to=between),
            Up(place=Place.HOST, link=between),
        )
    return tuple(rows)


def limits_of(key: AttachmentKey, link: str, mtu: int, standing: Mapping[str, Bucket]) -> Bandwidth:
    """The rates that the buckets by link keep for an attachment and its host link: what `limits`
    makes the same buckets of. A burst is told only where it is not what `bucket` gives by itself.
    """
    ingress, ingress_burst = _said(standing.get(link), mtu)
    egress, egress_burst = _said(standing.get(limiter_of(key.host_link)), mtu)
    return Bandwidth(
        ingress_rate=ingress,
        ingress_burst=ingress_burst,
        egress_rate=egress,
        egress_burst=egress_burst,
    )


def _roundest(octets: int, mtu: int) -> int:
    """Of the rates of which `bucket` makes these octets a second, the one that a person would
    write: with the most zeros at its end."""
    frame = mtu + HEADER
    rates = range((octets - 1) * 8 * mtu // frame + 1, octets * 8 * mtu // frame + 1)
    return max(rates, key=lambda rate: len(str(rate)) - len(str(rate).rstrip("0")))


def _said(found: Bucket | None, mtu: int) -> tuple[int, int]:
    if found is None or not found.rate:
        return 0, 0
    rate = _roundest(found.rate, mtu)
    usual = bucket(found.link, rate, 0, mtu).burst
    # the kernel keeps a burst as the time it lasts: some octets are lost on the way
    if abs(found.burst - usual) <= max(2, usual // 1000):
        return rate, 0
    return rate, found.burst * 8
