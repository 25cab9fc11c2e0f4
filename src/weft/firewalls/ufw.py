"""Asking ufw: its rules for routed packets, by its own command, with a comment as the mark.

What it holds is read from its files `user.rules` and `user6.rules`, where every rule has a line

    ### tuple ### route:allow any any TO any FROM in comment=HEX
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from weft.firewalls.admission import MARK, Admission

_TUPLE = "### tuple ###"
_ANYWHERE = ("0.0.0.0/0", "::/0")


def is_enabled(configuration: str) -> bool:
    """Whether `ufw.conf` says so."""
    return any(
        line.partition("#")[0].replace(" ", "").strip().lower() == "enabled=yes"
        for line in configuration.splitlines()
    )


def standing(rules: str) -> frozenset[Admission]:
    """Our admissions in the text of a file of rules."""
    return frozenset(_admissions(rules))


def commands(held: Collection[Admission], wanted: Collection[Admission]) -> Iterator[list[str]]:
    """What makes it hold just the wanted ones, removals first."""
    for each in sorted(set(held) - set(wanted), key=_order):
        yield ["ufw", "route", "delete", "allow", each.direction, str(each.prefix)]
    for each in sorted(set(wanted) - set(held), key=_order):
        yield ["ufw", "route", "allow", each.direction, str(each.prefix), "comment", MARK]


def _order(admission: Admission) -> tuple[int, str]:
    return admission.prefix.version, admission.words


def _admissions(rules: str) -> Iterator[Admission]:
    for line in rules.splitlines():
        words = line.removeprefix(_TUPLE).split()
        if not line.startswith(_TUPLE) or words[:1] != ["route:allow"] or len(words) < 7:
            continue
        if f"comment={MARK.encode().hex()}" not in words:
            continue
        target, source = words[3], words[5]
        try:
            if source in _ANYWHERE:
                yield Admission(prefix=ipaddress.ip_network(target), direction="to")
            elif target in _ANYWHERE:
                yield Admission(prefix=ipaddress.ip_network(source), direction="from")
        except ValueError:
            continue
