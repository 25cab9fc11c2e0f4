"""CNI 0.4.0: adds the verb CHECK, and `prevResult` for CHECK and DEL.

Beside its neighbour 1.0.0 every address says its family in `version`, and `dns` is always there,
`{}` when empty.
"""

from __future__ import annotations

from weft.wire.cni.document import JsonObject
from weft.wire.cni.result import Result
from weft.wire.cni.versions import v1_0_0
from weft.wire.cni.versions.form import Command, SpecVersion


def encode(result: Result) -> JsonObject:
    """1.0.0's object with `version` in each address and `dns` present."""
    obj = v1_0_0.encode(result)
    texts = obj.get("ips")
    if isinstance(texts, list):  # in the order of `result.ips`
        versions = (ip.version for ip in result.ips)
        obj["ips"] = [{"version": v, **ip} for v, ip in zip(versions, texts, strict=True)]
    return {**obj, "dns": obj.get("dns", {})}


SPEC = SpecVersion(
    name="0.4.0",
    verbs=frozenset({Command.ADD, Command.DEL, Command.CHECK, Command.VERSION}),
    encode=encode,
    decode=v1_0_0.decode,  # `version` says again what the address says: an unknown key there
)
