"""Adopting the interface that an earlier plugin of the chain made.

The host's end is found by the kernel's numbers, never by what `prevResult` calls it: the interface
inside the container says the number of its other end, and that end has to say the same of the
container. Everything that can be refused is refused here, before the first effect.
"""

from __future__ import annotations

import ipaddress

import msgspec

from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.agent.promise import rows_of
from weft.drivers.surroundings import Host
from weft.drivers.transports import PodTransports
from weft.kernel import namespaces, nsids, sysctl
from weft.kernel.links import Link
from weft.model.attachment import (
    ADOPTED_GROUP,
    LINK_PREFIX,
    Adopted,
    Assigned,
    Attachment,
    NamespaceId,
    read_adoption,
)
from weft.model.errors import Conflict, Invalid, Unsupported, WeftError
from weft.render.sets import strangers_among
from weft.rows.base import Row
from weft.rows.rules import Element
from weft.wire.cni import Request, Result


class HostEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What is adopted: the host's end, and the hardware address of the container's."""

    link: Link
    mac: bytes


class Adopter:
    """Judges what is to be adopted, and makes room for it."""

    def __init__(self, ground: Ground, detacher: Detacher) -> None:
        self._engine = ground.engine
        self._attachments = ground.attachments
        self._addresses = ground.addresses
        self._node = ground.node
        self._journal = ground.journal
        self._log = ground.log
        self._detacher = detacher

    async def secure(self, request: Request, netns: int) -> tuple[Assigned, ...]:
        """The interface's own addresses, so that nobody else is given them. Who had the link's
        name or an address before, and is gone without a DEL, makes room. Raises WeftError."""
        end = self.find(request, netns)
        for before in self._on_record(end.link):
            if before.key == request.key:
                continue
            if not self._detacher.vanished(before) and self._is_inside(before, netns):
                raise Conflict(
                    f"{end.link.name}, the host's end of {request.ifname}, is guarded for "
                    f"{before.key} already; DEL that first",
                    reason="not-adoptable",
                )
            await self._detacher.detach(before.key)
        texts = _addresses_of(request)
        for text in texts:
            await self._make_room(request, text)
        return self._addresses.take(request.key, texts)

    def _on_record(self, link: Link) -> list[Attachment]:
        """Who adopted a link of this number, or of this name and another number. A living link
        that was renamed, which nobody may have noticed yet, is followed and not among them."""
        found = []
        for each in self._attachments.copied():
            if each.adopted is None:
                continue
            if each.adopted.index == link.ifindex:
                found.append(each)
            elif each.host_link == link.name:
                if not self._detacher.vanished(each):
                    now = self._engine.host.links.find_index(each.adopted.index)
                    if now is not None:
                        self.renamed(each.host_link, now.name)
                else:
                    found.append(each)
        return found

    def _is_inside(self, before: Attachment, netns: int) -> bool:
        """Whether it was made in this namespace, in which the link ends by the kernel's word; what
        was made in another had an earlier link of the number."""
        dev, ino = namespaces.identity(netns)
        return before.netns in (None, NamespaceId(dev=dev, ino=ino))

    async def _make_room(self, request: Request, text: str) -> None:
        address = ipaddress.ip_address(text)
        use = self._addresses.view.ledgers[address.version].used.get(int(address))
        holder = self._attachments.get(use.key) if use is not None else None
        if holder is not None and holder.key != request.key and self._detacher.vanished(holder):
            await self._detacher.detach(holder.key)

    def find(self, request: Request, netns: int) -> HostEnd:
        """The host's end of the interface. Raises Unsupported, Conflict or Invalid."""
        found = host_end(self._engine.host, netns, request.ifname)
        name = found.link.name
        if name.startswith(LINK_PREFIX) and not strangers_among((name,)):
            raise Conflict(
                f"weft made {request.ifname} of the container itself; name it once in the list",
                reason="not-adoptable",
            )
        if name.startswith(LINK_PREFIX):
            raise Unsupported(
                f"the host's end of {request.ifname} is called {name}, and links that begin with "
                f"{LINK_PREFIX} are weft's; let its plugin call it otherwise",
                reason="not-adoptable",
            )
        if found.link.master and (why := self._node.unbridged):
            raise Unsupported(
                f"the host's end of {request.ifname}, {name}, is a port of a bridge, where weft "
                f"cannot guard it: {why}; let ptp or weft make the interface",
                reason="not-adoptable",
            )
        if found.link.master and request.wishes.egress is not None:
            raise Unsupported(
                f"the host's end of {request.ifname}, {name}, is a port of a bridge, and no egress "
                "list closes the way to its other ports; let ptp or weft make the interface",
                reason="not-adoptable",
            )
        if request.wishes.bandwidth:
            self._refuse_limited(request, found.link)
        return found

    def _refuse_limited(self, request: Request, link: Link) -> None:
        if self._node.is_shaped(link.ifindex):
            raise Conflict(
                f"another plugin limits the rates of {link.name} already; take the limits, or the "
                "capability `bandwidth`, from one of both",
                reason="not-adoptable",
            )

    def renamed(self, link: str, name: str) -> None:
        """Somebody renamed an adopted link. It is not ours to call it back, so the guards follow;
        until they do its group keeps whatever comes from it out."""
        attachment = self._attachments.of_link(link)
        if attachment is None or attachment.adopted is None or attachment.state != "ready":
            return
        other = self._attachments.of_link(name)
        if other is not None and other.key != attachment.key:
            return  # that one is renamed, too: the sweep comes
        owner = str(attachment.key)
        followed = msgspec.structs.replace(attachment, host_link=name)
        rows = rows_of(followed, self._node)
        try:
            self._journal.put(followed)
            # what hangs on the link went with it; only what names it has to be made again
            standing = [row for row in self._engine.rows(owner) if isinstance(row, Element)]
            self._engine.forget(owner)
            self._engine.adopt(owner, standing)
            self._engine.adopt(owner, (row for row in rows if not isinstance(row, Element)))
            self._engine.learn(name, attachment.adopted.index)
            self._engine.apply(owner, rows)
        except WeftError as error:
            self._log.event("error", "NotRepaired", owner, error.message)
            return
        self._attachments.put(followed)
        self._log.event("warning", "LinkRenamed", owner, f"{link} is called {name} now")

    def follow_bridges(self) -> None:
        """Bridges that somebody renamed: what goes by their names follows, above all what keeps
        their containers from 127/8."""
        old: list[Row] = []
        for each in self._attachments.copied():
            found = each.adopted
            if found is None or not found.bridge or each.state != "ready":
                continue
            bridge = self._engine.host.links.find_index(found.master)
            if bridge is None or bridge.name == found.bridge or bridge.kind != "bridge":
                continue
            owner, name = str(each.key), bridge.name
            followed = msgspec.structs.replace(
                each, adopted=msgspec.structs.replace(found, bridge=name)
            )
            rows = rows_of(followed, self._node)
            wanted = {row.key for row in rows}
            try:
                self._journal.put(followed)
                before = self._engine.rows(owner)
                old += (r for r in before if isinstance(r, Element) and r.key not in wanted)
                standing = {row.key for row in before}
                self._engine.forget(owner)
                self._engine.adopt(owner, (row for row in rows if row.key in standing))
                self._engine.learn(each.host_link, found.index)
                self._engine.apply(owner, rows)
            except WeftError as error:
                self._log.event("error", "NotRepaired", owner, error.message)
                continue
            self._attachments.put(followed)
            words = f"{found.bridge}, of which its link is a port, is called {name} now"
            self._log.event("warning", "LinkRenamed", owner, words)
        if old:
            try:  # several may have shared one
                self._engine.adopt("renamed bridges", old)
                self._engine.withdraw("renamed bridges")
            except WeftError as error:
                self._log.event("error", "NotRepaired", "renamed bridges", error.message)

    def adopted(self, link: Link) -> Adopted:
        """What the link was before, and its bridge. Raises Conflict where it is about to go."""
        ours = link.group == ADOPTED_GROUP  # what an agent left that nobody knows of any more
        bridge = self._engine.host.links.find_index(link.master) if link.master else None
        if link.master and bridge is None:
            raise Conflict(f"the bridge of {link.name} has just gone", reason="not-adoptable")
        name = bridge.name if bridge is not None else ""
        localnet = sysctl.read(f"net/ipv4/conf/{name or link.name}/route_localnet") or "0"
        for other in self._attachments if name else ():
            if other.adopted is not None and other.adopted.bridge == name:
                localnet = other.adopted.localnet  # it may be us who changed it
                break
        return Adopted(
            index=link.ifindex,
            group=0 if ours else link.group,
            signed=not link.alias or read_adoption(link.alias) is not None,
            localnet=localnet,
            bridge=name,
            master=link.master,
        )


