"""CNI 0.1.0: ADD and DEL. Also what a configuration without `cniVersion` means.

Results are those of 0.2.0. The verb VERSION came later; we answer it whatever the configuration
says, for a runtime asks it before it has chosen a version.
"""

from __future__ import annotations

from weft.wire.cni.versions import v0_2_0
from weft.wire.cni.versions.form import Command, SpecVersion

SPEC = SpecVersion(
    name="0.1.0",
    verbs=frozenset({Command.ADD, Command.DEL}),
    encode=v0_2_0.encode,
    decode=v0_2_0.decode,
)
