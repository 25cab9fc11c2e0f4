"""Tables, sets, elements and chains survive the way to the kernel's bytes and back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.kernel.netlink import HEADER
from weft.kernel.nftables import chains, elements, sets, tables
from weft.kernel.nftables.datatypes import TYPES, key_number, key_size, words_of
from weft.kernel.nftables.messages import Kind, Rank, in_order, rank_of
from weft.model.errors import Unsupported
from weft.rows.rules import Chain, Compare, Element, Family, Hook, Meta, Set, Table, Verdict

QUICK = settings(max_examples=40, deadline=None)
families = st.sampled_from((Family.INET, Family.ARP, Family.BRIDGE))
names = st.text("abcdefghijklmnop-_", min_size=1, max_size=20)
words = st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=4).map(tuple)


def body(message: bytes) -> memoryview:
    return memoryview(message)[HEADER.size :]


def set_of(*key_types: str, **more: object) -> Set:
    return Set(family=Family.INET, table="t", name="s", key_types=key_types, **more)  # type: ignore[arg-type]


def element(*parts: bytes, **more: object) -> Element:
    return Element(family=Family.INET, table="t", set="s", parts=parts, **more)  # type: ignore[arg-type]


def parts_of(key_types: Sequence[str]) -> st.SearchStrategy[tuple[bytes, ...]]:
    def part(word: str) -> st.SearchStrategy[bytes]:
        if word == "ifname":
            return st.text("abcdefgh0123", min_size=1, max_size=15).map(str.encode)
        size = TYPES[word].size
        return st.binary(min_size=size, max_size=size)

    return st.tuples(*map(part, key_types))


@QUICK
@given(families, names)
def test_table_comes_back_as_written(family: Family, name: str) -> None:
    row = Table(family=family, name=name)
    assert tables.decode_table(body(tables.add_table(row))) == row


@QUICK
@given(
    st.builds(
        Set,
        family=families,
        table=names,
        name=names,
        key_types=words,
        data_type=st.none() | st.sampled_from([*sorted(TYPES), "verdict"]),
        interval=st.booleans(),
        constant=st.booleans(),
        comment=st.text("abc def", max_size=40).map(str.strip),
    )
)
def test_set_comes_back_as_written(row: Set) -> None:
    assert sets.decode_set(body(sets.add_set(row))) == row


def test_set_of_unknown_type_equals_none_of_ours() -> None:
    number = key_number(("ipv4_addr",))
    assert words_of(number) == ("ipv4_addr",)
    assert words_of(60) == ("type 60",)
    with pytest.raises(Unsupported):
        key_size(words_of(60))


@QUICK
@given(
    words.flatmap(lambda types: st.tuples(st.just(types), st.lists(parts_of(types), max_size=5)))
)
def test_elements_come_back_as_written(
    drawn: tuple[tuple[str, ...], list[tuple[bytes, ...]]],
) -> None:
    types, keys = drawn
    schema = set_of(*types)
    rows = [element(*parts) for parts in keys]
    for row in rows:
        message = elements.add_element(schema, row)
        assert elements.rows_of(schema, elements.bare(body(message))) == [row]
    together = [
        each
        for message in elements.add_elements(schema, rows)
        for each in elements.bare(body(message))
    ]
    assert elements.rows_of(schema, together) == rows


@QUICK
@given(st.sets(st.integers(0, 255), max_size=24), st.booleans())
def test_intervals_come_back_as_written_also_touching_and_at_the_last_value(
    borders: set[int], last: bool
) -> None:
    edges = sorted(borders)[: len(borders) // 2 * 2]
    if last and edges:
        edges[-1] = 255
    schema = set_of("inet_proto", interval=True)
    rows = [
        element(bytes((low,)), upto=(bytes((high,)),) if high != low else None)
        for low, high in zip(edges[::2], edges[1::2], strict=True)
        if low <= high
    ]
    found = [
        each for row in rows for each in elements.bare(body(elements.add_element(schema, row)))
    ]
    assert elements.rows_of(schema, found) == rows


def test_interval_that_begins_where_another_ends_is_apart_from_it() -> None:
    schema = set_of("ipv4_addr", interval=True)
    rows = [
        element(bytes((10, 0, 0, 0)), upto=(bytes((10, 0, 0, 255)),)),
        element(bytes((10, 0, 1, 0)), upto=(bytes((10, 0, 1, 255)),)),
    ]
    found = [
        each for row in rows for each in elements.bare(body(elements.add_element(schema, row)))
    ]
    assert elements.rows_of(schema, found[::-1]) == rows


def test_range_of_a_concatenation_comes_back_as_written() -> None:
    schema = set_of("ipv4_addr", "inet_service", interval=True)
    row = element(b"\x0a\0\0\0", b"\0\x50", upto=(b"\x0a\xff\xff\xff", b"\0\x5a"))
    message = elements.add_element(schema, row)
    assert elements.rows_of(schema, elements.bare(body(message))) == [row]


@pytest.mark.parametrize(
    ("data_type", "data"),
    [("inet_service", b"\0\x50"), ("verdict", b"drop"), ("verdict", b"goto somewhere")],
)
def test_data_of_a_map_comes_back_as_written(data_type: str, data: bytes) -> None:
    schema = set_of("mark", data_type=data_type)
    row = element(b"\1\0\0\0", data=data)
    message = elements.add_element(schema, row)
    assert elements.rows_of(schema, elements.bare(body(message))) == [row]


def test_many_elements_go_in_few_messages_that_each_fit_an_attribute() -> None:
    schema = set_of("ifname", "ether_addr", "ipv6_addr")
    rows = [
        element(b"wf%013d" % index, b"\x0a" * 6, index.to_bytes(16, "big"))
        for index in range(elements.SLICE)
    ]
    messages = elements.add_elements(schema, rows)
    assert 1 < len(messages) < 5
    assert max(map(len, messages)) < 65_536
    assert [len(each) for each in elements.slices(rows * 3)] == [elements.SLICE] * 3


hooks = st.none() | st.builds(
    Hook,
    type=st.sampled_from(("filter", "nat", "route")),
    number=st.integers(0, 5),
    priority=st.integers(-500, 500),
    policy=st.sampled_from(("accept", "drop")),
    device=st.none() | names,
)


@QUICK
@given(hooks)
def test_chain_and_its_rules_come_back_as_written(hook: Hook | None) -> None:
    rules = (
        (Meta(key="iifname"), Compare(op="==", value=b"wf"), Verdict(verdict="drop")),
        (Verdict(verdict="accept"),),
    )
    row = Chain(family=Family.INET, table="t", name="c", hook=hook, rules=rules)
    made, _, *written = chains.put_chain(None, row)
    found = chains.decode_chain(body(made))
    read = [chains.decode_rule(body(message)) for message in written]
    assert (found.key, found.hook) == (row.key, hook)
    assert read == [("t", "c", rule) for rule in rules]


def chain(name: str, hook: Hook | None = None, *rules: tuple[Verdict, ...]) -> Chain:
    return Chain(family=Family.INET, table="t", name=name, hook=hook, rules=rules)


def kinds(messages: Sequence[bytes]) -> list[int]:
    return [HEADER.unpack_from(message)[1] & 0xFF for message in messages]


def test_chain_that_moves_to_another_hook_is_made_anew() -> None:
    here = Hook(type="filter", number=0, priority=0)
    there = Hook(type="filter", number=0, priority=1)
    closed = Hook(type="filter", number=0, priority=0, policy="drop")
    moved = chains.put_chain(chain("c", here), chain("c", there))
    assert kinds(moved) == [Kind.DELCHAIN, Kind.NEWCHAIN, Kind.DELRULE]
    assert kinds([moved[at] for at in in_order(moved)]) == kinds(moved)
    changed = chains.put_chain(chain("c", here), chain("c", closed))
    assert kinds(changed) == [Kind.NEWCHAIN, Kind.DELRULE]


def test_transaction_holds_its_messages_in_an_order_that_the_kernel_takes() -> None:
    leader = chain("a", None, (Verdict(verdict="goto", chain="b"),))
    table = Table(family=Family.INET, name="t")
    schema = set_of("ipv4_addr")
    messages = [
        *chains.put_chain(None, leader),
        *chains.put_chain(None, chain("b")),
        *chains.delete_chain(chain("old")),
        elements.add_element(schema, element(bytes(4))),
        elements.delete_element(schema, element(b"1234")),
        sets.delete_set(schema),
        sets.add_set(schema),
        tables.add_table(table),
    ]
    ranks = [rank_of(messages[place]) for place in in_order(messages)]
    assert ranks == sorted(ranks)
    assert ranks[0] == Rank.TABLE
    assert ranks[-1] == Rank.RULE


SIZES = {"ifname": 7, "ether_addr": 6, "ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 1}


@pytest.mark.parametrize(
    ("key_types", "data"),
    [
        (("ifname",), None),
        (("inet_proto",), b"12345"),
        (("ipv4_addr",), b"12345678"),
        (("ether_addr",), b"1"),
        (("ifname", "ether_addr", "ipv6_addr"), None),
        (("ipv6_addr", "inet_proto"), b""),
        (("ipv6_addr", "inet_proto"), b"12345678901234567890"),
    ],
)
def test_one_element_is_written_as_one_of_many_is(
    key_types: tuple[str, ...], data: bytes | None
) -> None:
    words = "ipv4_addr . inet_service" if data is not None else None
    schema = Set(
        family=Family.INET, table="weft", name="some", key_types=key_types, data_type=words
    )
    for fill in b"a", b"z":  # the second one's frame is remembered
        parts = tuple(fill * SIZES[word] for word in key_types)
        row = Element(family=Family.INET, table="weft", set="some", parts=parts, data=data)
        assert elements.add_elements(schema, [row]) == [elements.add_element(schema, row)]