def host_end(host: Host, netns: int, ifname: str) -> HostEnd:
    """The host's end of a container's interface. Raises Unsupported where it has none on this
    node, Invalid where there is no such interface."""
    pod = PodTransports(netns)
    try:
        inside = pod.links.find(ifname)
    finally:
        pod.close()
    if inside is None:
        raise Invalid(
            f"prevResult names the interface {ifname}, but the container has none of this name",
            field="prevResult.interfaces",
        )
    if inside.kind != "veth":
        what = f"a link of kind {inside.kind}" if inside.kind else "a device of the machine"
        raise Unsupported(_unguarded(ifname, what), reason="not-adoptable")
    link = host.links.find_index(inside.peer)
    if (
        link is None
        or link.kind != "veth"
        or link.peer != inside.ifindex
        or link.peer_nsid < 0
        or link.peer_nsid != nsids.number_of(host.links.socket, netns)
    ):
        what = "a veth whose other end is in another namespace"
        raise Unsupported(_unguarded(ifname, what), reason="not-adoptable")
    return HostEnd(link=link, mac=inside.mac)


def _unguarded(ifname: str, what: str) -> str:
    return (
        f"the interface {ifname} of prevResult is {what}: it has no end on this node at which weft "
        "could guard it; let bridge or ptp make it, or let weft make it alone"
    )


def _addresses_of(request: Request) -> tuple[str, ...]:
    previous = request.prev_result
    texts = previous.addresses_of(request.ifname) if isinstance(previous, Result) else ()
    if not texts:
        raise Invalid(
            f"prevResult has no address for {request.ifname}, so nothing that it sends could be "
            "told from a forgery; give the plugin that makes it an ipam section",
            field="prevResult.ips",
            reason="not-adoptable",
        )
    for text in texts:
        address = ipaddress.ip_address(text)
        if (
            address.is_loopback
            or address.is_multicast
            or address.is_unspecified
            or address.is_link_local
        ):
            raise Invalid(
                f"prevResult.ips: {text} is not an address that a container can have",
                field="prevResult.ips",
            )
    return texts
