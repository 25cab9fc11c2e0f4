"""Words of the command line: KIND/NAME, label selectors, `key=value` and `key-`.

The forms are kubectl's. Everything here raises `Invalid` and knows no agent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from weft.model.errors import Invalid
from weft.model.kinds import Kind
from weft.model.names import check_label_key, check_label_value, printable
from weft.model.selectors import Requirement, Selector, check_selector
from weft.wire.views import find_shown_kind

_TERM = re.compile(r"(?:[^,(]|\([^)]*\))+")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)")


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A kind, and one object of it or all."""

    kind: Kind
    name: str | None = None


def parse_targets(words: Sequence[str]) -> list[Named]:
    """`KIND`, `KIND NAME...`, `KIND,KIND` or `KIND/NAME...`."""
    if any("/" in word for word in words):
        if not all("/" in word for word in words):
            raise _invalid("either write KIND NAME... or KIND/NAME for every object")
        pairs = [word.split("/", 1) for word in words]
        return [Named(kind=find_shown_kind(kind), name=_name(name)) for kind, name in pairs]
    kinds = [find_shown_kind(word) for word in words[0].split(",") if word]
    if not kinds:
        raise _invalid("no kind is named")
    names = [_name(word) for word in words[1:]]
    if not names:
        return [Named(kind=kind) for kind in kinds]
    return [Named(kind=kind, name=name) for kind in kinds for name in names]


def _name(word: str) -> str:
    if not word:
        raise _invalid("an empty name")
    return word


def parse_selector(text: str | None) -> Selector | None:
    """`a=b,c!=d,e in (f,g),h,!i`; None for None, everything for the empty text."""
    if text is None:
        return None
    labels: dict[str, str] = {}
    requirements: list[Requirement] = []
    for term in (found.strip() for found in _TERM.findall(text)):
        if (found := _SET.fullmatch(term)) is not None:
            values = tuple(value.strip() for value in found["values"].split(","))
            requirements.append(
                Requirement(
                    key=found["key"],
                    operator="In" if found["operator"] == "in" else "NotIn",
                    values=values,
                )
            )
        elif "!=" in term:
            key, _, value = term.partition("!=")
            requirements.append(
                Requirement(key=key.strip(), operator="NotIn", values=(value.strip(),))
            )
        elif "=" in term:
            key, _, value = term.replace("==", "=", 1).partition("=")
            if labels.setdefault(key.strip(), value.strip()) != value.strip():
                raise _invalid(f"--selector: {key.strip()} cannot have two values at once")
        elif term.startswith("!"):
            requirements.append(Requirement(key=term[1:].strip(), operator="DoesNotExist"))
        else:
            requirements.append(Requirement(key=term, operator="Exists"))
    selector = Selector(match_labels=labels, match_expressions=tuple(requirements))
    check_selector(selector, "--selector")
    return selector


def parse_labels(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """`key=value` to set and `key-` to remove."""
    wanted: dict[str, str] = {}
    removed: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            check_label_key(key, "label")
            check_label_value(value, f"label {key}")
            wanted[key] = value
        elif word.endswith("-"):
            check_label_key(word[:-1], "label")
            removed.append(word[:-1])
        else:
            raise _invalid(f"{printable(word)} is neither key=value nor key-")
    if both := wanted.keys() & set(removed):
        raise _invalid(f"{sorted(both)[0]} is set and removed at once")
    if not words:
        raise _invalid("no label is given: write key=value to set one and key- to remove one")
    return wanted, tuple(removed)


def _invalid(message: str) -> Invalid:
    return Invalid(message, field="argument", reason="invalid-argument")
