"""What a version of the specification is to us: a name, its verbs and two conversions.

Apart from the table so that every version's file can import it. A version converts to and from
its newer neighbour or the internal form (`result.Result`), never across several.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from weft.wire.cni.document import JsonObject, Shape, project, undecodable
from weft.wire.cni.result import Result


class Command(StrEnum):
    """The verbs a runtime may ask for (SPEC section 2, CNI_COMMAND)."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    STATUS = "STATUS"
    GC = "GC"
    VERSION = "VERSION"


class SpecVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `encode` and `decode` leave the key `cniVersion` to their caller."""

    name: str
    verbs: frozenset[Command]
    encode: Callable[[Result], JsonObject]
    decode: Callable[[JsonObject], Result]


def pick(obj: object, keys: Shape) -> JsonObject:
    """The known keys of an object, whatever their case; Invalid if it is no object."""
    picked = project(obj, keys)
    if not isinstance(picked, dict):
        raise undecodable("prevResult: expected an object", field="prevResult")
    return picked


def picked(result: Result, keys: Shape) -> JsonObject:
    """A result as plain values with only these keys; empty parts are absent."""
    obj = pick(msgspec.to_builtins(result), keys)
    if not obj.get("dns"):
        obj.pop("dns", None)
    return obj
