"""Packet rules: tables, sets, their elements, and chains with all of their rules.

A chain is replaced as a whole, in the transaction that changes everything else. We never make a set
anew to change it: one of another type is another set, under another name. Only one that somebody
else left under our name is, and that needs all rules that use it to be replaced; so is a table
whose flags cannot be changed, with all that is in it. What an element's octets mean depends on its
set, so the driver remembers each set it has met and asks the kernel for one that it has not.
Notifications do not name the elements of a set that went: a key of a table or set means all that
is in it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from weft.drivers.contract import (
    Medium,
    Names,
    Outcome,
    Position,
    Refusal,
    Scope,
    Stage,
    Watch,
)
from weft.kernel.netlink import Failure, attributes
from weft.kernel.nftables import chains, elements, holders, oddities, sets, tables
from weft.kernel.nftables.messages import (
    NFNL_SUBSYS_NFTABLES,
    Kind,
    Rank,
    kind_of,
    rank_of,
    read_text,
    table_of,
)
from weft.kernel.nftables.transport import NETLINK_NETFILTER, NFNLGRP_NFTABLES, Nftables
from weft.model.errors import PASSING, KernelRefused
from weft.rows.base import Place, Row, RowKey
from weft.rows.rules import Chain, Element, Family, Hook, Set, Table

RuleRow = Table | Set | Element | Chain
FAMILIES = (Family.INET, Family.ARP, Family.BRIDGE)
FEW = 500
"""Elements of one set that are asked for by key; more are read as the whole set. A container may
have a hundred ports in a set of tens of thousands, which take a worker a tenth of a second."""
AT_ONCE = 100
"""Elements that are asked for with one exchange."""

WHOLE = 100_000
"""Messages that a transaction may have which makes tables: 20,000 attachments of two families."""

_DONE = Outcome((), ())
_TRIAL = "weft-trial"
_DELETES_ELEMENT = NFNL_SUBSYS_NFTABLES << 8 | Kind.DELSETELEM


class RulesTransport:
    """nftables of the namespace in which it is made; for one thread at a time."""

    atomic = True

    def __init__(self) -> None:
        self.tables = Nftables()

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        """See `contract.Transport`.

        More than `elements.SLICE` messages would hold up everybody else's rules for too long, and
        may not fit the socket: elements that are added then follow in transactions of their own,
        after the rules. What is not listed yet is dropped meanwhile. A refusal there does not take
        back what was done before it; adding it all again is harmless. What makes or adopts a table
        is never cut: those who are listed in it must not be dropped for a moment.
        """
        makes_tables = any(rank_of(each) <= Rank.TABLE for each in messages)
        if len(messages) <= (WHOLE if makes_tables else elements.SLICE):
            return _outcome(self._transaction(messages, range(len(messages))))
        listing = [at for at, each in enumerate(messages) if rank_of(each) == Rank.LIST]
        others = [at for at, each in enumerate(messages) if rank_of(each) != Rank.LIST]
        parts = [listing[at : at + elements.SLICE] for at in range(0, len(listing), elements.SLICE)]
        for places in (others, *parts):
            refusals = self._transaction([messages[at] for at in places], places)
            if refusals:
                return _outcome(refusals)
        return _DONE

    def _transaction(self, messages: Sequence[bytes], places: Sequence[int]) -> list[Refusal]:
        return [
            self._refusal(messages[each.index], each)._replace(at=places[each.index])
            for each in self.tables.commit(messages)
        ]

    def _refusal(self, message: bytes, failure: Failure) -> Refusal:
        """A refusal, with the holder where the table is another's."""
        if failure.errno != errno.EPERM:
            return Refusal(failure.index, failure.errno, failure.words)
        name = table_of(message)
        holder = next((row for row in self.held() if row.name == name), None)
        if holder is None:
            return Refusal(failure.index, failure.errno, failure.words)
        # what stands in a table of somebody else's is nothing of ours: it is gone
        code = errno.ENOENT if kind_of(message) == _DELETES_ELEMENT else failure.errno
        return Refusal(failure.index, code, held_words(holder))

    def held(self) -> list[Table]:
        """Tables that another socket owns."""
        return [
            row
            for family in FAMILIES
            for row in self.tables.tables(family)
            if row.owner not in (None, self.tables.port)
        ]

    def can_protect(self) -> bool:
        """Whether this kernel has tables that only we can change and that outlive us. Raises
        KernelRefused where it would not even say so."""
        trial = Table(family=Family.INET, name=_TRIAL, persist=True, owner=self.tables.port)
        for failure in self.tables.would([tables.add_table(trial)]):
            if failure.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise KernelRefused(failure.errno, "make packet rules", hint=failure.words)
        return True

    def why_no_bridge(self) -> str:
        """Why this kernel has no packet rules for bridges, or "" (also where it does not say so
        now: who makes them will be told)."""
        table = Table(family=Family.BRIDGE, name=_TRIAL)
        hook = Hook(type="filter", number=0, priority=0)
        chain = Chain(family=table.family, table=_TRIAL, name=_TRIAL, hook=hook)
        messages = [tables.add_table(table), *chains.put_chain(None, chain)]
        for failure in self.tables.would(messages):
            if failure.errno in PASSING:
                return ""
            return (
                f"the kernel has no packet rules for bridges ({os.strerror(failure.errno)}); it "
                "lacks CONFIG_NF_TABLES_BRIDGE"
            )
        return ""

    def standing(self, name: str) -> list[RuleRow]:
        """Everything in the tables of this name: what an agent that starts finds."""
        rows: list[RuleRow] = []
        for family in FAMILIES:
            mine = [table for table in self.tables.tables(family) if table.name == name]
            if not mine:
                continue
            rows += mine
            for schema in self.tables.sets(family, name):
                rows.append(schema)
                rows += self.tables.elements(schema)
            rows += self.tables.chains(family, name)
        return rows

    def adopt(self, wanted: Iterable[Table]) -> int:
        """Become the owner of those tables that are orphans, and say how many; for a packet that
        changes nothing.

        Apart from what else is to change: the kernel takes no base chain (EINVAL) in the
        transaction that changes the flags of its table. Raises KernelRefused.
        """
        mine = {row.key: row for row in wanted if row.owner is not None}
        orphans = [
            mine[row.key]
            for family in FAMILIES
            for row in self.tables.tables(family)
            if row.key in mine and row.owner is None and tables.can_become(row, mine[row.key])
        ]
        for failure in self.tables.commit([tables.add_table(row) for row in orphans]):
            row = orphans[failure.index]
            raise KernelRefused(failure.errno, "adopt", str(row), failure.words)
        return len(orphans)

    def counters(self, name: str) -> dict[str, tuple[int, int]]:
        """Packets and octets by chain, for the chains with a counter in tables of this name;
        chains of one name in several families together."""
        found: dict[str, tuple[int, int]] = {}
        for family in FAMILIES:
            for chain, (packets, octets) in self.tables.counters(family, name).items():
                before = found.get(chain, (0, 0))
                found[chain] = before[0] + packets, before[1] + octets
        return found

    def close(self) -> None:
        """Give the socket back."""
        self.tables.close()


