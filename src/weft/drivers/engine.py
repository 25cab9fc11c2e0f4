"""The one engine: makes rows stand, takes them back, finds and mends what others damaged.

It remembers what it made for each owner (its shadow: key -> row), and a change is the difference
of two sets of rows; the kernel is read only by `differences`, `repair` and `drift`. The shadow
follows the kernel row by row, also through a failure, so that `withdraw` after a failed `apply`
takes back exactly what stands. Not for two threads at once; nothing here awaits.
What rows mean is known to the drivers; the order of stages is in `drivers.contract`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weft.drivers.comparison import compare, without_members
from weft.drivers.contract import (
    MEDIUM,
    STAGES,
    Creator,
    Difference,
    Driver,
    Position,
    Refusal,
    Stage,
)
from weft.drivers.links import inside_only, linked
from weft.drivers.surroundings import Host, Indexes, Surroundings
from weft.drivers.sysctls import gives_back
from weft.model.errors import KernelRefused
from weft.rows.bandwidth import Ifb
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Bridge, Veth
from weft.rows.rules import Chain, Element, Oddity, Set

SLICE = 100
"""Elements of sets that are mended in one go: about 2 ms."""

Shadow = dict[RowKey, Row]
Finished = Callable[[Stage], None]
"""Told when a stage is made true: for who measures."""


class Step(NamedTuple):
    """One change on its way: `old` is the shadow's row (or what was found), `new` the wanted."""

    position: Position
    key: RowKey
    driver: Driver[Any]
    old: Row | None
    new: Row | None

    @property
    def row(self) -> Row:
        """The row for messages."""
        row = self.new or self.old
        if row is None:
            raise ValueError("a step needs a row")
        return row


