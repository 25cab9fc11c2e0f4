"""Asking firewalld: the pools' ranges as sources of its zone `trusted`, until its next reload.

A source has no comment, so what we bound is written down by `engines.firewalld`; a source that was
bound before us, to whatever zone, is left alone. Source: firewalld.dbus(5).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from weft.model.addresses import Prefix

ZONE = "trusted"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Sources to bind and to take back, those that are forgotten, and what stands in the way."""

    bind: tuple[str, ...] = ()
    take_back: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Nothing to do and nothing to say."""
        return not (self.bind or self.take_back or self.forget or self.refused)


def plan(wanted: Collection[Prefix], ours: Collection[str], zones: Mapping[str, str]) -> Plan:
    """`ours`: sources that we have bound; `zones`: where each source is bound now, if anywhere."""
    names = [str(prefix) for prefix in wanted]
    stale = [name for name in ours if name not in names]
    return Plan(
        bind=tuple(name for name in names if not zones.get(name)),
        take_back=tuple(name for name in stale if zones.get(name) == ZONE),
        forget=tuple(name for name in stale if zones.get(name) != ZONE),
        refused=tuple(
            f"{name} is a source of its zone {zone} already, not of {ZONE}"
            for name in names
            if (zone := zones.get(name)) and zone != ZONE
        ),
    )
