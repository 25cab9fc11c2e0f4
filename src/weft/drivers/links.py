"""veth pairs: made in one message, recognised by their group from birth and by their alias after.

The group is part of the creation, the alias is a second message: it must not be sent together
with the creation, because the kernel goes on after a refusal and would then write our alias on
whoever has the name. A link is ours if it is a veth whose alias begins with `weft:` or that is in
one of our groups; one that somebody renamed is known by the whole record in its alias. The same
holds for ifbs (`drivers.ifbs`). Deleting links in the background is in `drivers.removal`.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from weft.drivers.contract import Medium, Names, Position, Scope, Stage, Watch
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.attachment import (
    ALIAS_MARK,
    LIMITER_PREFIX,
    LINK_PREFIX,
    LIVE_GROUP,
    read_alias,
    read_limiter_alias,
)
from weft.model.bridge import read_bridge_alias
from weft.model.errors import Conflict, Invalid, KernelRefused
from weft.rows.bandwidth import Ifb
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import PORT, Adoption, Bridge, Peer, Veth

DOOMED_GROUP = 0x77656675
"""IFLA_GROUP of host ends that are deleted together, at the price of one."""


Made = Veth | Ifb | Bridge

FEW = 4
"""Up to so many links are asked for one by one; more are read from a dump of all veths."""


def is_ours(link: links.Link) -> bool:
    """Whether we made this link; nothing else is ever deleted or taken over."""
    if link.kind == "bridge":
        return read_bridge_alias(link.alias) is not None
    if link.kind == "veth":
        named = link.name.startswith(LINK_PREFIX) or read_alias(link.alias) is not None
    else:
        whole = read_limiter_alias(link.alias) is not None
        named = link.kind == "ifb" and (link.name.startswith(LIMITER_PREFIX) or whole)
    return named and (link.alias.startswith(ALIAS_MARK) or link.group in (LIVE_GROUP, DOOMED_GROUP))


class Links:
    """Driver of `Veth`."""

    kinds = (Veth,)
    gone = frozenset((errno.ENODEV,))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(links.RTNLGRP_LINK,))

    def position(self, _: Veth) -> Position:
        """Before everything that hangs on it."""
        return Stage.CREATE, 0

    def encode(self, old: Veth | None, new: Veth | None, names: Names) -> Sequence[bytes]:
        """A change of a standing pair mends the host's end only."""
        if new is None:
            return (links.delete_by_name(old.name),) if old is not None else ()
        if old is not None:
            return mending(names.index(Place.HOST, old.name), old, new, names)
        if new.peer is None:
            raise KernelRefused(errno.EINVAL, "create", str(new), "the pod's end is not described")
        peer = links.End(new.peer.name, new.peer.mac, new.peer.mtu)
        host = links.End(new.name, new.mac, new.mtu)
        return (links.create_veth(host, new.group, peer, names.pod()),)

    def created(self, row: Veth, scope: Scope) -> None:
        """Write the alias, learn the numbers of both ends, in one exchange."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        outcome = via.commit([links.set_alias(row.name, row.alias), links.get_by_name(row.name)])
        for refusal in outcome.refusals:
            raise KernelRefused(refusal.errno, "set the alias of", str(row), refusal.words)
        index, peer = links.decode_indexes(outcome.answers[0][2])
        scope.names.learn(Place.HOST, row.name, index)
        if row.peer is not None:
            scope.names.learn(Place.POD, row.peer.name, peer)

    def cleared(self, row: Veth, code: int, scope: Scope) -> bool:
        """EEXIST: our own left-over is deleted; otherwise say whose name is taken."""
        if code != errno.EEXIST:
            return False
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        taken = via.find(row.name)
        if taken is None:
            name = row.peer.name if row.peer is not None else ""
            raise Invalid(
                f"the container already has an interface named {name!r}",
                field="CNI_IFNAME",
                reason="interface-exists",
            )
        if not is_ours(taken):
            raise Conflict(
                f"the node has a link named {row.name!r} that weft did not make; "
                "rename or delete it"
            )
        via.commit([links.delete_by_index(taken.ifindex)])
        return True

    def settle(self, row: Veth, scope: Scope) -> None:
        """Ask for the pod's end. Its carrier came with the host's end, but its queue is attached
        by a work item; an answer about the link waits for that (Linux 6.9 on; before, the item
        runs within a fraction of a millisecond), so that the first packet is not lost."""
        via: LinkTransport | None = scope.transport(Medium.POD_LINKS)
        if via is not None and row.peer is not None:
            via.commit([links.get_by_index(scope.names.index(Place.POD, row.peer.name))])

    def read(self, rows: Sequence[Veth], scope: Scope) -> Mapping[RowKey, Row]:
        """Host ends; of a pod that is at hand also the pod's ends, otherwise they are taken to
        be as wanted."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        inside: LinkTransport | None = scope.transport(Medium.POD_LINKS)
        known = standing(via, rows, "veth")
        found: dict[RowKey, Row] = {}
        for row in rows:
            link = known.get(row.name)
            if link is None:
                continue
            scope.names.learn(Place.HOST, row.name, link.ifindex)
            peer = row.peer
            if inside is not None and peer is not None:
                end = inside.find(peer.name)
                joined = end is not None and end.ifindex == link.peer
                peer = Peer(name=end.name, mac=end.mac, mtu=end.mtu) if end and joined else None
            found[row.key] = _row(link, peer, row)
        return found

    def words(self, row: Veth, found: Row | None) -> str:
        """Names the first thing that differs."""
        if not isinstance(found, Veth):
            return f"the link {row.name} on the host is missing"
        if row.peer is not None and found.peer is None:
            return f"the link {row.peer.name} in the container is missing or is not our veth"
        if row.peer is not None and found.peer is not None and row.peer != found.peer:
            what = differing(row.peer, found.peer)
            return f"the link {row.peer.name} in the container has {what}"
        return f"the link {row.name} on the host has {differing(row, found)}"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """The pair itself, and whether it is up; by its number, for it may have been renamed."""
        link = links.decode(body)
        name = names.name(Place.HOST, link.ifindex) or link.name
        return ("Veth", name), ("Up", Place.HOST, name)