class Engine:
    """Rows in, kernel state out. `owner` is whatever the caller undoes as one."""

    def __init__(self, host: Host, drivers: Iterable[Driver[Any]]) -> None:
        self.host = host
        self._drivers: dict[type[Row], Driver[Any]] = {
            kind: driver for driver in drivers for kind in driver.kinds
        }
        self._creators: dict[type[Row], Creator[Any]] = {
            kind: driver for kind, driver in self._drivers.items() if isinstance(driver, Creator)
        }
        self._shadow: dict[str, Shadow] = {}
        self._doubtful: dict[str, Shadow] = {}  # see `_doubt`
        self._indexes = Indexes()
        self.changes = 0  # rows made or taken so far

    @property
    def driver_table(self) -> Mapping[type[Row], Driver[Any]]:
        """Drivers by row class, for `comparison.compare` in a worker."""
        return self._drivers

    # -- what is remembered

    @property
    def owners(self) -> tuple[str, ...]:
        """All who have rows, or had and were not forgotten."""
        return tuple(self._shadow)

    def owners_of(
        self, keys: Collection[RowKey], among: Iterable[str] | None = None
    ) -> dict[RowKey, str]:
        """Whose rows these are, of all owners or `among` some; nobody's are left out. O(owners),
        about 20 ms for 30 keys and 10,000 of them: for what others have changed, in slices, and
        never on ADD's path."""
        found: dict[RowKey, str] = {}
        for owner in (tuple(self._shadow) if among is None else among) if keys else ():
            shadow = self._shadow.get(owner, {})
            few, many = (keys, shadow) if len(keys) < len(shadow) else (shadow, keys)
            found.update((key, owner) for key in few if key in many)
        return found

    def row(self, owner: str, key: RowKey) -> Row | None:
        """The row that stands for an owner under this key, as far as the shadow knows."""
        return self._shadow.get(owner, {}).get(key)

    def learn(self, link: str, index: int) -> None:
        """A standing link of an owner's has this number: an agent that starts tells."""
        self._indexes.learn(link, index)

    def number(self, link: str) -> int | None:
        """The number of an owner's link on the host, from memory; ask before `withdraw`."""
        return self._indexes.numbers.get(link)

    def known_links(self) -> dict[int, str]:
        """Owners' links on the host by their numbers, from memory."""
        return self._indexes.by_number()

    def known_link(self, index: int) -> str | None:
        """The name of an owner's link on the host by its number, from memory."""
        return self._indexes.owned(index)

    def rows(self, owner: str) -> tuple[Row, ...]:
        """What stands for an owner, as far as the shadow knows."""
        return tuple(self._shadow.get(owner, {}).values())

    def links(self, owner: str) -> list[str]:
        """Names of the owner's links on the host; adopted ones are not its own."""
        rows = self._shadow.get(owner, {}).values()
        return [row.name for row in rows if isinstance(row, Veth | Ifb | Bridge)]

    def adopt(self, owner: str, rows: Iterable[Row]) -> None:
        """Remember rows as standing, without asking the kernel."""
        self._shadow.setdefault(owner, {}).update((row.key, row) for row in rows)

    def forget(self, owner: str) -> None:
        """Remember nothing of an owner; what stands, stands."""
        for row in self.rows(owner):
            self._indexes.forget(linked(row))
        self._shadow.pop(owner, None)
        self._doubtful.pop(owner, None)

    # -- making and taking back

    def apply(
        self,
        owner: str,
        desired: Sequence[Row],
        pod_fd: int | None = None,
        finished: Finished | None = None,
    ) -> None:
        """Make the owner's rows be `desired`.

        Rows of a pod need `pod_fd`. Raises Invalid(interface-exists), Conflict, KernelRefused;
        then the shadow holds what was done, and `withdraw` undoes it.
        """
        shadow = self._shadow.setdefault(owner, {})
        steps = self._difference(shadow, desired)
        if steps:
            try:
                with Surroundings(self.host, self._indexes, pod_fd) as surroundings:
                    self._perform(shadow, steps, surroundings, finished)
            except BaseException:
                self._doubt(owner, steps)
                raise
        self._doubtful.pop(owner, None)

    def _doubt(self, owner: str, steps: Iterable[Step]) -> None:
        """A transaction whose answer was lost (ENOBUFS) may have come true: its elements do not
        count as standing, and are taken back all the same."""
        self._doubtful.setdefault(owner, {}).update(
            (step.key, step.new)
            for step in steps
            if step.new is not None and step.position[0] is Stage.GUARD
        )

    def withdraw(self, owner: str, keep: Collection[RowKey] = ()) -> list[str]:
        """Take back what stands for an owner, except its links on the host, whose names are the
        answer: deleting them waits for the kernel and belongs into a worker (`drivers.removal`).

        Elements go first, in one transaction: traffic is cut at once, because a source that no
        guard lists is dropped. Rows to `keep` stay, and the owner's. What hangs on a link of the
        owner dies with it and needs no message; what is in the pod dies with the pod's end.
        """
        shadow = self._shadow.get(owner, {})
        kept = {key: row for key, row in shadow.items() if key in keep}
        names = self.links(owner)
        own = frozenset(names)
        among = self._shadow.keys() - {owner} if any(map(gives_back, shadow.values())) else ()
        passed = {**self.owners_of(shadow.keys(), among), **kept}
        steps = [
            self._step(key, row, None)
            for key, row in without_members({**self._doubtful.get(owner, {}), **shadow}).items()
            if getattr(row, "place", Place.HOST) is Place.HOST
            and not isinstance(row, Veth | Ifb | Bridge)
            and getattr(row, "link", None) not in own
            and key not in passed
        ]
        if steps:
            with Surroundings(self.host, self._indexes, None) as surroundings:
                self._perform(shadow, steps, surroundings)
        self.forget(owner)
        self._shadow.update({owner: kept} if kept else {})
        return names

    def take_over(self, standing: Iterable[Row]) -> int:
        """Make the packet rules of all owners true in one transaction, given what stands: what is
        right is left alone, what no owner has is removed. Answers how many rows were written.

        Raises KernelRefused; then nothing was done, and what the shadows say of rules is not so.
        """
        wanted = {
            row.key: row
            for shadow in self._shadow.values()
            for row in shadow.values()
            if self._drivers[type(row)].position(row)[0] is Stage.GUARD
        }
        found = {row.key: row for row in standing}
        steps = [
            self._step(key, found.get(key), row)
            for key, row in wanted.items()
            if found.get(key) != row
        ]
        steps += [self._step(key, row, None) for key, row in found.items() if key not in wanted]
        if steps:
            with Surroundings(self.host, Indexes(), None) as surroundings:
                self._perform({}, steps, surroundings)
        return len(steps)

    # -- looking and mending

    def differences(self, rows: str | Iterable[Row], pod_fd: int | None = None) -> list[Difference]:
        """Compare rows (or all rows of an owner) with the kernel. Rows inside a pod are looked at
        only with `pod_fd`. A worker thread calls `comparison.compare` with its own Host instead.
        """
        wanted = self.rows(rows) if isinstance(rows, str) else tuple(rows)
        return compare(wanted, self._drivers, self.host, pod_fd)

    def repair(self, owner: str) -> list[Difference]:
        """Make the host's side of an owner right again; never touches a pod. Returns what was
        wrong; a difference that is not `mended` cannot be (the veth pair itself is gone)."""
        return self.mend(owner, self.differences(_on_host(self.rows(owner))))

    def drift(self, owners: Iterable[str] | None = None) -> dict[str, list[Difference]]:
        """`repair` for many owners (None: all), reading each table of the host once.

        Measured for 14 / 1,000 / 10,000 standing rows: 0.5 / 25 / 250 ms, so the loop leaves the
        reading to a worker (`comparison.compare`) and calls `mend_all` with what it found.
        """
        names = self.owners if owners is None else tuple(owners)
        everything = [row for owner in names for row in _on_host(self.rows(owner))]
        owner_of = {row.key: owner for owner in names for row in self.rows(owner)}
        wrong: dict[str, list[Difference]] = {}
        for difference in self.differences(everything):
            wrong.setdefault(owner_of[difference.row.key], []).append(difference)
        return self.mend_all(wrong)

    def mend(self, owner: str, wrong: Iterable[Difference]) -> list[Difference]:
        """`mend_all` for one owner."""
        return self.mend_all({owner: wrong})[owner]

    def mend_all(self, wrong: Mapping[str, Iterable[Difference]]) -> dict[str, list[Difference]]:
        """Apply again what a comparison found to differ, if it is still wanted, on the host.

        Rules of all owners go first, in one transaction: elements need the sets of the node. Then
        each owner for itself, so that one whom the kernel refuses does not keep the others from
        being mended; his differences come back not `mended`, with the kernel's words.
        """
        return {owner: ends for part in self.mending(wrong) for owner, ends in part.items()}

    def mending(
        self, wrong: Mapping[str, Iterable[Difference]], strays: Iterable[Row] = ()
    ) -> Iterator[dict[str, list[Difference]]]:
        """`mend_all` in slices, each of a few milliseconds at most; between two of them the caller
        may let others work. `strays` go in the first transaction, if they are nobody's still.

        Tables, sets and chains come first and elements in slices after them: what is not listed
        yet is dropped. Yields owners when they are done.
        """
        whole = {owner: tuple(found) for owner, found in wrong.items()}
        guards = [
            (owner, each)
            for owner, found in whole.items()
            for each in found
            if self._position(each.row)[0] is Stage.GUARD
        ]
        frame = [item for item in guards if not isinstance(item[1].row, Element)]
        members = [item for item in guards if isinstance(item[1].row, Element)]
        slices = [members[at : at + SLICE] for at in range(0, len(members), SLICE)]
        parts = [frame + members] if len(members) <= SLICE else [frame, *slices]
        alone: set[str] = set()
        removals = self._removals(strays)
        for part in parts:
            steps = self._mending([each for owner, each in part if self._is_wanted(owner, each)])
            refusal = self._try([*steps, *removals])
            if refusal is not None and removals:
                refusal = self._try(steps)
            if refusal is not None:
                alone.update(owner for owner, _ in part)
            removals = []
            yield {}
        for owner, found in whole.items():
            yield {owner: self._mended(owner, found, alone=owner in alone)}

    def _mended(self, owner: str, wrong: Iterable[Difference], *, alone: bool) -> list[Difference]:
        """Mend what is no rule of an owner, and `alone` also his rules; what came of all."""
        found = [each for each in wrong if self._is_wanted(owner, each)]
        steps = self._mending(found)
        refusal = self._try(
            [step for step in steps if alone or step.position[0] is not Stage.GUARD]
        )
        tried = {step.key for step in steps}
        return [
            each._replace(mended=each.row.key in tried)
            if refusal is None
            else each._replace(words=f"{each.words} ({refusal.message})", refused=True)
            for each in found
        ]

    def _is_wanted(self, owner: str, each: Difference) -> bool:
        return self._shadow.get(owner, {}).get(each.row.key) == each.row

    def _position(self, row: Row) -> Position:
        return self._drivers[type(row)].position(row)

    def _removals(self, strays: Iterable[Row]) -> list[Step]:
        rows = {row.key: row for row in strays}
        for key in self.owners_of(rows.keys()):
            del rows[key]  # somebody's by now
        driver = self._drivers.get(Oddity)
        steps = []
        for key, row in rows.items():
            step = self._step(key, row, None)
            if driver is not None and isinstance(row, Set | Chain):
                step = step._replace(driver=driver)
            steps.append(step)
        return steps

    def remake(self, owner: str, keys: Iterable[RowKey], pod_fd: int) -> None:
        """Make rows of an owner again that were found damaged inside its pod.

        The one verb that mends a pod: who calls it was told to by a person.
        """
        shadow = self._shadow.get(owner, {})
        wanted = tuple(shadow.values())
        for key in keys:
            shadow.pop(key, None)
        self.apply(owner, wanted, pod_fd)

    # -- inside

    def _mending(self, wrong: Sequence[Difference]) -> list[Step]:
        """Steps for what can be mended: nothing in a pod, nothing of a pair that is gone."""
        lost = {
            linked(x.row) for x in wrong if not (x.found or isinstance(x.row, Ifb | Bridge))
        } - {""}
        return [
            self._step(each.row.key, each.found, each.row)
            for each in wrong
            if getattr(each.row, "place", Place.HOST) is Place.HOST
            and getattr(each.row, "link", None) not in lost
            and linked(each.row) not in lost
            and not inside_only(each.row, each.found)
        ]

    def _try(self, steps: Sequence[Step]) -> KernelRefused | None:
        """Perform steps whose rows the shadow holds already."""
        try:
            if steps:
                known = self._indexes.of({getattr(step.new, "bridge", "") for step in steps})
                with Surroundings(self.host, known, None) as surroundings:
                    self._perform({}, steps, surroundings)
                    for step in steps:  # an ifb that was made again has another number
                        if isinstance(step.new, Ifb | Bridge):
                            name = step.new.name
                            self._indexes.learn(name, surroundings.index(Place.HOST, name))
        except KernelRefused as refusal:
            return refusal
        return None

    def _step(self, key: RowKey, old: Row | None, new: Row | None) -> Step:
        row = new if new is not None else old
        driver = self._drivers[type(row)]  # type: ignore[index]  # one of both is a row
        return Step(driver.position(row), key, driver, old, new)

    def _difference(self, shadow: Shadow, desired: Sequence[Row]) -> list[Step]:
        wanted = {row.key: row for row in desired}
        steps = []
        for key, row in wanted.items():
            old = shadow.get(key)
            if old is None or old != row:
                steps.append(self._step(key, old, row))
        steps += [self._step(key, row, None) for key, row in shadow.items() if key not in wanted]
        return steps

    def _perform(
        self,
        shadow: Shadow,
        steps: Sequence[Step],
        surroundings: Surroundings,
        finished: Finished | None = None,
    ) -> None:
        self.changes += len(steps)
        making, taking = ({stage: list[Step]() for stage in STAGES} for _ in range(2))
        for step in sorted(steps, key=_rank):
            (taking if step.new is None else making)[step.position[0]].append(step)
        # one transaction for all rules: what is added and what is removed change at once
        making[Stage.GUARD] += reversed(taking.pop(Stage.GUARD))
        for stage, batch in making.items():
            if batch and stage is Stage.CREATE:
                self._create(shadow, batch, surroundings)
            elif batch:
                _report(self._commit(shadow, stage, batch, surroundings))
            if batch and finished is not None:
                finished(stage)
        for stage in reversed(taking):
            if taking[stage]:
                _report(self._commit(shadow, stage, taking[stage][::-1], surroundings))
        for step in making[Stage.CREATE]:
            if step.old is None:
                view = surroundings.views[Place.HOST]
                self._creators[type(step.row)].settle(step.new, view)

    def _create(self, shadow: Shadow, batch: list[Step], surroundings: Surroundings) -> None:
        view = surroundings.views[Place.HOST]
        refused = self._commit(shadow, Stage.CREATE, batch, surroundings)
        again = []
        for step, refusal in refused:
            if not self._creators[type(step.row)].cleared(step.row, refusal.errno, view):
                _report([(step, refusal)])
            again.append(step)
        if again:
            _report(self._commit(shadow, Stage.CREATE, again, surroundings))
        for step in batch:
            if step.old is None:
                self._creators[type(step.row)].created(step.new, view)

    def _commit(
        self, shadow: Shadow, stage: Stage, batch: list[Step], surroundings: Surroundings
    ) -> list[tuple[Step, Refusal]]:
        """Send one batch and bring the shadow up to date; answers what was refused."""
        transport = surroundings.transport(MEDIUM[stage])
        while True:
            messages: list[bytes] = []
            ends: list[int] = []
            for step in batch:
                messages += _encoded(step, surroundings)
                ends.append(len(messages))
            outcome = transport.commit(messages) if messages else None
            if outcome is None or not outcome.refusals:
                _record(shadow, batch)
                return []
            refused = [(batch[bisect_right(ends, each.at)], each) for each in outcome.refusals]
            serious = [
                (step, each)
                for step, each in refused
                if step.new is not None or each.errno not in step.driver.gone
            ]
            if not transport.atomic:
                missed = {step.key for step, _ in serious}
                _record(shadow, [step for step in batch if step.key not in missed])
                return serious
            if serious:
                return serious
            # a transaction failed only because some rows were gone already: once more without
            absent = {step.key for step, _ in refused}
            _record(shadow, [step for step in batch if step.key in absent])
            batch = [step for step in batch if step.key not in absent]


def _rank(step: Step) -> Position:
    return step.position


def _encoded(step: Step, names: Surroundings) -> Sequence[bytes]:
    try:
        return step.driver.encode(step.old, step.new, names)
    except KernelRefused as refusal:
        if step.new is None and refusal.errno in step.driver.gone:
            return ()  # its link is gone, and so is the row
        raise


def _record(shadow: Shadow, done: Iterable[Step]) -> None:
    for step in done:
        if step.new is None:
            shadow.pop(step.key, None)
        else:
            shadow[step.key] = step.new


def _report(refused: Sequence[tuple[Step, Refusal]]) -> None:
    """Raise the first refusal of a batch: those after it usually follow from it."""
    for step, refusal in refused:
        verb = "remove" if step.new is None else "set" if step.old is None else "change"
        raise KernelRefused(refusal.errno, verb, str(step.row), refusal.words)


def _on_host(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if getattr(row, "place", Place.HOST) is Place.HOST]
