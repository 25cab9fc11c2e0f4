"""Who fights us over a row: how often it was mended, and when it may be mended again.

A row that is damaged again and again as soon as it was mended is contested. It is then mended once
in a while only, the longer the fight the rarer, so that nobody can make the agent burn a processor;
everything else is mended as ever. A fight is over when the row has been left alone for a while.
No clock in here: `now` is the caller's, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from weft.rows.base import RowKey

OFTEN = 20
"""Mends of one row that are nothing special."""
WITHIN = 10.0
"""Seconds in which they may fall."""
FIRST, LONGEST = 0.5, 8.0
"""Seconds until a contested row is mended again: at first, and at most; each time twice as long."""
OVER = 30.0
"""Seconds without a mend after which nobody contests a row any more."""


@dataclass(slots=True)
class _Bout:
    began: float
    mends: int = 0
    last: float = 0.0
    pause: float = 0.0


class Contest:
    """Rows that have been mended lately."""

    def __init__(self) -> None:
        self._bouts: dict[RowKey, _Bout] = {}

    def mended(self, keys: Iterable[RowKey], now: float) -> list[RowKey]:
        """Note mends; those rows that are contested from this one on."""
        begun = []
        for key in keys:
            bout = self._bouts.get(key)
            if bout is None or (not bout.pause and now - bout.began > WITHIN):
                bout = self._bouts[key] = _Bout(began=now)
            bout.mends += 1
            bout.last = now
            if bout.pause:
                bout.pause = min(LONGEST, bout.pause * 2)
            elif bout.mends > OFTEN:
                bout.pause = FIRST
                begun.append(key)
        return begun

    def until(self, key: RowKey, now: float) -> float:
        """Seconds until this row may be mended again; 0: now."""
        bout = self._bouts.get(key)
        if bout is None or not bout.pause:
            return 0.0
        return max(0.0, bout.last + bout.pause - now)

    def over(self, now: float) -> list[RowKey]:
        """Forget old mends; the rows that are not contested any more."""
        ended = []
        for key, bout in list(self._bouts.items()):
            if now - bout.last > OVER:
                del self._bouts[key]
                if bout.pause:
                    ended.append(key)
        return ended

    def contested(self) -> list[RowKey]:
        """Rows that somebody fights us over."""
        return [key for key, bout in self._bouts.items() if bout.pause]