def _outcome(refusals: Sequence[Refusal]) -> Outcome:
    return Outcome((), refusals) if refusals else _DONE


class Rules:
    """Driver of `Table`, `Set`, `Element` and `Chain`."""

    kinds = (Table, Set, Element, Chain)
    gone = frozenset((errno.ENOENT,))
    watch = Watch(protocol=NETLINK_NETFILTER, groups=(NFNLGRP_NFTABLES,))

    def __init__(self, transport: RulesTransport) -> None:
        self._transport = transport
        self._schemas: dict[tuple[Family, str, str], Set] = {}

    def position(self, row: RuleRow) -> Position:
        """Within a transaction the messages have ranks of their own; this one is for people."""
        match row:
            case Table():
                return Stage.GUARD, 0
            case Set():
                self._schemas[row.family, row.table, row.name] = row
                return Stage.GUARD, 1
            case Chain():
                return Stage.GUARD, 2
            case Element():
                return Stage.GUARD, 3

    def encode(self, old: RuleRow | None, new: RuleRow | None, names: Names) -> Sequence[bytes]:
        """Messages for one row. An element whose data or end changes is taken out and put in."""
        if new is None:
            return self._removal(old) if old is not None else ()
        match new:
            case Table():
                if isinstance(old, Table) and not tables.can_become(old, new):
                    return tables.delete_table(old, made_anew=True), tables.add_table(new)
                return (tables.add_table(new),)
            case Set():
                if isinstance(old, Set) and not same_kind(old, new):
                    return sets.delete_set(old, made_anew=True), sets.add_set(new)
                return (sets.add_set(new),)
            case Chain():
                return chains.put_chain(old if isinstance(old, Chain) else None, new)
            case Element():
                schema = self._schema(new)
                added = elements.add_element(schema, new)
                if isinstance(old, Element):
                    return elements.delete_element(schema, old), added
                return (added,)

    def _removal(self, row: RuleRow) -> Sequence[bytes]:
        match row:
            case Table():
                return (tables.delete_table(row),)
            case Set():
                return (sets.delete_set(row),)
            case Chain():
                return chains.delete_chain(row)
            case Element():
                return (elements.delete_element(self._schema(row), row),)

    def _schema(self, row: Element) -> Set:
        known = self._schemas.get((row.family, row.table, row.set))
        if known is not None:
            return known
        for each in self._transport.tables.sets(row.family, row.table):
            self._schemas.setdefault((each.family, each.table, each.name), each)
        known = self._schemas.get((row.family, row.table, row.set))
        if known is None:
            raise KernelRefused(errno.ENOENT, "find the set of", str(row))
        return known

    def read(self, rows: Sequence[RuleRow], scope: Scope) -> Mapping[RowKey, Row]:
        """Tables, sets and chains by whole table; elements by key where they are few."""
        if scope.place is not Place.HOST:
            return {}
        transport: RulesTransport | None = scope.transport(Medium.RULES)
        if transport is None:
            return {}
        found: dict[RowKey, Row] = {}
        for row in rows:
            if isinstance(row, Set):
                self._schemas[row.family, row.table, row.name] = row
        for table in {_table(row) for row in rows}:
            asked = [row for row in rows if _table(row) == table]
            found |= _standing(transport.tables, table, asked)
        return found

    def words(self, row: RuleRow, found: Row | None) -> str:
        """Missing, or with other contents."""
        schema = (
            self._schemas.get((row.family, row.table, row.set))
            if isinstance(row, Element)
            else None
        )
        what = _sentence(row, schema)
        if found is None:
            return f"{what} is missing"
        if isinstance(found, Table):
            return f"{what} {_flawed(found)}"
        if isinstance(row, Chain) and isinstance(found, Chain):
            if row.hook != found.hook:
                return f"{what} is on another hook than it should be"
            return f"{what} has other rules than it should have"
        return f"{what} is not of the kind it should be"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """The row that a notification is about. Where it does not say which, the key of the set
        or table, which then means all that is in it. Only for tables of ours."""
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or len(body) < 4 or body[0] not in FAMILIES:
            return ()
        family, table, name = Family(body[0]), tables.name_of_table(body), named(body)
        match kind & 0xFF:
            case Kind.NEWTABLE | Kind.DELTABLE:
                return (("Table", family, table),)
            case Kind.NEWSET | Kind.DELSET:
                return (("Set", family, table, name),)
            case Kind.NEWCHAIN | Kind.DELCHAIN:
                return (("Chain", family, table, chains.name_of(body)),)
            case Kind.NEWRULE | Kind.DELRULE:
                return (("Chain", family, table, name),)
            case Kind.NEWSETELEM | Kind.DELSETELEM:
                return self._elements_of(family, table, name, body)
            case other if other in oddities.ANNOUNCED:
                row = oddities.decode(other, body)
                return (row.key,) if row is not None else ()
        return ()

    def _elements_of(
        self, family: Family, table: str, name: str, body: memoryview
    ) -> Collection[RowKey]:
        schema = self._schemas.get((family, table, name))
        if schema is None or (schema.interval and len(schema.key_types) == 1):
            return (("Set", family, table, name),)
        return [row.key for row in elements.rows_of(schema, elements.bare(body))]


