"""What one attachment adds to the node's sets.

An address that is not listed here is dropped at the pod's own link, so the elements must stand
before the link is up, and taking them away cuts the pod off at once. Next: `render.ingress`.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.render import sets
from weft.rows.rules import Element


def elements(
    link: str, mac: bytes, addresses: Sequence[bytes], link_local: bytes | None, masquerade: bool
) -> tuple[Element, ...]:
    """The elements of one attachment.

    `link` is the host's end, `mac` and `addresses` (4 or 16 octets each) the pod's. `link_local`
    is the pod's IPv6 link-local address, None where it has none: it may send from it, but nothing
    is ever forwarded to it. `masquerade` False: the pod leaves the node under its own address.
    """
    name = link.encode()
    rows = [sets.guard(name, mac, ip) for ip in addresses]
    if link_local is not None:
        rows.append(sets.guard(name, mac, link_local))
    rows += [sets.local(name, ip) for ip in addresses]
    if not masquerade:
        rows.append(sets.routed(name))
    return tuple(rows)
