"""Expressions of rules survive the way to the kernel's bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.kernel.netlink import attribute, attributes, nest
from weft.kernel.nftables import keys
from weft.kernel.nftables.expressions import (
    Foreign,
    decode_expressions,
    encode_expression,
)
from weft.kernel.nftables.messages import number, text
from weft.model.errors import Unsupported
from weft.rows.rules import (
    Bitwise,
    Compare,
    Conntrack,
    Counter,
    Expression,
    ExtensionHeader,
    Fib,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    MetaSet,
    Payload,
    Range,
    Reject,
    Verdict,
)

QUICK = settings(max_examples=60, deadline=None)
registers = st.sampled_from((1, 2, 3, 4, 9, 14, 23))
octets = st.binary(min_size=1, max_size=16)
numbers = st.integers(0, 2**32 - 1)
small = st.integers(0, 255)
names = st.text("abcdefghij-_0123456789", min_size=1, max_size=30)
equal_octets = octets.flatmap(
    lambda a: st.tuples(st.just(a), st.binary(min_size=len(a), max_size=len(a)))
)

expressions: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Meta, key=st.sampled_from(sorted(keys.META)), register=registers),
    st.builds(MetaSet, key=st.sampled_from(sorted(keys.META)), register=registers),
    st.builds(
        Payload,
        base=st.sampled_from(sorted(keys.BASES)),
        offset=numbers,
        length=numbers,
        register=registers,
    ),
    st.builds(
        ExtensionHeader,
        type=small,
        offset=numbers,
        length=numbers,
        present=st.booleans(),
        register=registers,
    ),
    st.builds(
        Compare, op=st.sampled_from(sorted(keys.COMPARISONS)), value=octets, register=registers
    ),
    equal_octets.flatmap(
        lambda pair: st.builds(
            Bitwise, mask=st.just(pair[0]), xor=st.just(pair[1]), register=registers
        )
    ),
    equal_octets.flatmap(
        lambda pair: st.builds(
            Range,
            low=st.just(pair[0]),
            high=st.just(pair[1]),
            register=registers,
            invert=st.booleans(),
        )
    ),
    st.builds(
        Lookup,
        set=names,
        register=registers,
        invert=st.booleans(),
        data_register=st.none() | st.just(0) | registers,
    ),
    st.builds(Conntrack, key=st.sampled_from(sorted(keys.CONNTRACK)), register=registers),
    st.builds(
        Fib,
        result=st.sampled_from(sorted(keys.FIB_RESULTS)),
        flags=st.sets(st.sampled_from(list(keys.FIB_FLAGS))).map(
            lambda chosen: tuple(word for word in keys.FIB_FLAGS if word in chosen)
        ),
        register=registers,
    ),
    st.builds(Immediate, value=octets, register=registers),
    st.builds(Verdict, verdict=st.sampled_from(("accept", "drop", "continue", "return"))),
    st.builds(Verdict, verdict=st.sampled_from(("jump", "goto")), chain=names),
    st.just(Counter()),
    st.builds(
        Masquerade,
        flags=numbers,
        port_low_register=st.none() | registers,
        port_high_register=st.none() | registers,
    ),
    st.builds(Reject, type=small, code=small),
)


def read(*encoded: bytes) -> list[Expression]:
    """What the kernel would have been told, read as if the kernel told it."""
    return decode_expressions(memoryview(b"".join(encoded)))


@QUICK
@given(st.lists(expressions, max_size=6))
def test_expressions_come_back_as_they_were_written(rule: list[Expression]) -> None:
    assert read(*map(encode_expression, rule)) == rule


@QUICK
@given(st.binary(max_size=200))
def test_octets_that_nobody_wrote_do_not_raise(data: bytes) -> None:
    for item in decode_expressions(memoryview(data)):
        assert isinstance(item, Expression)


@QUICK
@given(expressions, st.integers(40, 90))
def test_attribute_that_we_never_write_makes_an_expression_foreign(
    item: Expression, kind: int
) -> None:
    (_, listed), *_ = attributes(encode_expression(item))
    values = dict(attributes(listed))
    data = bytes(values[2]) + number(kind, 1)
    again = nest(1, attribute(1, bytes(values[1])), nest(2, data))
    (found,) = read(again)
    assert isinstance(found, Foreign)
    assert found != item


@pytest.mark.parametrize("name", ["quota", "limit", "xfrm", "", "match"])
def test_expression_of_unknown_name_is_foreign(name: str) -> None:
    (found,) = read(nest(1, text(1, name), nest(2, number(1, 7))))
    assert isinstance(found, Foreign)
    assert found.name == name


def test_expression_of_a_known_name_without_its_attributes_is_foreign() -> None:
    (found,) = read(nest(1, text(1, "payload"), nest(2, number(1, 7))))
    assert isinstance(found, Foreign)


def test_bitwise_shift_is_not_taken_for_a_mask() -> None:
    (_, listed), *_ = attributes(encode_expression(Bitwise(mask=b"\xff", xor=b"\0")))
    values = dict(attributes(listed))
    data = bytes(values[2])[:-4] + b"\0\0\0\x01"  # the last attribute is NFTA_BITWISE_OP
    (found,) = read(nest(1, text(1, "bitwise"), nest(2, data)))
    assert isinstance(found, Foreign)


def test_figures_of_a_counter_do_not_matter() -> None:
    figures = attribute(1, b"\0" * 7 + b"\x09") + attribute(2, b"\0" * 7 + b"\x02")
    assert read(nest(1, text(1, "counter"), nest(2, figures))) == [Counter()]


@pytest.mark.parametrize(
    "wrong",
    [
        Meta(key="colour"),
        Compare(op="~", value=b"1"),
        Payload(base="application", offset=0, length=1),
        Fib(result="type", flags=("nearest",)),
        Verdict(verdict="jump"),
        Verdict(verdict="drop", chain="somewhere"),
        Verdict(verdict="perhaps"),
    ],
)
def test_words_that_the_kernel_has_not_are_refused(wrong: Expression) -> None:
    with pytest.raises(Unsupported):
        encode_expression(wrong)
