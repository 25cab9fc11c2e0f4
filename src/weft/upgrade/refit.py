"""The step of an upgrade that changes systemd's units: which, and how they are told.

Before the agent is started anew, and before the first unit is replaced what lay there is kept
(`units.Shelf`). What a unit is may be told by the releases of this upgrade and of one that was cut
short; where one of them has no units that anybody knows, every plain file may be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from weft.upgrade import units
from weft.upgrade.keeper import Keeper
from weft.upgrade.preflight import View
from weft.upgrade.record import Record
from weft.upgrade.release import Asked, Release


class Refit:
    """`note` is told every file before it is written."""

    def __init__(
        self,
        view: View,
        keeper: Keeper,
        record: Record,
        asked: Asked,
        note: Callable[[Path, bytes], None],
    ) -> None:
        self.done = False
        """systemd has other units now than those with which the agent was started."""
        self._view = view
        self._keeper = keeper
        self._record = record
        self._asked = asked
        self._note = note
        self._shelf = units.Shelf(view.state)

    def changes(self, goal: Release | None) -> tuple[list[units.Change], list[str]]:
        """What the release wants otherwise, and the names that are left to who edited them."""
        wanted = self._shelf.of(goal) if goal is not None else None
        if self._keeper.units is None or wanted is None:
            return [], []
        standing = self._record.read()
        targets = {self._view.origin} | ({standing.origin, standing.goal} if standing else set())
        known = [wanted]
        for target in targets:
            release = self._asked.at(self._view.leads_to(target))
            brought = self._shelf.of(release) if release is not None else None
            if brought is None:
                return units.changes(units.read(self._keeper.units), wanted, None)
            known.append(brought)
        return units.changes(units.read(self._keeper.units), wanted, known)

    def words(self, todo: Sequence[units.Change], left: Sequence[str]) -> str:
        """For a person."""
        words = [f"{'remove' if e.content is None else 'place'} {e.name}" for e in todo]
        words += [f"leave {name}, which somebody edited: use a drop-in" for name in left]
        return f"{self._keeper.units}: " + (", ".join(words) or "nothing to change")

    def perform(self, goal: Release | None) -> tuple[bool, str]:
        """Whether systemd has others now, and what was done."""
        todo, left = self.changes(goal)
        if todo and self._keeper.units is not None:
            self._keep()
            for each in todo:
                if each.content is not None:
                    self._note(self._keeper.units / each.name, each.content)
            units.perform(self._keeper.units, todo)
        self.done = self._keeper.reload() or bool(todo)
        return self.done, self.words(todo, left)

    def _keep(self) -> None:
        """What the release had from which the upgrade comes, if it does not bring it itself."""
        standing = self._record.read()
        if standing is None or self._keeper.units is None:
            return
        origin = self._asked.at(self._view.leads_to(standing.origin))
        if origin is not None and not origin.units:
            self._shelf.keep(origin.version, units.read(self._keeper.units))

    def finish(self, program: str) -> None:
        """The upgrade has ended, and this program serves: what was kept of it is in use again."""
        if self._keeper.units is not None and (release := self._asked.at(program)) is not None:
            self._shelf.forget(release.version)
