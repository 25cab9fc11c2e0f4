"""The statistics of the bench: what a ratio is, and how sure it may be of itself."""

from __future__ import annotations

import random

import pytest
from bench.figures import Ratio, added, median, quantile, ratio


def noisy(center: float, *, rounds: int = 20, block: int = 5, seed: int = 1) -> list[list[float]]:
    chance = random.Random(seed)
    return [[center * chance.uniform(0.9, 1.1) for _ in range(block)] for _ in range(rounds)]


def test_quantile_lies_between_neighbours() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([1.0, 2.0], 0.0) == 1.0
    assert quantile([1.0, 2.0], 1.0) == 2.0
    assert quantile(list(map(float, range(101))), 0.99) == 99.0


def test_quantile_of_one_sample_is_the_sample() -> None:
    assert quantile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(("samples", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_quantile_without_meaning_is_refused(samples: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"samples|share"):
        quantile(samples, share)


def test_median_ignores_one_wild_sample() -> None:
    assert median([1.0, 1.0, 1.0, 1.0, 900.0]) == 1.0


def test_ratio_of_equal_sides_is_one() -> None:
    same = noisy(3.0)
    assert ratio(same, same) == Ratio(1.0, 1.0, 1.0)


def test_interval_holds_the_true_ratio_and_the_value() -> None:
    found = ratio(noisy(1.0, seed=1), noisy(10.0, seed=2))
    assert found.low < 0.1 < found.high
    assert found.low <= found.value <= found.high


def test_interval_tells_a_real_difference_from_none() -> None:
    assert ratio(noisy(1.2, seed=1), noisy(1.0, seed=2)).low > 1
    calm = ratio(noisy(1.0, seed=1), noisy(1.0, seed=2))
    assert calm.low < 1 < calm.high


def test_interval_is_wide_where_rounds_differ() -> None:
    # a machine that is busy every other round, for the subject only
    uneasy = [[1.0 if at % 2 else 3.0] * 5 for at in range(20)]
    found = ratio(uneasy, [[1.0] * 5] * 20)
    assert found.high - found.low > 1


def test_trouble_that_meets_both_sides_leaves_the_ratio_alone() -> None:
    moods = [1.0, 5.0, 1.0, 1.0, 2.0, 1.0, 8.0]
    found = ratio([[mood] * 3 for mood in moods], [[mood * 4] * 3 for mood in moods])
    assert found == Ratio(0.25, 0.25, 0.25)


def test_same_samples_give_the_same_interval() -> None:
    sides = noisy(1.0, seed=3), noisy(2.0, seed=4)
    assert ratio(*sides) == ratio(*sides)


def test_addition_is_counted_in_units_of_the_third_side() -> None:
    assert added([[3.0]], [[2.0]], [[4.0]]).value == 0.25


@pytest.mark.parametrize("sides", [([], []), ([[1.0]], [[1.0], [2.0]])])
def test_sides_of_different_or_no_rounds_are_refused(sides: tuple[list[list[float]], ...]) -> None:
    with pytest.raises(ValueError, match="same number of rounds"):
        ratio(*sides)
