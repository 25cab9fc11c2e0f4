"""Elements of sets and maps.

An interval of a single key is two elements for the kernel, its first value and the one past its
last (NFT_SET_ELEM_INTERVAL_END); of a concatenation it is one element with two keys. Both are one
row here. An element is added without NLM_F_EXCL: one that stands already is success.
A verdict as a map's data is written in nft's words: `drop`, `goto CHAIN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from weft.kernel.netlink import NLM_F_CREATE, attribute, attributes, nest
from weft.kernel.nftables.datatypes import VERDICT, join, split
from weft.kernel.nftables.expressions import decode_verdict, encode_verdict
from weft.kernel.nftables.messages import Kind, Rank, compose, number, read_number, read_text, text
from weft.rows.rules import Element, Set, Verdict

SLICE = 2000
"""Elements in one transaction when many are added: about 20 ms, in which others wait."""

_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_KEY, _DATA, _FLAGS, _KEY_END = 1, 2, 3, 10
_INTERVAL_END = 1
_VALUE, _VERDICT = 1, 2
_ROOM = 60_000  # octets of elements in one attribute, whose length has 16 bits


class Bare(NamedTuple):
    """An element as the kernel tells of it; `end` marks the value past an interval."""

    key: bytes
    upto: bytes | None
    data: bytes | None
    end: bool


@lru_cache(maxsize=256)
def _named(table: str, name: str) -> bytes:
    return text(_LIST_TABLE, table) + text(_LIST_SET, name)


def add_element(schema: Set, row: Element) -> bytes:
    """Add one element."""
    return _one(Kind.NEWSETELEM, Rank.LIST, NLM_F_CREATE, schema, row)


def delete_element(schema: Set, row: Element) -> bytes:
    """Remove one element; ENOENT if it is not there."""
    return _one(Kind.DELSETELEM, Rank.UNLIST, 0, schema, row)


def get_element(schema: Set, row: Element) -> bytes:
    """Ask for one element (of a set without intervals); ENOENT if it is not there."""
    return _one(Kind.GETSETELEM, 0, 0, schema, row)


def get_elements(schema: Set, flags: int) -> bytes:
    """Ask for all elements of a set."""
    return compose(Kind.GETSETELEM, 0, flags, schema.family, _named(schema.table, schema.name))


def _one(kind: Kind, rank: int, flags: int, schema: Set, row: Element) -> bytes:
    key = join(schema.key_types, row.parts)
    data = row.data
    if (
        row.upto is not None
        or schema.interval
        or (data is not None and schema.data_type == VERDICT)
    ):
        body = _named(schema.table, schema.name) + nest(_LIST_ELEMENTS, _items(schema, row))
        return compose(kind, rank, flags, schema.family, body)
    # the shape of nearly all elements: this is on the path of every ADD and DEL, for each port
    size = None if data is None else len(data)
    head, between, tail = _around(
        (kind, rank, flags, schema.family), schema.table, schema.name, len(key), size
    )
    return head + key + between + (data or b"") + tail


@lru_cache(maxsize=256)
def _around(
    what: tuple[Kind, int, int, int], table: str, name: str, key_size: int, data_size: int | None
) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after key and data in a message about one element."""
    key, data = b"\1" * key_size, b"\2" * (data_size or 0)
    item = nest(_KEY, attribute(_VALUE, key))
    if data_size is not None:
        item += nest(_DATA, attribute(_VALUE, data))
    body = _named(table, name) + nest(_LIST_ELEMENTS, nest(1, item))
    whole = compose(*what, body)
    start = len(whole) - len(item) + 8  # past the heads of the key and of its value
    end = start + key_size
    if data_size is None:
        return whole[:start], whole[end:], b""
    after = end + (-key_size & 3) + 8
    return whole[:start], whole[end:after], whole[after + data_size :]


def add_elements(schema: Set, rows: Sequence[Element]) -> list[bytes]:
    """Add many elements of one set, with as few messages as they fit in."""
    messages: list[bytes] = []
    pending: list[bytes] = []
    room = _ROOM
    for row in rows:
        item = _items(schema, row)
        if pending and room < len(item):
            messages.append(_many(schema, pending))
            pending, room = [], _ROOM
        pending.append(item)
        room -= len(item)
    if pending:
        messages.append(_many(schema, pending))
    return messages


def slices(rows: Sequence[Element]) -> list[Sequence[Element]]:
    """Rows for one transaction each."""
    return [rows[start : start + SLICE] for start in range(0, len(rows), SLICE)]


