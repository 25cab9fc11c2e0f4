"""What the bench says of a figure: verdicts, units, the table."""

from __future__ import annotations

import pytest
from bench.figures import ratio
from bench.lines import Line, amount, line, peer, table


def compared(mine: float, target: float | None = 0.5, *, void: bool = False) -> Line:
    own, other = [[mine] * 4], [[1.0] * 4]
    return line(
        "add", "ADD", own, peer=peer("chain", other, ratio(own, other)), target=target, void=void
    )


def test_ratio_within_the_target_is_met_and_beyond_it_missed() -> None:
    assert compared(0.5).verdict == "met"
    assert compared(0.51).verdict == "missed"


def test_uneasy_machine_voids_what_is_compared_only() -> None:
    assert compared(0.1, void=True).verdict == "void"
    assert line("agent", "memory", [[40.0]], unit="MiB", target=45.0, void=True).verdict == "met"


def test_line_without_target_is_only_shown() -> None:
    assert compared(9.0, None).verdict == "shown"


def test_deadline_is_about_the_worst_sample() -> None:
    samples = [[0.1] * 99 + [3.0]]
    assert line("deadlines", "ADD", samples, target=2.0, of_worst=True).verdict == "missed"
    assert line("deadlines", "ADD", samples, target=2.0).verdict == "met"


def test_repairs_are_judged_by_their_99th_percentile() -> None:
    samples = [[0.1] * 150 + [9.0]]
    assert line("repair", "all", samples, target=1.0, of_p99=True).verdict == "met"
    assert line("repair", "all", [[0.1] * 50 + [9.0]], target=1.0, of_p99=True).verdict == "missed"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.234, "s", "1.23 s"),
        (0.001234, "s", "1.23 ms"),
        (0.0000056, "s", "5.6 us"),
        (-0.0012, "s", "-1.2 ms"),
        (0.0, "s", "0 us"),
        (4321.0, "s", "4321 s"),
        (36.84, "MiB", "36.8 MiB"),
        (0.019, "%", "0.019 %"),
    ],
)
def test_amounts_have_three_digits_and_a_unit(value: float, unit: str, shown: str) -> None:
    assert amount(value, unit) == shown  # type: ignore[arg-type]  # the parameters are literals


def test_table_shows_peer_ratio_target_and_verdict() -> None:
    shown = table([compared(0.25), line("agent", "memory", [[40.0]], unit="MiB", target=45.0)])
    head, group, first, other, second = shown.splitlines()
    assert head.split()[:5] == ["figure", "n", "p50", "p99", "worst"]
    assert (group, other) == ("-- add", "-- agent")
    assert " ".join(first.split()) == (
        "ADD 4 250 ms 250 ms 250 ms chain 1 s 1 s 0.250 (0.250-0.250) <= 0.5x met"
    )
    assert second.split()[-4:] == ["<=", "45", "MiB", "met"]
