"""A firewall from which somebody keeps taking our rules is left alone, and asked again later."""

from __future__ import annotations

from weft.agent.insistence import LATELY, OFTEN, PAUSE, Insistence

RULE = ("docker", "from 10.244.0.0/16")
OTHER = ("ufw", "from 10.244.0.0/16")


def asked_again(subject: Insistence, times: int, apart: float = 1.0, now: float = 0.0) -> float:
    for _ in range(times):
        now += apart
        subject.told([RULE], [], now)
    return now


def test_first_asking_counts_for_nothing() -> None:
    subject = Insistence()
    now = asked_again(subject, OFTEN)
    assert subject.spared(now) == {}


def test_who_is_asked_again_too_often_is_left_alone_and_others_are_not() -> None:
    subject = Insistence()
    now = asked_again(subject, OFTEN)
    subject.told([OTHER], [], now)
    assert subject.told([RULE, OTHER], [], now) == ["docker"]
    assert subject.spared(now) == {"docker": PAUSE}
    assert subject.spared(now + PAUSE - 1) == {"docker": 1}
    assert subject.spared(now + PAUSE) == {}


def test_asking_that_is_far_apart_is_no_fight() -> None:
    subject = Insistence()
    now = asked_again(subject, OFTEN * 4, apart=LATELY / (OFTEN - 1))
    assert subject.spared(now) == {}


def test_what_we_took_back_ourselves_may_be_asked_for_again() -> None:
    subject = Insistence()
    for now in range(OFTEN * 3):
        assert subject.told([RULE], [], now) == []
        subject.told([], [RULE], now)
    assert subject.spared(now) == {}


def test_fight_that_goes_on_is_counted_anew_after_the_pause() -> None:
    subject = Insistence()
    now = asked_again(subject, OFTEN + 1) + PAUSE
    assert asked_again(subject, OFTEN - 1, now=now) and subject.spared(now + OFTEN) == {}
    assert subject.told([RULE], [], now + OFTEN) == ["docker"]
