"""Comparing what stands with what is wanted, in a worker, and mending it, in slices on the loop.

A worker reads, with sockets of its own, so the loop goes on; between two slices of mending it goes
on, too. What is being mended is asked for once more when its turn comes: a container may have left
meanwhile. Nothing inside a container is looked at. What was mended is an event, and a number.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from weft.agent.contest import Contest
from weft.agent.events import Log
from weft.agent.node import OWNER
from weft.drivers.comparison import compare
from weft.drivers.contract import Difference
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.strays import KINDS, strays, words
from weft.drivers.surroundings import Host
from weft.model.addresses import address_of
from weft.model.attachment import LINK_PREFIX
from weft.render.sets import TABLE
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Veth
from weft.rows.rules import Chain, Element, Set, Table

AT_ONCE = 100  # owners that a worker compares in one go
SAID = 4  # differences that an event spells out
TOLD = 5  # owners that have an event each; of more at once there is one event in all

Found = dict[str, list[Difference]]


class Doubt(NamedTuple):
    """What may be wrong: whole owners; keys that may be nobody's; everything in our tables."""

    owners: Collection[str] = ()
    suspects: Collection[RowKey] = ()
    strays: Sequence[Row] = ()  # on our links, as notifications said
    rules: bool = False


class Outcome(NamedTuple):
    """`damaged`: owners that were not as they should be; `waiting`: those of them whose contested
    rows may be mended only after so many seconds."""

    damaged: frozenset[str]
    waiting: dict[str, float]