def named(body: memoryview) -> str:
    """The second name of a message: of a rule its chain, of elements their set."""
    found = dict(attributes(body, 4)).get(2)
    return read_text(found) if found is not None else ""


def held_words(table: Table) -> str:
    """Who owns a table that we cannot change, and what to do about it."""
    if table.owner is None:
        return ""
    return (
        f"the nftables table {table.family.name.lower()} {table.name} belongs to "
        f"{holders.described(table.owner)}, and nobody else may change it; end that process"
    )


def surviving(standing: Iterable[RuleRow], wanted: Mapping[RowKey, Row]) -> list[RuleRow]:
    """Of what stands, what is left once the tables and sets that are wanted otherwise, and cannot
    be changed, have been made anew: of those only the row itself."""
    kept: list[RuleRow] = []
    lost: set[RowKey] = set()
    for row in standing:
        same = wanted.get(row.key)
        if ("Table", row.family, _table(row)[1]) in lost:
            continue
        if isinstance(row, Element) and ("Set", row.family, row.table, row.set) in lost:
            continue
        if isinstance(row, Table) and isinstance(same, Table):
            if not tables.can_become(row, same):
                lost.add(row.key)
        elif isinstance(row, Set) and isinstance(same, Set):
            if not same_kind(row, same):
                lost.add(row.key)
            # the comment of a set that stands cannot be changed, and changes nothing
            kept.append(msgspec.structs.replace(row, comment=same.comment))
            continue
        kept.append(row)
    return kept


