"""Plain data into our structs, with errors that a person can act on.

The conversion itself is msgspec's (C, fast); only when it fails is its message taken apart to
name the dotted field and, for an unknown field, the nearest known one. Objects (`kinds.py`) and
settings (`settings.py`) both come through here. msgspec words its messages "... - at `$.a.b`";
a test holds it to that.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from weft.model.errors import Invalid
from weft.model.names import did_you_mean

T = TypeVar("T")
_PRINTABLE = re.compile(r"[^ -~]")
_AT = re.compile(r"(?P<what>.*?)(?: - at `(?:key` in `)?\$(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)


def convert_strictly(data: Any, into: type[T], *, reason: str, prefix: str = "") -> T:
    """`data` as an `into`; raises `Invalid` with the dotted field, below `prefix` if given."""
    try:
        return msgspec.convert(data, into, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(str(error), into, reason, prefix) from None


def _explain(text: str, into: type[Any], reason: str, prefix: str) -> Invalid:
    found = _AT.fullmatch(text)
    what, path = (found["what"], found["path"] or "") if found else (text, "")
    what = _PRINTABLE.sub("?", what)
    parts = _parts(path)
    if (unknown := _UNKNOWN.fullmatch(what)) is not None:
        known = fields_at(into, parts)
        field = _dotted(prefix, [*parts, unknown["name"]])
        hint = did_you_mean(unknown["name"], known)
        message = f"{field}: unknown field{hint}"
        if not hint and known:
            message += f"; known are {', '.join(known)}"
        return Invalid(message, field=field, reason=reason)
    if (missing := _MISSING.fullmatch(what)) is not None:
        field = _dotted(prefix, [*parts, missing["name"]])
        return Invalid(f"{field}: required, but missing", field=field, reason=reason)
    field = _dotted(prefix, parts)
    shown = what[:1].lower() + what[1:].replace("`", "")
    if shown.startswith("invalid enum value") and (choices := choices_at(into, parts)):
        shown += did_you_mean(shown.partition("'")[2].rstrip("'"), choices)
        shown += f"; known are {', '.join(choices)}"
    return Invalid(f"{field or 'document'}: {shown}", field=field, reason=reason)


def _dotted(prefix: str, parts: list[str]) -> str:
    dotted = prefix
    for part in parts:
        dotted += part if part.startswith("[") else f".{part}" if dotted else part
    return dotted


def _parts(path: str) -> list[str]:
    """msgspec's path as parts; it writes `[...]` for any key of a mapping."""
    return re.findall(r"\[[^\]]*\]|[^.\[]+", path)


def fields_at(into: Any, parts: list[str]) -> list[str]:
    """The names of the fields of the struct that `parts` leads to from `into`."""
    here = _struct_in(_annotation_at(into, parts))
    return [each.encode_name for each in msgspec.structs.fields(here)] if here is not None else []


def choices_at(into: Any, parts: list[str]) -> list[str]:
    """The words that the field allows to which `parts` leads from `into`, if it lists any."""
    return _words_in(_annotation_at(into, parts))


def _annotation_at(into: Any, parts: list[str]) -> Any:
    annotation = into
    for part in parts:
        if part.startswith("["):
            continue
        here = _struct_in(annotation)
        if here is None:
            return None
        types = {each.encode_name: each.type for each in msgspec.structs.fields(here)}
        annotation = types.get(part)
    return annotation


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct within `X`, `X | None`, `tuple[X, ...]`, `Annotated[X, ...]` or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _struct_in(argument)
        if found is not None:
            return found
    return None


def _words_in(annotation: Any) -> list[str]:
    """The words of every Literal within the annotation."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for argument in get_args(annotation) for word in _words_in(argument)]
