"""How fast a container may send and receive: `bandwidth` of CNI's conventions.

`ingress` is what the container receives, `egress` what it sends, as in Kubernetes' annotations.
Rates are bits a second, bursts bits; 0 is "not limited" for a rate and "not said" for a burst.
"""

from __future__ import annotations

import re

import msgspec

from weft.model.errors import Invalid
from weft.model.names import printable

LOWEST_RATE = 8_000
"""Bits a second: one octet a millisecond. Below it, a packet of full size waits for seconds."""
HIGHEST_RATE = 10**15
_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?(?:([eE])([0-9]{1,2})|([kKMGTPE]i?|m)?)")
_UNITS = {
    "": 1,
    **{letter: 1000 ** (n + 1) for n, letter in enumerate("kMGTPE")},
    **{f"{letter}i": 1024 ** (n + 1) for n, letter in enumerate("KMGTPE")},
}


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of one attachment; see the module for units."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0

    def __bool__(self) -> bool:
        return bool(self.ingress_rate or self.egress_rate)


def parse_quantity(text: str, field: str) -> int:
    """A Kubernetes quantity (`10M`, `1Gi`, `2.5e6`) as a whole number, rounded up."""
    found = _QUANTITY.fullmatch(text)
    unit = (found[5] or "") if found else ""
    if found is None or (unit != "m" and unit not in _UNITS):
        raise Invalid(
            f"{field}: {printable(text)} is not a quantity such as 10M (bits a second)", field=field
        )
    whole, fraction = found[1], found[2] or ""
    digits, scale = int(whole + fraction), int("1" + "0" * len(fraction))
    if found[3]:
        digits *= int("1" + "0" * int(found[4]))
    elif unit == "m":
        scale *= 1000
    else:
        digits *= _UNITS[unit]
    return -(-digits // scale)


def format_rate(rate: int) -> str:
    """Bits a second as a quantity of which `parse_quantity` makes the same: `10M`; "-" for 0."""
    if not rate:
        return "-"
    for letter in reversed("kMGTP"):
        if rate % _UNITS[letter] == 0:
            return f"{rate // _UNITS[letter]}{letter}"
    return str(rate)


def check_bandwidth(limits: Bandwidth, field: str) -> None:
    """Raise Invalid, naming the field, for a limit that cannot be kept."""
    for name, rate, burst in (
        ("ingress", limits.ingress_rate, limits.ingress_burst),
        ("egress", limits.egress_rate, limits.egress_burst),
    ):
        if rate and not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise Invalid(
                f"{field}: {name}Rate {rate} is not within {LOWEST_RATE}..{HIGHEST_RATE} bits a "
                "second",
                field=f"{field}.{name}Rate",
            )
        if burst < 0:
            raise Invalid(f"{field}: {name}Burst {burst} is negative", field=f"{field}.{name}Burst")
        if burst and not rate:
            raise Invalid(
                f"{field}: {name}Burst is given without {name}Rate", field=f"{field}.{name}Rate"
            )
