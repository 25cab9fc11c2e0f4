"""Statistics of measured times. Pure: samples in, figures out; the only chance is seeded.

A sample is seconds (or any unit) of one operation; a round is a block of samples of one side.
Rounds of two sides are taken within the same seconds, so what disturbs the machine disturbs both.
The ratio is that of the medians of all samples, which is what the targets are about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

RESAMPLES = 1000
SEED = 20_211
Rounds = Sequence[Sequence[float]]


class Ratio(NamedTuple):
    """A ratio of two sides with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def quantile(samples: Sequence[float], share: float) -> float:
    """The value below which that share of the samples lies, interpolated between neighbours."""
    if not samples:
        raise ValueError("a quantile needs samples")
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share")
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(samples: Sequence[float]) -> float:
    """The middle value."""
    return quantile(samples, 0.5)


def pooled(rounds: Rounds) -> list[float]:
    """All samples of all rounds."""
    return [sample for samples in rounds for sample in samples]


def ratio(subject: Rounds, peer: Rounds, *, resamples: int = RESAMPLES) -> Ratio:
    """How long the subject takes compared with the peer."""
    return _bootstrapped([subject, peer], _quotient, resamples)


def added(longer: Rounds, shorter: Rounds, unit: Rounds, *, resamples: int = RESAMPLES) -> Ratio:
    """What `longer` takes more than `shorter`, in multiples of `unit`."""
    return _bootstrapped([longer, shorter, unit], _difference, resamples)


def _quotient(medians: Sequence[float]) -> float:
    subject, peer = medians
    return subject / peer


def _difference(medians: Sequence[float]) -> float:
    longer, shorter, unit = medians
    return (longer - shorter) / unit


def _bootstrapped(
    sides: Sequence[Rounds], formula: Callable[[Sequence[float]], float], resamples: int
) -> Ratio:
    """The formula of the sides' medians, and its spread when whole rounds are drawn again: a round
    is one mood of the machine, so its samples are not independent of each other. The same rounds
    are drawn for all sides, which were measured within the same seconds."""
    count = len(sides[0])
    if not count or any(len(side) != count for side in sides):
        raise ValueError("sides need the same number of rounds, at least one")
    value = formula([median(pooled(side)) for side in sides])
    chance = random.Random(SEED)
    found = []
    for _ in range(resamples):
        drawn = chance.choices(range(count), k=count)
        found.append(formula([median(pooled([side[at] for at in drawn])) for side in sides]))
    return Ratio(value, quantile(found, 0.025), quantile(found, 0.975))