def standing(via: LinkTransport, rows: Sequence[Made], kind: str) -> dict[str, links.Link]:
    """Links of one kind by the name they should have. A renamed one is known by its alias."""
    found: dict[str, links.Link] = {}
    if len(rows) <= FEW:
        found = {row.name: link for row in rows if (link := via.find(row.name)) is not None}
    if len(rows) > FEW or len(found) < len(rows):
        answers = via.dump(links.get_all(kind=kind))
        every = [links.decode(body) for _, body in answers]
        found = {link.name: link for link in every}
        signed = {link.alias: link for link in every if link.alias}
        for row in rows:
            if row.name not in found and row.alias in signed:
                found[row.name] = signed[row.alias]
    return {
        row.name: found[row.name]
        for row in rows
        if row.name in found and found[row.name].kind == kind and _may_be(row, found[row.name])
    }


def _may_be(row: Made, link: links.Link) -> bool:
    """Whether this is our link, though damaged: somebody else's of this name bears no mark."""
    mac = not isinstance(row, Ifb) and link.mac == row.mac
    signs = link.alias.startswith(ALIAS_MARK), link.group == row.group, mac
    return any(signs)


def mending(index: int, old: Made, new: Made, names: Names) -> Sequence[bytes]:
    """Messages that bring a standing link back to what it should be."""
    messages: list[bytes] = []
    if old.name != new.name:
        messages += _renaming(index, new.name)
        names.learn(Place.HOST, new.name, index)
    if new.master not in {old.master, PORT}:
        messages.append(links.set_free(index))
    return (
        *messages,
        links.set_properties(
            index,
            mac=None if isinstance(new, Ifb) else new.mac,
            mtu=None if isinstance(new, Bridge) else new.mtu,
            group=new.group,
            alias=new.alias,
        ),
    )


def _renaming(index: int, name: str) -> Sequence[bytes]:
    message = links.set_name(index, name)
    if renames_live():
        return (message,)
    # its routes and neighbours go with it, and are missed at the next look
    return links.set_down(index), message, links.set_up(index)


def give_name(via: LinkTransport, link: int, name: str) -> None:
    """Give a link of ours, by its number, its own name again. Raises KernelRefused (EEXIST: another
    link bears it)."""
    for refusal in via.commit(_renaming(link, name)).refusals:
        raise KernelRefused(refusal.errno, "rename to", name, refusal.words)


@functools.cache
def renames_live() -> bool:
    """Linux 6.2 and later rename links that are up."""
    release = re.match(r"([0-9]+)\.([0-9]+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= (6, 2)


def differs(row: Veth, link: links.Link) -> bool:
    """Whether the host's end is not as wanted, judged by a notification."""
    return _row(link, row.peer, row) != row


def inside_only(row: Row, found: Row | None) -> bool:
    """A veth whose host end is right: only the pod's end differs, which is not ours to mend. Of an
    adopted one the name neither."""
    if isinstance(row, Adoption) and isinstance(found, Adoption):
        return (row.group, row.alias) == (found.group, found.alias)
    return (
        isinstance(row, Veth)
        and isinstance(found, Veth)
        and msgspec.structs.replace(row, peer=None) == msgspec.structs.replace(found, peer=None)
    )


def linked(row: Row) -> str:
    """The name of the link on the host that the row is; "": it is none."""
    if isinstance(row, Adoption):
        return row.link
    return row.name if isinstance(row, Made) else ""


def _row(link: links.Link, peer: Peer | None, wanted: Veth) -> Veth:
    return Veth(
        name=link.name,
        mac=link.mac,
        mtu=link.mtu,
        alias=link.alias,
        group=link.group,
        peer=peer,
        master=PORT if wanted.master == PORT else link.master,
    )


def differing(wanted: msgspec.Struct, found: msgspec.Struct) -> str:
    """The first property that differs, in words."""
    if isinstance(found, Made) and found.master > 0:
        return f"been made a port of link {found.master}"
    for field in ("name", "mtu", "mac", "alias", "group"):
        one, other = getattr(wanted, field, None), getattr(found, field, None)
        if one != other:
            word = {"mtu": "MTU", "mac": "MAC"}.get(field, field)
            return f"{word} {_shown(other)} instead of {_shown(one)}"
    return "another shape than wanted"


def _shown(value: object) -> str:
    return value.hex(":") if isinstance(value, bytes) else str(value)
