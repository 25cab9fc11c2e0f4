"""Expressions of rules, by a table: our struct, the kernel's name, its attributes.

One table serves both directions, so what is written and what is read back cannot drift apart.
Whatever the table does not describe to the last attribute becomes `Foreign`, which equals nothing
that anybody here would write: a rule with one in it is not ours and gets replaced.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from weft.kernel.netlink import attribute, attributes, nest
from weft.kernel.nftables import keys
from weft.kernel.nftables.messages import I32, U32, U64, number, read_number, read_text, text
from weft.model.errors import Unsupported
from weft.rows.rules import (
    Bitwise,
    Compare,
    Conntrack,
    Counter,
    DestinationNat,
    Expression,
    ExtensionHeader,
    Fib,
    Immediate,
    Limit,
    Log,
    Lookup,
    Masquerade,
    Meta,
    MetaSet,
    Payload,
    Range,
    Reject,
    Verdict,
)

_NAME, _DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_VERDICT_REGISTER = 0
_DREG = 1


class Foreign(Expression, frozen=True, kw_only=True):
    """An expression that we never write."""

    name: str
    data: bytes


class Codec(NamedTuple):
    """A value as the payload of an attribute, and back. Back raises ValueError or KeyError."""

    write: Callable[[Any], bytes]
    read: Callable[[memoryview], Any]


class Field(NamedTuple):
    """An attribute: its number, the struct's field, how it is written.

    `name` "" is an attribute that is always there with the value `fixed`. An `optional` field is
    left out where it is None, and is None where it is missing; one that is `silent` is left out
    where it is 0.
    """

    kind: int
    name: str
    codec: Codec
    optional: bool = False
    silent: bool = False
    fixed: Any = None


class Form(NamedTuple):
    """The kernel's name of an expression, and its attributes."""

    name: str
    fields: tuple[Field, ...]


def _named(words: Mapping[str, int]) -> Codec:
    back = {value: word for word, value in words.items()}

    def write(word: str) -> bytes:
        if word not in words:
            raise Unsupported(f"nftables knows no {word!r}: use one of {', '.join(words)}")
        return U32.pack(words[word])

    return Codec(write, lambda data: back[read_number(data)])


def _flagged(words: Mapping[str, int]) -> Codec:
    def write(chosen: tuple[str, ...]) -> bytes:
        value = 0
        for word in chosen:
            if word not in words:
                raise Unsupported(f"nftables knows no {word!r}: use some of {', '.join(words)}")
            value |= words[word]
        return U32.pack(value)

    def read(data: memoryview) -> tuple[str, ...]:
        value = read_number(data)
        if value & ~sum(words.values()):
            raise ValueError("unknown flags")
        return tuple(word for word, bit in words.items() if value & bit)

    return Codec(write, read)


def _read_value(data: memoryview) -> bytes:
    values = dict(attributes(data))
    if values.keys() != {_VALUE}:
        raise ValueError("not a plain value")
    return bytes(values[_VALUE])


def _read_octet(data: memoryview) -> int:
    if len(data) != 1:
        raise ValueError("not one octet")
    return data[0]


_U32 = Codec(U32.pack, read_number)
_U64 = Codec(U64.pack, lambda data: U64.unpack(data)[0])
_OCTET = Codec(lambda value: bytes((value,)), _read_octet)
_BOOL = Codec(
    lambda value: U32.pack(1 if value else 0), lambda data: {0: False, 1: True}[read_number(data)]
)
_BYTES = Codec(lambda value: attribute(_VALUE, value), _read_value)
_TEXT = Codec(lambda value: value.encode() + b"\0", read_text)