def _many(schema: Set, items: Iterable[bytes]) -> bytes:
    body = _named(schema.table, schema.name) + nest(_LIST_ELEMENTS, *items)
    return compose(Kind.NEWSETELEM, Rank.LIST, NLM_F_CREATE, schema.family, body)


def _items(schema: Set, row: Element) -> bytes:
    """NFTA_LIST_ELEM attributes of a row, one or two."""
    key = join(schema.key_types, row.parts)
    data = b"" if row.data is None else nest(_DATA, _data(schema, row.data))
    if not schema.interval:
        return nest(1, _value(_KEY, key), data)
    upto = join(schema.key_types, row.upto) if row.upto is not None else key
    if len(schema.key_types) > 1:
        end = _value(_KEY_END, upto) if upto != key else b""
        return nest(1, _value(_KEY, key), end, data)
    past = int.from_bytes(upto, "big") + 1
    items = nest(1, _value(_KEY, key), data)
    if past < 1 << 8 * len(upto):  # an interval up to the last value of all has no end
        end = _value(_KEY, past.to_bytes(len(upto), "big"))
        items += nest(1, end, number(_FLAGS, _INTERVAL_END))
    return items


def _value(kind: int, data: bytes) -> bytes:
    return nest(kind, attribute(_VALUE, data))


def _data(schema: Set, data: bytes) -> bytes:
    if schema.data_type != VERDICT:
        return attribute(_VALUE, data)
    word, _, chain = data.decode().partition(" ")
    return encode_verdict(Verdict(verdict=word, chain=chain or None))


def owner(body: memoryview) -> tuple[str, str]:
    """Table and set of a message about elements."""
    values = dict(attributes(body, 4))
    return read_text(values[_LIST_TABLE]), read_text(values[_LIST_SET])


def bare(body: memoryview) -> list[Bare]:
    """The elements of one message, unsorted and unpaired."""
    found: list[Bare] = []
    for kind, data in attributes(body, 4):
        if kind == _LIST_ELEMENTS:
            found += [_bare(item) for _, item in attributes(data)]
    return found


def _bare(item: memoryview) -> Bare:
    values = dict(attributes(item))
    flags = read_number(values[_FLAGS]) if _FLAGS in values else 0
    return Bare(
        key=_read_value(values[_KEY]) if _KEY in values else b"",
        upto=_read_value(values[_KEY_END]) if _KEY_END in values else None,
        data=_read_data(values[_DATA]) if _DATA in values else None,
        end=bool(flags & _INTERVAL_END),
    )


def _read_value(data: memoryview) -> bytes:
    return bytes(dict(attributes(data)).get(_VALUE, b""))


def _read_data(data: memoryview) -> bytes:
    values = dict(attributes(data))
    if _VERDICT not in values:
        return bytes(values.get(_VALUE, b""))
    verdict = decode_verdict(values[_VERDICT])
    if verdict is None:
        return b"?"
    return " ".join(filter(None, (verdict.verdict, verdict.chain))).encode()


def rows_of(schema: Set, found: Iterable[Bare]) -> list[Element]:
    """Elements of a set as rows; ends of intervals are joined to their starts."""
    if schema.interval and len(schema.key_types) == 1:
        return _intervals(schema, sorted(found, key=lambda item: (item.key, not item.end)))
    return [
        _row(schema, item.key, item.upto if item.upto != item.key else None, item.data)
        for item in found
    ]


def _intervals(schema: Set, found: Sequence[Bare]) -> list[Element]:
    rows: list[Element] = []
    start: Bare | None = None
    for item in found:
        if start is not None:
            # a start that follows a start: the kernel leaves the end of the first away
            upto = (int.from_bytes(item.key, "big") - 1).to_bytes(len(item.key), "big")
            rows.append(_row(schema, start.key, upto if upto != start.key else None, start.data))
        start = None if item.end else item
    if start is not None:
        last = b"\xff" * len(start.key)
        rows.append(_row(schema, start.key, last if last != start.key else None, start.data))
    return rows


def _row(schema: Set, key: bytes, upto: bytes | None, data: bytes | None) -> Element:
    return Element(
        family=schema.family,
        table=schema.table,
        set=schema.name,
        parts=split(schema.key_types, key),
        upto=split(schema.key_types, upto) if upto is not None else None,
        data=data,
    )
