"""Comparing what stands with what is wanted, in a worker, and mending it, in slices on the loop.

A worker reads, with sockets of its own, so the loop goes on; between two slices of mending, and of
gathering rows for the worker, it goes on, too. What is being mended is asked for once more when
its turn comes: a container may have left meanwhile. Nothing inside a container is looked at. What
was mended is an event, and a number.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from weft.rows.links import Sysctl, Veth
from weft.rows.rules import Chain, Element, Set, Table

AT_ONCE = 100  # owners that a worker compares in one go, unless there are very many:
ROUNDS = 10  # a worker reads whole tables, so it is asked only so often
NOTED = 10_000  # rows of one look that somebody may fight over: more take seconds in any case
IN_A_TURN = 100  # owners that one turn of the loop deals with
DIFFERENCES = 500  # of owners that are mended together: preparing them takes 2 ms
SAID = 4  # differences that an event spells out
TOLD = 5  # owners that have an event each; of more at once there is one event in all

Found = dict[str, list[Difference]]


class Doubt(NamedTuple):
    """What may be wrong: whole owners; keys that may be nobody's; everything in our tables.

    `sysctls`: of the owners nothing else. The kernel announces rp_filter of each new link, because
    we write it; to read all ports of its container then would keep the loop waiting for the
    interpreter's lock.
    """

    owners: Collection[str] = ()
    suspects: Collection[RowKey] = ()
    strays: Sequence[Row] = ()  # on our links, as notifications said
    rules: bool = False
    sysctls: bool = False

    def also(self, owners: Collection[str], *, rules: bool) -> Doubt:
        """The same, and these owners and perhaps all rules."""
        return self._replace(
            owners={*self.owners, *owners},
            rules=self.rules or rules,
            sysctls=self.sysctls and not owners,
        )


class Outcome(NamedTuple):
    """`damaged`: owners that were not as they should be; `waiting`: those of them whose contested
    rows may be mended only after so many seconds. `by_rules`: those of them that a look at all
    rules found, if they are very many; such a look is the way to look at them again."""

    damaged: frozenset[str]
    waiting: dict[str, float]
    by_rules: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Report:
    """What was mended, as it will be told: of much, the beginning. `noted`: for the contest."""

    noted: bool
    first: Found = field(default_factory=dict)
    owners: int = 0
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def take(self, owner: str, mended: list[Difference]) -> None:
        leads = _leads(mended)
        self.owners += 1
        self.count += len(leads)
        if len(self.lines) < SAID:
            self.lines += [each.words for each in leads[:SAID]]
        if self.owners <= TOLD:
            self.first[owner] = mended


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
        # The collector holds all threads while it looks at every pod's rows, and what a look holds
        # for a while would make it do so again and again: 0.2 s each for 10,000 pods.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return await self._mend(doubt)
        finally:
            if collecting:
                gc.enable()

    async def _mend(self, doubt: Doubt) -> Outcome:
        damaged: set[str] = set()
        by_rules: frozenset[str] = frozenset()
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
            wrong = await self._perform(found, (*left, *doubt.strays), waiting)
            damaged |= wrong
            by_rules = wrong if len(wrong) > AT_ONCE else by_rules
        for some in slices(owners, max(AT_ONCE, len(owners) // ROUNDS)):
            part = await self._gathered(some)
            if doubt.sysctls:
                part = {owner: _sysctls(held) for owner, held in part.items()}
            found = await asyncio.to_thread(self._read, part, rules=not doubt.rules)
            damaged |= await self._perform(found, (), waiting)
        return Outcome(frozenset(damaged), waiting, by_rules)

    # -- looking, in a worker

    def _rows(self, owners: Collection[str]) -> Mapping[str, tuple[Row, ...]]:
        return {owner: self._engine.rows(owner) for owner in owners}

    async def _gathered(self, owners: Sequence[str]) -> dict[str, tuple[Row, ...]]:
        """The rows of many owners; each owner's are of one moment."""
        rows: dict[str, tuple[Row, ...]] = {}
        for some in slices(owners, IN_A_TURN):
            rows.update(self._rows(some))
            await asyncio.sleep(0)
        return rows

    def _read(self, part: dict[str, tuple[Row, ...]], *, rules: bool) -> Found:
        """What differs, with or without packet rules: these may just have been compared. Empties
        `part`, which the loop would have to free otherwise."""
        ours = {
            owner: held if rules else tuple(row for row in held if not _is_rule(row))
            for owner, held in part.items()
        }
        part.clear()
        return _by_owner(ours, self._compared(ours))

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
        everybody = await self._gathered(self._engine.owners)
        return await asyncio.to_thread(self._read_rules, everybody, doubt)

    def _read_rules(
        self, everybody: dict[str, tuple[Row, ...]], doubt: Doubt
    ) -> tuple[Found, list[Row]]:
        ours = {
            owner: tuple(row for row in rows if _is_rule(row)) for owner, rows in everybody.items()
        }
        everybody.clear()  # as in `_read`
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

        report = _Report(noted=sum(map(len, found.values())) <= NOTED)
        gone = going = [row for row in left if may(OWNER, arena(row.key))]
        # the node's own rows first: elements of everybody need its sets
        for some in parcels(sorted(found, key=OWNER.__ne__) or [OWNER], found):
            ready = {
                owner: wrong
                for owner in some
                if (wrong := [each for each in found.get(owner, ()) if may(owner, each.row.key)])
            }
            if ready or going:
                for part in self._engine.mending(ready, going):
                    self._take(part, report, now)
                    await asyncio.sleep(0)
            going = []
        self._tell(report, gone, now)
        return frozenset(found) | ({OWNER} if left else frozenset())

    def is_held(self, key: RowKey) -> float:
        """Seconds until this row may be mended, or until what is nobody's may be removed there."""
        now = self._clock()
        return max(self.contest.until(key, now), self.contest.until(arena(key), now))

    def _take(self, done: Found, report: _Report, now: float) -> None:
        for owner, wrong in done.items():
            mended = [each for each in wrong if each.mended]
            if mended:
                report.take(owner, mended)
                self.repairs.update(type(each.row).__name__.lower() for each in mended)
                if report.noted:
                    self._note([each.row.key for each in mended], now)
            failed = [each.words for each in wrong if each.refused]
            if failed:
                self._log.event("error", "NotRepaired", owner, _said(failed, len(failed)))

    def _tell(self, report: _Report, gone: Sequence[Row], now: float) -> None:
        if report.owners <= TOLD:
            for owner, mended in report.first.items():
                lines = [each.words for each in _leads(mended)]
                self._log.event("warning", "Repaired", owner, _said(lines, len(lines)))
        else:
            said = f"{report.owners} owners: {_said(report.lines, report.count)}"
            self._log.event("warning", "Repaired", "node", said)
        if gone:
            self.repairs.update(type(row).__name__.lower() for row in gone)
            lines = [words(row) for row in gone]
            self._log.event("warning", "Removed", "node", _said(lines, len(lines)))
            self._note({arena(row.key) for row in gone}, now)

    def _note(self, keys: Collection[RowKey], now: float) -> None:
        for key in self.contest.mended(keys, now):
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


def _said(lines: Sequence[str], count: int) -> str:
    """The first of `count` lines."""
    more = f"; and {count - SAID} more" if count > SAID else ""
    return "; ".join(lines[:SAID]) + more


def slices(owners: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Owners in parts."""
    for start in range(0, len(owners), size):
        yield owners[start : start + size]


def parcels(owners: Sequence[str], found: Mapping[str, Sequence[object]]) -> Iterator[list[str]]:
    """Owners in parts of at most IN_A_TURN, and of DIFFERENCES unless one alone has more: a
    container may have thousands of ports."""
    part: list[str] = []
    count = 0
    for owner in owners:
        weight = len(found.get(owner, ()))
        if part and (count + weight > DIFFERENCES or len(part) == IN_A_TURN):
            yield part
            part, count = [], 0
        part.append(owner)
        count += weight
    if part:
        yield part


def _is_rule(row: Row) -> bool:
    return isinstance(row, Table | Set | Chain | Element)


def _sysctls(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if isinstance(row, Sysctl))
