"""Which token buckets a rate needs, and which rate a token bucket keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weft.fabric.bandwidth import HEADER, LONGEST_BURST, PLACEHOLDER, bucket, limits, limits_of
from weft.model.attachment import Attachment, AttachmentKey, limiter_of
from weft.model.bandwidth import HIGHEST_RATE, LOWEST_RATE, Bandwidth, format_rate, parse_quantity
from weft.rows.bandwidth import Bucket, Ifb, Redirect
from weft.rows.links import Up

RATES = st.integers(LOWEST_RATE, HIGHEST_RATE)
MTUS = st.integers(68, 65535)
KEY = AttachmentKey("net", "c1", "eth0")
GSO = 65536 + 44 * 66


def limited(mtu: int = 1500, **wanted: int) -> Attachment:
    return Attachment(
        key=KEY,
        state="ready",
        host_link=KEY.host_link,
        mac=KEY.pod_mac,
        mtu=mtu,
        addresses=(),
        bandwidth=Bandwidth(**wanted),
    )


@given(RATES, st.integers(0, 2**63), MTUS)
def test_every_bucket_passes_a_full_frame_and_fits_the_kernel(
    rate: int, burst: int, mtu: int
) -> None:
    made = bucket("wf", rate, burst, mtu)
    assert made.burst >= 4 * (mtu + HEADER) and made.limit >= 16 * (mtu + HEADER)
    assert max(made.burst, made.limit) < 2**31


@given(RATES, MTUS)
def test_full_packets_get_the_rate_that_was_asked(rate: int, mtu: int) -> None:
    octets = bucket("wf", rate, 0, mtu).rate
    # the next whole octet of frames
    assert rate * (mtu + HEADER) <= octets * 8 * mtu < rate * (mtu + HEADER) + 8 * mtu


def test_a_burst_lasts_twenty_milliseconds_and_a_queue_fifty() -> None:
    made = bucket("wf", 10**9, 0, 1500)
    assert abs(made.burst / made.rate - 0.02) < 1e-6
    assert abs(made.limit / made.rate - 0.05) < 1e-6
    assert bucket("wf", 28_000_000, 0, 1500).burst > GSO


def test_a_burst_that_was_said_is_kept_and_one_that_means_none_is_not() -> None:
    usual = bucket("wf", 10**6, 0, 1500)
    assert bucket("wf", 10**6, 800_000, 1500).burst == 100_000
    assert bucket("wf", 10**6, 1, 1500) == usual
    for none in (PLACEHOLDER, 2**32 - 1, 2**63 - 1, 10**6 * LONGEST_BURST + 1):
        assert bucket("wf", 10**6, none, 1500) == usual


def test_each_way_needs_its_own_rows() -> None:
    assert limits(limited()) == ()
    (inwards,) = limits(limited(ingress_rate=10**6))
    assert isinstance(inwards, Bucket) and inwards.link == KEY.host_link
    outwards = limits(limited(egress_rate=10**6))
    assert [type(row) for row in outwards] == [Ifb, Bucket, Redirect, Up]
    assert {row.link for row in outwards if isinstance(row, Bucket)} == {limiter_of(KEY.host_link)}


def test_the_ifb_is_named_after_its_link_and_is_no_pods_link() -> None:
    name = limiter_of(KEY.host_link)
    assert len(name) == 15 and not name.startswith("wf")
    assert name.removeprefix("wb") == KEY.host_link.removeprefix("wf")


@given(RATES, RATES, MTUS)
def test_rates_are_known_again_from_their_buckets(ingress: int, egress: int, mtu: int) -> None:
    """What is read back makes the same rows, so that nothing is written anew."""
    rows = limits(limited(mtu, ingress_rate=ingress, egress_rate=egress))
    standing = {row.link: row for row in rows if isinstance(row, Bucket)}
    known = limits_of(KEY, KEY.host_link, mtu, standing)
    again = limits(limited(mtu, **{name: getattr(known, name) for name in known.__struct_fields__}))
    assert again == rows
    assert abs(known.ingress_rate - ingress) <= 8 and abs(known.egress_rate - egress) <= 8
    assert not known.ingress_burst and not known.egress_burst


def test_round_rates_are_known_again_as_they_were_said() -> None:
    for rate in (8_000, 10**6, 10**7, 25_000_000, 10**9, 10**12):
        standing = {KEY.host_link: bucket(KEY.host_link, rate, 0, 1500)}
        assert limits_of(KEY, KEY.host_link, 1500, standing) == Bandwidth(ingress_rate=rate)
    said = bucket(KEY.host_link, 10**6, 10**6, 1500)
    known = limits_of(KEY, KEY.host_link, 1500, {KEY.host_link: said})
    assert known == Bandwidth(ingress_rate=10**6, ingress_burst=10**6)


@given(st.integers(1, HIGHEST_RATE))
def test_a_rate_is_shown_as_a_quantity_that_means_the_same(rate: int) -> None:
    assert parse_quantity(format_rate(rate), "rate") == rate
    assert format_rate(0) == "-" and format_rate(10**7) == "10M"
