"""What is counted while the agent works: plain lists of numbers, nothing imported.

One thread writes, others may read at any time: what they copy is at most one observation torn.
`Laps` costs about half a microsecond a step, which ADD's path can pay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from time import perf_counter

REQUEST_BOUNDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds for whole requests, in seconds: from a quiet ADD to a launcher's patience."""
STEP_BOUNDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.5, 2.5),
)
"""Upper bounds for one step of a request, in seconds."""
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
"""Upper bounds for how late the loop is, in seconds."""


class Histogram:
    """Observations by upper bound. Bounds are inclusive, as `le` says."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Laps:
    """Where the time of a request goes: each lap is the time since the last mark.

    For the part of a request that runs in one turn of the loop; a request that waits marks anew
    when it goes on. Steps that nobody named before are a defect, and raise KeyError.
    """

    __slots__ = ("_mark", "steps")

    def __init__(self, steps: Iterable[str]) -> None:
        self.steps = {step: Histogram(STEP_BOUNDS) for step in steps}
        self._mark = 0.0

    def mark(self, at: float | None = None) -> None:
        """The next lap begins now, or began `at` (perf_counter)."""
        self._mark = perf_counter() if at is None else at

    def lap(self, step: str) -> None:
        """This step took from the last mark to now; now is the next mark."""
        now = perf_counter()
        self.steps[step].observe(now - self._mark)
        self._mark = now
