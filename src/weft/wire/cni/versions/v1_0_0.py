"""CNI 1.0.0: addresses without `version`, an empty `dns` left out; lists only.

What 1.1.0 added is taken out here in both directions. The Go libraries leave route attributes in,
because their struct is shared; a reader of 1.0.0 has no use for them.
"""

from __future__ import annotations

from weft.wire.cni.document import JsonObject, shape
from weft.wire.cni.result import Result, read
from weft.wire.cni.versions.form import Command, SpecVersion, pick, picked

_SHAPE = shape(
    interfaces=shape("name", "mac", "sandbox"),
    ips=shape("interface", "address", "gateway"),
    routes=shape("dst", "gw"),
    dns=shape("nameservers", "domain", "search", "options"),
)


def encode(result: Result) -> JsonObject:
    """Names, addresses and routes; empty parts are absent."""
    return picked(result, _SHAPE)


def decode(obj: JsonObject) -> Result:
    """What 1.0.0 knows; anything else is an unknown key."""
    return read(pick(obj, _SHAPE))


SPEC = SpecVersion(
    name="1.0.0",
    verbs=frozenset({Command.ADD, Command.DEL, Command.CHECK, Command.VERSION}),
    encode=encode,
    decode=decode,
)
