"""How long a firewall is asked again and again: who keeps taking our rules away is left alone.

Pure but for the clock's value, which callers give (seconds, monotonic). Rows of our own have
`agent.contest`, which mends ever more rarely; in somebody else's rules the other side is at home,
so there we stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

OFTEN, LATELY = 5, 60.0  # asked again so often within so many seconds: left alone for
PAUSE = 60.0  # seconds

Asked = tuple[str, str]
"""A firewall's word, and what it was asked for."""


class Insistence:
    """What was asked for before, and who is left alone until when."""

    def __init__(self, often: int = OFTEN, lately: float = LATELY, pause: float = PAUSE) -> None:
        self.often = often
        self.lately = lately
        self.pause = pause
        self._stood: set[Asked] = set()
        self._again: dict[str, deque[float]] = {}
        self._spared: dict[str, float] = {}

    def told(self, asked: Iterable[Asked], taken_back: Iterable[Asked], now: float) -> list[str]:
        """Take in what one look has done; the firewalls that are left alone from now on."""
        given = set(asked)
        contested = []
        for owner in sorted({owner for owner, _ in given & self._stood}):
            times = self._again.setdefault(owner, deque(maxlen=self.often))
            times.append(now)
            if len(times) == self.often and now - times[0] < self.lately:
                self._spared[owner] = now + self.pause
                times.clear()
                contested.append(owner)
        self._stood |= given
        self._stood -= set(taken_back)
        return contested

    def spared(self, now: float) -> Mapping[str, float]:
        """Firewalls that are left alone, and for how many seconds yet."""
        self._spared = {owner: until for owner, until in self._spared.items() if until > now}
        return {owner: until - now for owner, until in self._spared.items()}