class Mender:
    """`mend` what is in doubt; `repairs` counts what was wrong, by kind of row."""

    def __init__(
        self, engine: Engine, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock
        self.contest = Contest()
        self.repairs: Counter[str] = Counter()

    async def mend(self, doubt: Doubt) -> Outcome:
        """Compare and mend. Raises WeftError where the kernel cannot be read."""
        damaged: set[str] = set()
        waiting: dict[str, float] = {}
        owners = list(doubt.owners)
        if OWNER in owners:
            # a chain of ours may lead to one that has to go
            part = self._rows([OWNER])
            found = _by_owner(part, await asyncio.to_thread(self._compared, part))
            damaged |= await self._perform(found, (), waiting)
            owners.remove(OWNER)
        if doubt.rules or doubt.suspects or doubt.strays:
            found, left = await self._rules(doubt)
            damaged |= await self._perform(found, (*left, *doubt.strays), waiting)
        for start in range(0, len(owners), AT_ONCE):
            part = self._rows(owners[start : start + AT_ONCE])
            found = _by_owner(part, await asyncio.to_thread(self._compared, part))
            damaged |= await self._perform(found, (), waiting)
        return Outcome(frozenset(damaged), waiting)

    # -- looking, in a worker

    def _rows(self, owners: Collection[str]) -> Mapping[str, tuple[Row, ...]]:
        return {owner: self._engine.rows(owner) for owner in owners}

    def _compared(self, part: Mapping[str, tuple[Row, ...]]) -> list[Difference]:
        rows = [
            row
            for held in part.values()
            for row in held
            if getattr(row, "place", Place.HOST) is Place.HOST
        ]
        rules = RulesTransport()
        host = Host(rules)
        try:
            return compare(rows, self._engine.driver_table, host, None)
        finally:
            host.close()
            rules.close()

    async def _rules(self, doubt: Doubt) -> tuple[Found, list[Row]]:
        """What differs in our tables, if they are in doubt, and what in them is nobody's."""
        everybody = self._rows(self._engine.owners)
        return await asyncio.to_thread(self._read_rules, everybody, doubt)

    def _read_rules(
        self, everybody: Mapping[str, tuple[Row, ...]], doubt: Doubt
    ) -> tuple[Found, list[Row]]:
        ours = {
            owner: tuple(row for row in rows if isinstance(row, Table | Set | Chain | Element))
            for owner, rows in everybody.items()
        }
        wanted = {row.key for rows in ours.values() for row in rows}
        suspects = [key for key in doubt.suspects if key[0] in KINDS]
        found: Found = {}
        left: list[Row] = []
        if doubt.rules:
            found = _by_owner(ours, self._compared(ours))
        if doubt.rules or suspects:
            rules = RulesTransport()
            try:
                left = strays(rules, TABLE, wanted, () if doubt.rules else suspects)
            finally:
                rules.close()
        return found, left

    # -- mending, on the loop

    async def _perform(
        self, found: Found, left: Sequence[Row], waiting: dict[str, float]
    ) -> frozenset[str]:
        now = self._clock()

        def may(owner: str, key: RowKey) -> bool:
            pause = self.contest.until(key, now)
            if pause:
                waiting[owner] = min(pause, waiting.get(owner, pause))
            return not pause

        ready = {
            owner: some
            for owner, wrong in found.items()
            if (some := [each for each in wrong if may(owner, each.row.key)])
        }
        going = [row for row in left if may(OWNER, arena(row.key))]
        done: Found = {}
        if ready or going:
            for part in self._engine.mending(ready, going):
                done.update(part)
                await asyncio.sleep(0)
        self._tell(done, going)
        return frozenset(found) | ({OWNER} if left else frozenset())

    def is_held(self, key: RowKey) -> float:
        """Seconds until this row may be mended, or until what is nobody's may be removed there."""
        now = self._clock()
        return max(self.contest.until(key, now), self.contest.until(arena(key), now))

    def _tell(self, done: Found, gone: Sequence[Row]) -> None:
        now = self._clock()
        mended = {
            owner: some
            for owner, wrong in done.items()
            if (some := [each for each in wrong if each.mended])
        }
        self.repairs.update(
            type(d.row).__name__.lower() for wrong in mended.values() for d in wrong
        )
        self.repairs.update(type(row).__name__.lower() for row in gone)
        for owner, wrong in list(mended.items())[: TOLD if len(mended) <= TOLD else 0]:
            self._log.event("warning", "Repaired", owner, _said([d.words for d in _leads(wrong)]))
        if len(mended) > TOLD:
            lines = [d.words for wrong in mended.values() for d in _leads(wrong)]
            said = f"{len(mended)} owners: {_said(lines)}"
            self._log.event("warning", "Repaired", "node", said)
        if gone:
            self._log.event("warning", "Removed", "node", _said([words(row) for row in gone]))
        for owner, wrong in done.items():
            failed = [d.words for d in wrong if d.refused]
            if failed:
                self._log.event("error", "NotRepaired", owner, _said(failed))
        self._note(mended, gone, now)

    def _note(self, mended: Found, gone: Sequence[Row], now: float) -> None:
        keys = [d.row.key for wrong in mended.values() for d in wrong]
        for key in self.contest.mended((*keys, *{arena(row.key) for row in gone}), now):
            said = (
                f"somebody changes {shown(key)} again as soon as it is mended; it is now mended "
                "every few seconds only. Find out who: `nft monitor`, `ip monitor`"
            )
            self._log.event("error", "Contested", "node", said)

    def settle(self) -> None:
        """Say which fights are over; call now and then."""
        for key in self.contest.over(self._clock()):
            self._log.event("info", "Uncontested", "node", f"nobody changes {shown(key)} any more")


def shown(key: RowKey) -> str:
    """A key for people."""
    if key[0] == "Route":
        _, _, table, dst, prefix, _ = key
        return f"the route to {_octets(dst)}/{prefix} in table {table}"
    parts = []
    for part in key:
        if isinstance(part, bytes):
            parts.append(_octets(part))
        elif isinstance(part, tuple):
            parts.append(" . ".join(map(_octets, part)))
        else:
            parts.append(str(getattr(part, "name", part)).lower())
    return " ".join(parts)


def _octets(part: bytes) -> str:
    """Names, hardware and IP addresses as people write them."""
    if part[:2] == LINK_PREFIX.encode() and part.isascii():
        return part.rstrip(b"\0").decode()
    if len(part) in (4, 16):
        return str(address_of(4 if len(part) == 4 else 6, int.from_bytes(part, "big")))
    return part.hex(":")


def arena(key: RowKey) -> RowKey:
    """Strays are told apart by where they are: who fights us need not use the same one twice.
    Of a key its kind, table and set; of an address its link."""
    return (f"stray {key[0]}", *key[1 : 4 if key[0] == "Element" else 3])


def _by_owner(part: Mapping[str, Sequence[Row]], found: Sequence[Difference]) -> Found:
    owner_of = {row.key: owner for owner, rows in part.items() for row in rows}
    wrong: Found = {}
    for difference in found:
        wrong.setdefault(owner_of[difference.row.key], []).append(difference)
    return wrong


def _leads(wrong: Sequence[Difference]) -> Sequence[Difference]:
    """Without what only follows from a link's wrong name."""
    renamed = [
        d
        for d in wrong
        if isinstance(d.row, Veth) and isinstance(d.found, Veth) and d.found.name != d.row.name
    ]
    return renamed or wrong


def _said(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - SAID} more" if len(lines) > SAID else ""
    return "; ".join(lines[:SAID]) + more
