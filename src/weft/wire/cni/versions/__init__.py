"""The versions of the CNI specification that we speak: the one list, oldest first.

A further version is one file here and one line in `_TABLE` (and the same line in the launcher,
which answers VERSION by itself; a test compares the two). A version's file says what that version
added; `form.py` says what a version consists of.
"""

from __future__ import annotations

import re

from weft.model.errors import Invalid
from weft.model.names import printable
from weft.wire.cni.versions import v0_1_0, v0_2_0, v0_3_0, v0_3_1, v0_4_0, v1_0_0, v1_1_0
from weft.wire.cni.versions.form import Command, SpecVersion

_TABLE = (
    v0_1_0.SPEC,
    v0_2_0.SPEC,
    v0_3_0.SPEC,
    v0_3_1.SPEC,
    v0_4_0.SPEC,
    v1_0_0.SPEC,
    v1_1_0.SPEC,
)
VERSIONS: dict[str, SpecVersion] = {spec.name: spec for spec in _TABLE}
SUPPORTED: tuple[str, ...] = tuple(VERSIONS)
NEWEST = SUPPORTED[-1]
LEGACY = SUPPORTED[0]
"""What an absent or empty `cniVersion` means."""

_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}")


def is_version(text: str) -> bool:
    """Whether the text is a version number at all: one to three decimal numbers."""
    return _VERSION.fullmatch(text) is not None


def spec_version(given: str, field: str = "cniVersion") -> SpecVersion:
    """The version that a configuration names; "" is the legacy form.

    Raises Invalid: `decode-failure` (code 6) for what is no version, `incompatible-version`
    (code 1) for one that we do not speak; details name those we do.
    """
    spec = VERSIONS.get(given or LEGACY)
    if spec is not None:
        return spec
    if not is_version(given):
        raise Invalid(
            f"{field}: {printable(given, 32)} is not a version such as {NEWEST}",
            field=field,
            reason="decode-failure",
        )
    quoted = " ".join(f'"{name}"' for name in SUPPORTED)
    raise Invalid(
        "incompatible CNI versions",
        field=field,
        reason="incompatible-version",
        details=f'config is "{given}", plugin supports [{quoted}]',
    )


def check_verb(spec: SpecVersion, command: Command) -> None:
    """Whether a configuration of this version may be asked for this verb (code 1 if not)."""
    if command not in spec.verbs and command is not Command.VERSION:
        raise Invalid(
            f"config version does not allow {command}",
            field="cniVersion",
            reason="version-lacks-verb",
            details=f'config is "{spec.name}"; {command} needs '
            f"{next(each.name for each in _TABLE if command in each.verbs)} or newer",
        )
