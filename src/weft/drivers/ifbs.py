"""Intermediate functional blocks: made, recognised and mended as host links are.

Until one that is gone is made again, what its container sends is dropped, because the redirection
leads nowhere.
"""

from __future__ import annotations

from weft.drivers.contract import Stage
from weft.drivers.single_links import SingleLinks
from weft.kernel import links
from weft.model.attachment import HOST_MAC
from weft.rows.bandwidth import Ifb


class Ifbs(SingleLinks[Ifb]):
    """Driver of `Ifb`."""

    kinds = (Ifb,)
    kind = "ifb"
    what = "link"
    missing = "the link {}, through which the container sends, is missing"
    place = Stage.CREATE, 1  # after the pair, so that nothing is left where that is refused

    def create(self, row: Ifb) -> bytes:
        """With the hardware address of all host links."""
        return links.create_ifb(row.name, HOST_MAC, row.mtu, row.group)

    def row_of(self, link: links.Link) -> Ifb:
        """What a row says of it."""
        return Ifb(
            name=link.name,
            mtu=link.mtu,
            alias=link.alias,
            group=link.group,
            master=link.master,
        )
