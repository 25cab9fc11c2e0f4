"""What an attachment adds to the node's sets whose link another plugin of the chain made.

The same questions as of our own links (`render.guards`), and two more: the pod may ask by ARP, as
far as it speaks of itself, because the maker gave the node's end an address that is asked for; and
masquerade is by source, because the pod's address is not of our pools. Where the link is a port of
the maker's bridge, what comes out of it is asked there (`render.bridge_guards`), and IP sees the
bridge.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.render import bridge_guards, sets
from weft.rows.rules import Element, Family


def elements(
    link: str, mac: bytes, addresses: Sequence[bytes], link_local: bytes | None, masquerade: bool
) -> tuple[Element, ...]:
    """The elements of one attachment; see `guards.elements` for what is given."""
    name = link.encode()
    mark = (sets.adopted(family, name) for family in (Family.INET, Family.ARP))
    return (*members(link, mac, addresses, link_local, masquerade), *mark)


def members(
    link: str, mac: bytes, addresses: Sequence[bytes], link_local: bytes | None, masquerade: bool
) -> tuple[Element, ...]:
    """The same without what says that the link is adopted: of one pod of several on a bridge."""
    name = link.encode()
    rows = [sets.guard(name, mac, ip) for ip in addresses]
    if link_local is not None:
        rows.append(sets.guard(name, mac, link_local))
    rows += [sets.arp_guard(name, mac, ip) for ip in addresses if len(ip) == 4]
    return (*rows, *_routed(name, addresses, masquerade))


def of_port(
    port: str,
    bridge: str,
    mac: bytes,
    addresses: Sequence[bytes],
    link_local: bytes | None,
    *,
    masquerade: bool,
    loopback: bool,
) -> tuple[Element, ...]:
    """The same of one whose link is a port of a bridge. `loopback`: a port of it is reached by
    127.0.0.1; that element is shared by all behind the bridge."""
    name = bridge.encode()
    shared = (sets.localnet(name),) if loopback else ()
    guards = bridge_guards.elements(port, mac, addresses, link_local)
    return (*guards, *_routed(name, addresses, masquerade), *shared)


def _routed(link: bytes, addresses: Sequence[bytes], masquerade: bool) -> list[Element]:
    rows = [sets.local(link, ip) for ip in addresses]
    return rows + ([sets.out(link, ip) for ip in addresses] if masquerade else [])
