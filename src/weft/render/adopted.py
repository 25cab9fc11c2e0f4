"""What an attachment adds to the node's sets whose link another plugin of the chain made.

The same questions as of our own links (`render.guards`), and two more: the pod may ask by ARP, as
far as it speaks of itself, because the maker gave the node's end an address that is asked for; and
masquerade is by source, because the pod's address is not of our pools.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.render import sets
from weft.rows.rules import Element, Family


def elements(
    link: str, mac: bytes, addresses: Sequence[bytes], link_local: bytes | None, masquerade: bool
) -> tuple[Element, ...]:
    """The elements of one attachment; see `guards.elements` for what is given."""
    name = link.encode()
    rows = [sets.guard(name, mac, ip) for ip in addresses]
    if link_local is not None:
        rows.append(sets.guard(name, mac, link_local))
    for ip in addresses:
        rows.append(sets.local(name, ip))
        if len(ip) == 4:
            rows.append(sets.arp_guard(name, mac, ip))
        if masquerade:
            rows.append(sets.out(name, ip))
    rows += (sets.adopted(family, name) for family in (Family.INET, Family.ARP))
    return tuple(rows)
