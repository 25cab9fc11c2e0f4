"""What somebody else has put where only ours may be: into tables of our name, onto our links.

A rule of a stranger in a chain of ours makes that chain differ, and it is put right as a whole.
But a chain, a set, an element or an address that nobody wanted differs from nothing. So these are
looked for: around what notifications have named, or everywhere in our tables. Reads only, with a
transport of its own, so that a worker can do it; who removes asks once more whether it is nobody's.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping, Sequence

from weft.drivers.contract import Names, Position, Scope, Stage
from weft.drivers.rules import FAMILIES, RulesTransport
from weft.kernel.nftables import chains, oddities, sets
from weft.kernel.nftables.transport import Nftables
from weft.rows.base import Row, RowKey
from weft.rows.rules import Chain, Element, Family, Oddity, Set

KINDS = frozenset(("Element", "Set", "Chain", "Oddity"))
"""Class names of rows that may be strays in a table."""


def strays(
    transport: RulesTransport, table: str, wanted: Collection[RowKey], suspects: Collection[RowKey]
) -> list[Row]:
    """Rows in tables of this name whose keys are not `wanted`.

    `suspects`: keys to look for; a key of a table means all that is in it, one of a set its
    elements. Without any, everything is looked at.
    """
    found: list[Row] = []
    for family in FAMILIES:
        keys = [key for key in suspects if key[1] == family]
        everything = not suspects or any(key[0] == "Table" for key in keys)
        if everything:
            found += _all(transport.tables, family, table, wanted)
        elif keys:
            found += _some(transport.tables, family, table, keys)
    return [row for row in found if row.key not in wanted and not _goes_with_its_rule(row)]


def _goes_with_its_rule(row: Row) -> bool:
    """A set or chain that nft has made for one rule has no name of its own (`__set0`)."""
    return isinstance(row, Set | Chain) and row.name.startswith("__")


def _all(nft: Nftables, family: Family, table: str, wanted: Collection[RowKey]) -> Iterator[Row]:
    for schema in nft.sets(family, table):
        yield schema
        if schema.key in wanted:  # otherwise its elements go with it
            yield from nft.elements(schema)
    yield from nft.chains(family, table)
    yield from nft.oddities(family, table)


def _some(nft: Nftables, family: Family, table: str, keys: Sequence[RowKey]) -> Iterator[Row]:
    kinds = {key[0] for key in keys}
    if kinds & {"Element", "Set"}:
        for schema in nft.sets(family, table):
            parts = {key[4] for key in keys if key[0] == "Element" and key[3] == schema.name}
            if schema.key in keys or parts:
                yield schema
            if not sets.is_known(schema):
                continue
            if schema.key in keys:
                yield from nft.elements(schema)
                continue
            if parts and not schema.interval:
                yield from nft.holds(schema, [_element(schema, each) for each in parts])
            elif parts:
                yield from nft.elements(schema)
    if "Chain" in kinds:
        yield from nft.chains(family, table)
    if "Oddity" in kinds:
        yield from nft.oddities(family, table)


def _element(schema: Set, parts: tuple[bytes, ...]) -> Element:
    return Element(family=schema.family, table=schema.table, set=schema.name, parts=parts)


class Strays:
    """Driver of what is only ever removed: it has no read-back, for nobody wants it."""

    kinds = (Oddity,)
    gone = frozenset((errno.ENOENT,))
    watch = None

    def position(self, _: Row) -> Position:
        """With the rules."""
        return Stage.GUARD, 4

    def encode(self, old: Row | None, new: Row | None, names: Names) -> Sequence[bytes]:
        """A set goes before the chains that its verdicts may lead to."""
        match old:
            case Oddity():
                return (oddities.delete(old),)
            case Set():
                return (sets.delete_set(old, made_anew=True),)
            case Chain():
                return chains.delete_chain(old)
        return ()

    def read(self, rows: Sequence[Row], scope: Scope) -> Mapping[RowKey, Row]:
        """Nothing: never asked for."""
        return {}

    def words(self, row: Row, found: Row | None) -> str:
        """Whose it is not."""
        return f"{row} in a table of weft's is not weft's"

    def touched(self, _: int, __: memoryview, ___: Names) -> Collection[RowKey]:
        """Notifications about tables go to `drivers.rules`."""
        return ()


def words(row: Row) -> str:
    """One sentence for people."""
    match row:
        case Element():
            parts = " . ".join(part.hex() for part in row.parts)
            return f"the element {parts} of the set {row.set} was not weft's"
        case Oddity():
            return f"{row.name} in the table {row.table} was not weft's"
    name = getattr(row, "name", row)
    return f"the {type(row).__name__.lower()} {name} was not weft's"
