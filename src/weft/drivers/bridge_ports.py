"""Ports of the node's bridges: a link of ours that is a port of the right one, isolated or not.

Isolation is switched on in the exchange that makes the port, before the link is up.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Medium, Names, Position, Scope, Stage
from weft.drivers.links import FEW
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Port


class BridgePorts:
    """Driver of `Port`. Its notifications come with those of `drivers.links`."""

    kinds = (Port,)
    gone = frozenset((errno.ENODEV,))
    watch = None

    def position(self, _: Port) -> Position:
        """First of the host's stage: the link is still down."""
        return Stage.HOST, -2

    def encode(self, _: Port | None, new: Port | None, names: Names) -> Sequence[bytes]:
        """A port goes with its link."""
        if new is None:
            return ()
        index = names.index(Place.HOST, new.link)
        return (
            links.set_master(index, names.index(Place.HOST, new.bridge)),
            links.set_isolated(index, new.isolated),
        )

    def read(self, rows: Sequence[Port], scope: Scope) -> Mapping[RowKey, Row]:
        """By name, or from a dump."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        if len(rows) <= FEW:
            standing = [link for row in rows if (link := via.find(row.link)) is not None]
        else:
            standing = [links.decode(body) for _, body in via.dump(links.get_all())]
        found = {link.name: link for link in standing}
        return {
            row.key: Port(
                link=row.link,
                bridge=scope.names.name(Place.HOST, link.master) or "",
                isolated=link.isolated,
            )
            for row in rows
            if (link := found.get(row.link)) is not None and link.master
        }

    def words(self, row: Port, found: Row | None) -> str:
        """Names the first thing that differs."""
        if not isinstance(found, Port):
            return f"the link {row.link} on the host is no port of the bridge {row.bridge}"
        if found.bridge != row.bridge:
            return f"the link {row.link} on the host is a port of {found.bridge}, not {row.bridge}"
        now = "isolated" if found.isolated else "not isolated"
        return f"the link {row.link} is {now} on the bridge {row.bridge}"

    def touched(self, _: int, __: memoryview, ___: Names) -> Collection[RowKey]:
        """Never called: `agent.notices` hears of ports."""
        return ()
