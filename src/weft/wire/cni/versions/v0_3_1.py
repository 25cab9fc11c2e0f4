"""CNI 0.3.1: 0.4.0 without CHECK. Its text calls the list of addresses `ips`, as everyone did."""

from __future__ import annotations

from weft.wire.cni.versions import v0_4_0
from weft.wire.cni.versions.form import Command, SpecVersion

SPEC = SpecVersion(
    name="0.3.1",
    verbs=frozenset({Command.ADD, Command.DEL, Command.VERSION}),
    encode=v0_4_0.SPEC.encode,
    decode=v0_4_0.SPEC.decode,
)