FORMS: dict[type[Expression], Form] = {
    Meta: Form("meta", (Field(1, "register", _U32), Field(2, "key", _named(keys.META)))),
    MetaSet: Form("meta", (Field(3, "register", _U32), Field(2, "key", _named(keys.META)))),
    Payload: Form(
        "payload",
        (
            Field(1, "register", _U32),
            Field(2, "base", _named(keys.BASES)),
            Field(3, "offset", _U32),
            Field(4, "length", _U32),
        ),
    ),
    ExtensionHeader: Form(
        "exthdr",
        (
            Field(1, "register", _U32),
            Field(2, "type", _OCTET),
            Field(3, "offset", _U32),
            Field(4, "length", _U32),
            Field(5, "present", _BOOL),
            Field(6, "", _U32, fixed=0),  # NFT_EXTHDR_OP_IPV6
        ),
    ),
    Compare: Form(
        "cmp",
        (
            Field(1, "register", _U32),
            Field(2, "op", _named(keys.COMPARISONS)),
            Field(3, "value", _BYTES),
        ),
    ),
    Range: Form(
        "range",
        (
            Field(1, "register", _U32),
            Field(2, "invert", _BOOL),
            Field(3, "low", _BYTES),
            Field(4, "high", _BYTES),
        ),
    ),
    Lookup: Form(
        "lookup",
        (
            Field(1, "set", _TEXT),
            Field(2, "register", _U32),
            Field(3, "data_register", _U32, optional=True),
            Field(5, "invert", _BOOL),
        ),
    ),
    Conntrack: Form("ct", (Field(1, "register", _U32), Field(2, "key", _named(keys.CONNTRACK)))),
    Fib: Form(
        "fib",
        (
            Field(1, "register", _U32),
            Field(2, "result", _named(keys.FIB_RESULTS)),
            Field(3, "flags", _flagged(keys.FIB_FLAGS)),
        ),
    ),
    Immediate: Form("immediate", (Field(1, "register", _U32), Field(2, "value", _BYTES))),
    Limit: Form(
        "limit",
        (
            Field(1, "rate", _U64),
            Field(2, "unit", _U64),
            Field(3, "burst", _U32),
            Field(4, "", _U32, fixed=0),  # NFT_LIMIT_PKTS
            Field(5, "", _U32, fixed=0),
        ),
    ),
    Log: Form(
        "log",
        (
            Field(2, "prefix", _TEXT),
            Field(5, "level", _U32),
        ),
    ),
    Masquerade: Form(
        "masq",
        (
            Field(1, "flags", _U32, silent=True),
            Field(2, "port_low_register", _U32, optional=True),
            Field(3, "port_high_register", _U32, optional=True),
        ),
    ),
    DestinationNat: Form(
        "nat",
        (
            Field(1, "", _U32, fixed=1),  # NFT_NAT_DNAT
            Field(2, "family", _U32),
            Field(3, "address_low_register", _U32),
            Field(4, "address_high_register", _U32),
            Field(5, "port_low_register", _U32),
            Field(6, "port_high_register", _U32),
            Field(7, "flags", _U32, silent=True),
        ),
    ),
    Reject: Form("reject", (Field(1, "type", _U32), Field(2, "code", _OCTET, optional=True))),
}
"""Expressions that are the same in both directions. Bitwise, Verdict and Counter are apart."""

_BITWISE = ((1, "register"), (2, "register"))
_BITWISE_LENGTH, _BITWISE_MASK, _BITWISE_XOR, _BITWISE_OP = 3, 4, 5, 6
_MASK_XOR = 0
_COUNTER = {1, 2, 3}  # bytes, packets, padding
_META_SOURCE = 3
_READERS = {form.name: kind for kind, form in FORMS.items() if kind is not MetaSet}


def encode_expression(item: Expression) -> bytes:
    """One NFTA_LIST_ELEM. Raises Unsupported for a word that the kernel does not know."""
    match item:
        case Verdict():
            body = number(_DREG, _VERDICT_REGISTER) + nest(_DATA, encode_verdict(item))
            return _listed("immediate", body)
        case Counter():
            return _listed("counter", b"")
        case Bitwise():
            return _listed("bitwise", _bitwise(item))
    form = FORMS.get(type(item))
    if form is None:
        raise Unsupported(f"an nftables expression {type(item).__name__} cannot be written")
    return _listed(form.name, b"".join(_attributes(form, item)))


def _listed(name: str, body: bytes) -> bytes:
    return nest(1, text(_NAME, name), nest(_DATA, body))


