"""Bridges of the node's: made, recognised and mended as host links are.

One that is gone is made again; its ports are put back by their own rows.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers import links as host_links
from weft.drivers.contract import Medium, Names, Position, Scope, Stage, Watch
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.errors import Conflict, KernelRefused
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Bridge


class Bridges:
    """Driver of `Bridge`."""

    kinds = (Bridge,)
    gone = frozenset((errno.ENODEV,))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(links.RTNLGRP_LINK,))

    def position(self, _: Bridge) -> Position:
        """Before what hangs on it."""
        return Stage.CREATE, 0

    def encode(self, old: Bridge | None, new: Bridge | None, names: Names) -> Sequence[bytes]:
        """A change of a standing one mends its properties."""
        if new is None:
            return (links.delete_by_name(old.name),) if old is not None else ()
        if old is not None:
            return host_links.mending(names.index(Place.HOST, old.name), old, new, names)
        return (links.create_bridge(new.name, new.mac, new.group),)

    def created(self, row: Bridge, scope: Scope) -> None:
        """Write the alias and learn the number, in one exchange."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        outcome = via.commit([links.set_alias(row.name, row.alias), links.get_by_name(row.name)])
        for refusal in outcome.refusals:
            raise KernelRefused(refusal.errno, "set the alias of", str(row), refusal.words)
        index, _ = links.decode_indexes(outcome.answers[0][2])
        scope.names.learn(Place.HOST, row.name, index)

    def cleared(self, row: Bridge, code: int, scope: Scope) -> bool:
        """EEXIST: our own left-over is deleted; otherwise say whose name is taken."""
        if code != errno.EEXIST:
            return False
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        standing = via.find(row.name)
        # before its alias is written it is known by our group and its hardware address
        unsigned = standing is not None and (standing.group, standing.mac) == (row.group, row.mac)
        if standing is not None and not unsigned and not host_links.is_ours(standing):
            raise Conflict(
                f"the node has a link named {row.name!r} that weft did not make; rename or delete "
                "it, or name another `bridge` in the configuration"
            )
        if standing is not None:
            via.commit([links.delete_by_index(standing.ifindex)])
        return True

    def settle(self, row: Bridge, scope: Scope) -> None:
        """Nothing happens late."""

    def read(self, rows: Sequence[Bridge], scope: Scope) -> Mapping[RowKey, Row]:
        """By name, or from a dump; one that was renamed is known by its alias."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        found: dict[RowKey, Row] = {}
        for name, link in host_links.standing(via, rows, "bridge").items():
            scope.names.learn(Place.HOST, name, link.ifindex)
            found["Bridge", name] = _row(link)
        return found

    def words(self, row: Bridge, found: Row | None) -> str:
        """Names the first thing that differs."""
        if not isinstance(found, Bridge):
            return f"the bridge {row.name} on the host is missing"
        return f"the bridge {row.name} on the host has {host_links.differing(row, found)}"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """Itself, and whether it is up."""
        link = links.decode(body)
        name = names.name(Place.HOST, link.ifindex) or link.name
        return ("Bridge", name), ("Up", Place.HOST, name)


def differs(row: Bridge, link: links.Link) -> bool:
    """Whether it is not as wanted, judged by a notification."""
    return _row(link) != row


def _row(link: links.Link) -> Bridge:
    return Bridge(
        name=link.name, mac=link.mac, alias=link.alias, group=link.group, master=link.master
    )
