"""Host ends that other plugins made: marked, looked at, and given back; never made or deleted.

The mark is a group, by which the rules know the link whatever it is called, and an alias, from
which a lost journal is rebuilt. A link is known by its number: one that was made again under the
same name is another container's.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from weft.drivers.contract import Medium, Names, Position, Scope, Stage, Watch
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.attachment import is_still
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Adoption


class Adoptions:
    """Driver of `Adoption`."""

    kinds = (Adoption,)
    gone = frozenset((errno.ENODEV,))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(links.RTNLGRP_LINK,))

    def position(self, _: Adoption) -> Position:
        """First of the host's stage: what hangs on the link finds its number."""
        return Stage.HOST, -3

    def encode(self, old: Adoption | None, new: Adoption | None, names: Names) -> Sequence[bytes]:
        """By number: the name may be another link's by now."""
        if new is not None:
            names.learn(Place.HOST, new.link, new.index)
            return (links.set_mark(new.index, new.group, new.alias),)
        if old is None:
            return ()
        alias = None if old.alias is None else ""
        return (links.set_mark(old.index, old.group_after, alias),)

    def read(self, rows: Sequence[Adoption], scope: Scope) -> Mapping[RowKey, Row]:
        """By number. The pod's end is looked at only where the pod is at hand."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        inside: LinkTransport | None = scope.transport(Medium.POD_LINKS)
        found: dict[RowKey, Row] = {}
        for row in rows:
            link = via.find_index(row.index)
            if link is None or link.kind != "veth" or not is_still(link, row.link, row.alias):
                continue
            if link.name == row.link:
                scope.names.learn(Place.HOST, row.link, row.index)
            pod_link, pod_mac = row.pod_link, row.pod_mac
            if inside is not None:
                end = inside.find(row.pod_link)
                joined = end is not None and end.ifindex == link.peer
                pod_link, pod_mac = (end.name, end.mac) if end and joined else ("", b"")
            found[row.key] = Adoption(
                link=link.name,
                index=row.index,
                group=link.group,
                alias=None if row.alias is None else link.alias,
                pod_link=pod_link,
                pod_mac=pod_mac,
                group_after=row.group_after,
                master=link.master,
            )
        return found

    def words(self, row: Adoption, found: Row | None) -> str:
        """Names the first thing that differs."""
        if not isinstance(found, Adoption):
            return f"the link {row.link} on the host, which weft adopted, is missing"
        if found.link != row.link:
            return f"the adopted link {row.link} on the host is called {found.link} now"
        if not found.pod_link:
            return f"the link {row.pod_link} in the container is not the other end of {row.link}"
        if found.pod_mac != row.pod_mac:
            macs = f"{found.pod_mac.hex(':')} instead of {row.pod_mac.hex(':')}"
            return f"the link {row.pod_link} in the container has MAC {macs}: nothing of it passes"
        if found.master != row.master:
            bridge = f"a port of link {found.master}" if found.master else "a port of no bridge"
            return f"the adopted link {row.link} on the host is {bridge} now: nothing of it passes"
        what = "group" if found.group != row.group else "alias"
        return f"the adopted link {row.link} on the host has another {what}"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """The link itself, by its number."""
        return (("Adoption", links.index_of(body)),)


def differs(row: Adoption, link: links.Link) -> bool:
    """Whether the host's end is not as wanted, judged by a notification; its name apart."""
    signed = row.alias is None or link.alias == row.alias
    return link.ifindex == row.index and not (link.group == row.group and signed)
