"""CNI 0.3.0: adds lists of plugins, `interfaces`, several addresses, routes of their own.

Its text says `ip` where every implementation, and 0.3.1's correction, says `ips`: so do we.
"""

from __future__ import annotations

from weft.wire.cni.versions import v0_3_1
from weft.wire.cni.versions.form import Command, SpecVersion

SPEC = SpecVersion(
    name="0.3.0",
    verbs=frozenset({Command.ADD, Command.DEL, Command.VERSION}),
    encode=v0_3_1.SPEC.encode,
    decode=v0_3_1.SPEC.decode,
)
