"""Bridges of the node's: made, recognised and mended as host links are.

The ports of one that is made again are put back by their own rows.
"""

from __future__ import annotations

from weft.drivers.contract import Stage
from weft.drivers.single_links import SingleLinks
from weft.kernel import links
from weft.rows.links import Bridge


class Bridges(SingleLinks[Bridge]):
    """Driver of `Bridge`."""

    kinds = (Bridge,)
    kind = "bridge"
    what = "bridge"
    missing = "the bridge {} on the host is missing"
    advice = "rename or delete it, or name another `bridge` in the configuration"
    place = Stage.CREATE, 0  # before what hangs on it

    def create(self, row: Bridge) -> bytes:
        """With a hardware address of its own, which does not change with its ports."""
        return links.create_bridge(row.name, row.mac, row.group)

    def is_unsigned(self, row: Bridge, link: links.Link) -> bool:
        """Before its alias is written it is known by our group and its hardware address."""
        return (link.group, link.mac) == (row.group, row.mac)

    def row_of(self, link: links.Link) -> Bridge:
        """What a row says of it."""
        return Bridge(
            name=link.name, mac=link.mac, alias=link.alias, group=link.group, master=link.master
        )
