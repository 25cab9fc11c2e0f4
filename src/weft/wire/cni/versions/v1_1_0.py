"""CNI 1.1.0: the internal form itself.

Adds the verbs STATUS and GC, `mtu`, `socketPath` and `pciID` of interfaces, and `mtu`, `advmss`,
`priority`, `table` and `scope` of routes. Keys are listed so that what a later version adds to the
internal form does not appear here.
"""

from __future__ import annotations

from weft.wire.cni.document import JsonObject, shape
from weft.wire.cni.result import Result, read
from weft.wire.cni.versions.form import Command, SpecVersion, pick, picked

_SHAPE = shape(
    interfaces=shape("name", "mac", "mtu", "sandbox", "socketPath", "pciID"),
    ips=shape("interface", "address", "gateway"),
    routes=shape("dst", "gw", "mtu", "advmss", "priority", "table", "scope"),
    dns=shape("nameservers", "domain", "search", "options"),
)


def encode(result: Result) -> JsonObject:
    """Everything; empty parts are absent."""
    return picked(result, _SHAPE)


def decode(obj: JsonObject) -> Result:
    """Everything."""
    return read(pick(obj, _SHAPE))


SPEC = SpecVersion(
    name="1.1.0",
    verbs=frozenset(
        {
            *(Command.ADD, Command.DEL, Command.CHECK),
            *(Command.STATUS, Command.GC, Command.VERSION),
        }
    ),
    encode=encode,
    decode=decode,
)