def same_kind(one: Set, other: Set) -> bool:
    """Two sets that differ in their comments at most: elements of one fit the other."""
    return one == msgspec.structs.replace(other, comment=one.comment)


def _table(row: RuleRow) -> tuple[Family, str]:
    return row.family, row.name if isinstance(row, Table) else row.table


def _standing(
    nft: Nftables, table: tuple[Family, str], asked: Sequence[RuleRow]
) -> dict[RowKey, Row]:
    family, name = table
    found: dict[RowKey, Row] = {}
    wanted = {row.key: row for row in asked}
    if any(isinstance(row, Table) for row in asked):
        found |= {row.key: row for row in nft.tables(family) if row.key in wanted}
        mine = wanted.get(("Table", *table))
        there = found.get(("Table", *table))
        if (
            isinstance(mine, Table)
            and isinstance(there, Table)
            and not tables.can_become(there, mine)
        ):
            return found  # it has to be made anew, and all that is in it
    schemas: list[Set] = []
    if any(isinstance(row, Set | Element) for row in asked):
        schemas = nft.sets(family, name)
    for schema in schemas:
        same = wanted.get(schema.key)
        if isinstance(same, Set):
            # the comment of a set that stands cannot be changed, and changes nothing
            found[schema.key] = msgspec.structs.replace(schema, comment=same.comment)
        members = [row for row in asked if isinstance(row, Element) and row.set == schema.name]
        found |= {row.key: row for row in _members(nft, schema, members) if row.key in wanted}
    if any(isinstance(row, Chain) for row in asked):
        found |= {row.key: row for row in nft.chains(family, name) if row.key in wanted}
    return found


def _members(nft: Nftables, schema: Set, asked: Sequence[Element]) -> Iterable[Element]:
    if not asked or not sets.is_known(schema):
        return ()
    if schema.interval or len(asked) > FEW:
        return nft.elements(schema)
    parts = (asked[at : at + AT_ONCE] for at in range(0, len(asked), AT_ONCE))
    return [row for part in parts for row in nft.holds(schema, part)]


def _flawed(found: Table) -> str:
    if found.dormant:
        return "is dormant"
    if found.owner is not None:
        return f"belongs to {holders.described(found.owner)}"
    return "can be changed by anybody" if not found.persist else "is nobody's"


def _sentence(row: RuleRow, schema: Set | None) -> str:
    family = row.family.name.lower()
    match row:
        case Table():
            return f"the nftables table {family} {row.name}"
        case Set():
            return f"the nftables set {family} {row.table} {row.name}"
        case Chain():
            return f"the nftables chain {family} {row.table} {row.name}"
        case Element():
            kinds = schema.key_types if schema is not None else ("",) * len(row.parts)
            parts = " . ".join(map(_written, kinds, row.parts))
            return f"the element {parts} of the nftables set {family} {row.table} {row.set}"


def _written(kind: str, part: bytes) -> str:
    """A part of a key as people write it; as octets where its type is not known."""
    match kind:
        case "ifname":
            return part.decode(errors="replace")
        case "ipv4_addr" | "ipv6_addr":
            return str(ipaddress.ip_address(part))
        case "ether_addr":
            return part.hex(":")
        case _:
            return "0x" + part.hex()
