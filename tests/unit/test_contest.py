"""Fights over a row: who rewrites it again and again finds it mended ever more rarely."""

from __future__ import annotations

from weft.agent.contest import FIRST, LONGEST, OFTEN, OVER, WITHIN, Contest
from weft.agent.mending import shown
from weft.rows.base import Place
from weft.rows.rules import Family

KEY = ("Route", "ours")
OTHER = ("Route", "quiet")


def fight(subject: Contest, mends: int, apart: float = 0.1) -> float:
    now = 0.0
    for _ in range(mends):
        now += apart
        subject.mended([KEY], now)
    return now


def test_a_few_mends_are_nothing_special() -> None:
    subject = Contest()
    now = fight(subject, OFTEN)
    assert subject.contested() == []
    assert subject.until(KEY, now) == 0


def test_a_row_mended_often_is_contested_and_others_are_not() -> None:
    subject = Contest()
    now = fight(subject, OFTEN)
    subject.mended([OTHER], now)
    assert subject.mended([KEY], now) == [KEY], "told once, when it begins"
    assert subject.contested() == [KEY]
    assert subject.until(KEY, now) == FIRST
    assert subject.until(OTHER, now) == 0


def test_mends_that_are_far_apart_are_no_fight() -> None:
    subject = Contest()
    fight(subject, OFTEN * 4, apart=WITHIN)
    assert subject.contested() == []


def test_the_longer_the_fight_the_rarer_the_mends_up_to_a_bound() -> None:
    subject = Contest()
    now = fight(subject, OFTEN + 1)
    pauses = []
    for _ in range(10):
        now += subject.until(KEY, now)
        assert subject.mended([KEY], now) == []
        pauses.append(round(subject.until(KEY, now), 3))
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST


def test_a_row_that_is_left_alone_is_mended_at_once_again() -> None:
    subject = Contest()
    now = fight(subject, OFTEN + 1)
    assert subject.over(now + OVER) == []
    assert subject.over(now + OVER + 1) == [KEY]
    assert subject.contested() == []
    assert subject.until(KEY, now + OVER + 1) == 0


def test_who_reads_the_status_sees_which_row_it_is() -> None:
    link, mac, ip = b"wfaaaaaaaaaaaaa", bytes.fromhex("0a0000000001"), bytes((10, 244, 0, 2))
    assert shown(("Route", Place.HOST, 254, ip, 32, 0)) == "the route to 10.244.0.2/32 in table 254"
    assert shown(("Neighbour", Place.HOST, "wfaaaaaaaaaaaaa", bytes(15) + b"\1")) == (
        "neighbour host wfaaaaaaaaaaaaa ::1"
    )
    assert shown(("Element", Family.INET, "weft", "guard4", (link, mac, ip))) == (
        "element inet weft guard4 wfaaaaaaaaaaaaa . 0a:00:00:00:00:01 . 10.244.0.2"
    )