def _attributes(form: Form, item: Expression) -> list[bytes]:
    parts: list[bytes] = []
    for field in form.fields:
        value = getattr(item, field.name) if field.name else field.fixed
        if (field.optional and value is None) or (field.silent and not value):
            continue
        data = field.codec.write(value)
        nested = field.codec is _BYTES
        parts.append(nest(field.kind, data) if nested else attribute(field.kind, data))
    return parts


def _bitwise(item: Bitwise) -> bytes:
    return (
        b"".join(number(kind, getattr(item, name)) for kind, name in _BITWISE)
        + number(_BITWISE_LENGTH, len(item.mask))
        + nest(_BITWISE_MASK, attribute(_VALUE, item.mask))
        + nest(_BITWISE_XOR, attribute(_VALUE, item.xor))
        + number(_BITWISE_OP, _MASK_XOR)
    )


def encode_verdict(verdict: Verdict) -> bytes:
    """NFTA_DATA_VERDICT. Raises Unsupported for an unknown word."""
    code = keys.VERDICTS.get(verdict.verdict)
    if code is None or (verdict.verdict in keys.LEADING) != (verdict.chain is not None):
        raise Unsupported(f"nftables verdict {verdict.verdict!r} to {verdict.chain!r}")
    body = attribute(_CODE, I32.pack(code))
    if verdict.chain is not None:
        body += text(_CHAIN, verdict.chain)
    return nest(_VERDICT, body)


def decode_verdict(data: memoryview) -> Verdict | None:
    """The verdict in an NFTA_DATA_VERDICT; None for one we never write."""
    values = dict(attributes(data))
    word = keys.VERDICT_WORDS.get(I32.unpack(values[_CODE])[0])
    if word is None:
        return None
    chain = read_text(values[_CHAIN]) if _CHAIN in values else None
    return Verdict(verdict=word, chain=chain)


def decode_expressions(data: memoryview) -> list[Expression]:
    """All expressions of a rule (NFTA_RULE_EXPRESSIONS)."""
    return [_decode(item) for _, item in attributes(data)]


def _decode(item: memoryview) -> Expression:
    values = dict(attributes(item))
    name = read_text(values[_NAME]) if _NAME in values else ""
    data = values.get(_DATA, memoryview(b""))
    try:
        found = _known(name, dict(attributes(data)))
    except (KeyError, ValueError, struct.error):
        found = None  # an attribute is missing, or has a value that we never write
    return found if found is not None else Foreign(name=name, data=bytes(data))


def _known(name: str, values: dict[int, memoryview]) -> Expression | None:
    if name == "counter":
        return Counter() if values.keys() <= _COUNTER else None
    if name == "bitwise":
        return _read_bitwise(values)
    if name == "immediate" and read_number(values[_DREG]) == _VERDICT_REGISTER:
        inner = dict(attributes(values[_DATA]))
        return decode_verdict(inner[_VERDICT]) if values.keys() == {_DREG, _DATA} else None
    kind = MetaSet if name == "meta" and _META_SOURCE in values else _READERS.get(name)
    return None if kind is None else _read(kind, FORMS[kind], values)


def _read(kind: type[Expression], form: Form, values: dict[int, memoryview]) -> Expression | None:
    if not values.keys() <= {field.kind for field in form.fields}:
        return None
    found: dict[str, Any] = {}
    for field in form.fields:
        if field.kind not in values:
            if field.optional or field.silent:
                continue  # the struct's default
            raise KeyError(field.kind)
        value = field.codec.read(values[field.kind])
        if field.name:
            found[field.name] = value
        elif value != field.fixed:
            return None
    return kind(**found)


def _read_bitwise(values: dict[int, memoryview]) -> Bitwise | None:
    source, target = (read_number(values[kind]) for kind, _ in _BITWISE)
    operation = read_number(values[_BITWISE_OP]) if _BITWISE_OP in values else _MASK_XOR
    if source != target or operation != _MASK_XOR or max(values) > _BITWISE_OP:
        return None  # a shift, or (from Linux 6.13) two registers
    mask, xor = _read_value(values[_BITWISE_MASK]), _read_value(values[_BITWISE_XOR])
    return Bitwise(mask=mask, xor=xor, register=source)
