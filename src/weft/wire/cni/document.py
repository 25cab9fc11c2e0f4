"""JSON from a runtime into plain values: bounds first, then decoding, then the keys we know.

Runtimes are written in Go, whose decoder matches keys in any case, ignores unknown ones, takes
the last of several and treats `null` as absent; configurations in the field depend on it. So
`project` folds the keys of a decoded document onto a literal table (`Shape`) and msgspec converts
what is left. Sizes and depth are checked before decoding: no input may cost more than a few
milliseconds or end in another exception than `Invalid`. What the keys mean: `config.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from weft.model.errors import Invalid

MAX_INPUT = 1024 * 1024
"""Bytes of standard input; the launcher has the same bound."""
MAX_DEPTH = 64
"""Levels of objects and arrays; a real configuration has about six."""
MAX_KEYS = 1024
"""Keys at the top of a configuration."""

JsonObject = dict[str, object]
T = TypeVar("T")

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "begins with a byte order mark; send UTF-8 without one"),
    (b"\xff\xfe", "is UTF-16; send UTF-8"),
    (b"\xfe\xff", "is UTF-16; send UTF-8"),
)
_PARENTHESES = bytes.maketrans(b"[{]}", b"(())")
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_PLACE = re.compile(r"(?P<what>.*) - at `(?:key in )?\$\.?(?P<path>[^`]*)`", re.DOTALL)


class Known(NamedTuple):
    """A key as we spell it, and the shape of the object or the objects in a list below it."""

    name: str
    inside: Mapping[str, Known] | None


Shape = Mapping[str, Known]


def shape(*names: str, **nested: Shape) -> Shape:
    """The table for `project`: plain keys, and keys that hold objects of a shape of their own."""
    table: dict[str, Known] = {}
    for name in (*names, *nested):
        known = Known(name, nested.get(name))
        table[name] = table[fold(name)] = known
    return table


def fold(key: str) -> str:
    """A key without case, as Go's simple folding has it (U+017F is an s, U+212A a k)."""
    return key.lower() if key.isascii() else key.lower().replace("\u017f", "s")


def project(value: object, onto: Shape) -> object:
    """`value` with only the keys of `onto`, spelled as there; a later duplicate wins."""
    if isinstance(value, dict):
        kept: JsonObject = {}
        for key, inner in value.items():
            known = onto.get(key) or onto.get(fold(key))
            if known is None:
                continue
            name, inside = known
            if inner is None:
                kept.pop(name, None)
            else:
                kept[name] = inner if inside is None else project(inner, inside)
        return kept
    if isinstance(value, list | tuple):
        return [project(each, onto) for each in value]
    return value


def decode_object(data: bytes, onto: Shape) -> JsonObject:
    """Standard input as a JSON object with only the keys of `onto`; values are as they came.

    Raises Invalid: `io-failure` (code 5) above the bound, else `decode-failure` (code 6).
    """
    decoded = _decode(data)
    if len(decoded) > MAX_KEYS:
        raise undecodable(f"more than {MAX_KEYS} keys")
    known = [(key, onto.get(key) or onto.get(fold(key))) for key in decoded]
    names = [(match.name, key) for key, match in known if match is not None]
    kept = {name: decoded[key] for name, key in names}
    if len(kept) == len(names):
        return kept
    # A dict keeps the place of a key's first occurrence: of {"a", "A", "a"} the second would count
    # as the last. Rare enough to decode once more.
    again: JsonObject = json.loads(data, object_pairs_hook=_at_last_place)
    return {match.name: again[key] for key in again if (match := onto.get(fold(key)))}


def _decode(data: bytes) -> JsonObject:
    if len(data) > MAX_INPUT:
        raise Invalid(
            f"standard input has more than {MAX_INPUT} bytes", field="stdin", reason="io-failure"
        )
    if not data.strip():
        raise undecodable("standard input is empty")
    for mark, why in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise undecodable(f"standard input {why}")
    if b"\0" in data[:4]:
        raise undecodable("standard input is UTF-16 or UTF-32; send UTF-8")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and deeper_than(data, MAX_DEPTH):
        raise undecodable(f"more than {MAX_DEPTH} levels of objects and arrays")
    try:
        decoded = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise undecodable(str(error)) from None
    if not isinstance(decoded, dict):
        raise undecodable("expected a JSON object")
    return decoded


def _at_last_place(pairs: list[tuple[str, object]]) -> JsonObject:
    obj: JsonObject = {}
    for key, value in pairs:
        obj.pop(key, None)
        obj[key] = value
    return obj


def deeper_than(data: bytes, levels: int) -> bool:
    """Whether brackets outside strings nest deeper than `levels`; nothing is decoded.

    Whole-buffer operations only, some milliseconds for the largest input: escapes go, then all but
    quotes and brackets, then strings (two quotes that touch hold nothing, and without them the
    others keep their parity), then, level by level, the innermost pairs. Of text that is not JSON
    the answer may be off by a factor of two, which still keeps the decoder's recursion small.
    """
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = bare.translate(_PARENTHESES, _NO_STRUCTURE).replace(b'""', b"")
    left = b"".join(marks.split(b'"')[::2])
    for _ in range(levels):
        before = len(left)
        left = left.replace(b"()", b"")
        if len(left) == before:
            return left.count(b"(") > levels
    return b"(" in left


def convert(value: object, into: type[T], within: str = "") -> T:
    """A projected value as a struct; a wrong type becomes Invalid (code 6) naming the field."""
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as error:
        place = _PLACE.fullmatch(str(error))
        what, path = (place["what"], place["path"]) if place else (str(error), "")
        field = f"{within}.{path}" if within and path else within or path
        raise undecodable(f"{field}: {_lowered(what)}", field=field) from None


def undecodable(why: str, *, field: str = "stdin") -> Invalid:
    """The decode failure that runtimes know by its first words."""
    return Invalid(f"error unmarshall network config: {why}", field=field, reason="decode-failure")


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:].replace("`", "")
