"""ADD: from a decoded request to a container that can talk.

Everything that can be refused is refused before the first effect. Then, without an await between,
the journal records the intent, the engine makes the rows true - guards first, links up last - and
the journal records the promise. A failure undoes what was begun and keeps every error.
"""

from __future__ import annotations

import asyncio
import errno
import time

from weft.agent.addresses import Addressed, Wish
from weft.agent.adoption import Adopter
from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.agent.patience import again
from weft.agent.promise import rows_of
from weft.drivers.contract import Stage
from weft.fabric.wiring import GATEWAY4_TEXT, GATEWAY6_TEXT, packed, prefix_length
from weft.kernel import namespaces
from weft.model.attachment import (
    HOST_MAC,
    Attachment,
    AttachmentKey,
    NamespaceId,
)
from weft.model.errors import Invalid, KernelRefused, NotReady, WeftError
from weft.model.ports import PortMapping
from weft.wire.cni import Dns, Interface, Ip, Request, Result, Route, merge
from weft.wire.cni.config import BRIDGE

SMALLEST_MTU4 = 68  # RFC 791
VANISHING = 3.0  # seconds in which a dead namespace's links have gone, also on a busy machine
SMALLEST_MTU6 = 1280  # RFC 8200 section 5

STEPS = (
    *("decode", "plan", "intent", "rows"),
    *(stage.name.lower() for stage in Stage),
    *("promise", "answer"),
)
"""Where the time of an ADD goes; `agent.verbs` measures the first two and the last."""
_STAGES = {stage: stage.name.lower() for stage in Stage}


class Attacher:
    """Performs ADD."""

    def __init__(self, ground: Ground, detacher: Detacher, adopter: Adopter) -> None:
        self._engine = ground.engine
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._bridging = ground.bridging
        self._detacher = detacher
        self._adopter = adopter
        self._node = ground.node
        self._publishing = ground.publishing
        self._limiting = ground.limiting
        self._egress = ground.egress
        self._laps = ground.laps

    async def prepare(self, request: Request, netns: int | None) -> Addressed:
        """The slow road to `perform`, which may wait: a stale predecessor, blocks to claim."""
        self._refuse(request, netns)
        assert netns is not None  # refused
        if request.wishes.bandwidth:
            await self._limiting.require()
        await self._clear_predecessor(request.key, netns)
        await self._bridging.gone(request)
        assigned = await self._secured(request, netns)
        try:
            await self._bridging.gone(request)  # blocks may have been claimed meanwhile
            ips = [packed(each.address) for each in assigned]
            await self._egress.secure(request.wishes.egress, ips)
        except BaseException:
            self.cancel(assigned)
            raise
        return assigned

    async def _secured(self, request: Request, netns: int) -> Addressed:
        if request.adopts:
            return await self._adopter.secure(request, netns)
        try:
            wish = await self._bridging.secured(request, self._wish(request, request.key))
            return await self._addresses.secure(wish)
        except BaseException:
            self._bridging.sweep()
            raise

    def prepared(self, request: Request, netns: int | None) -> Addressed | None:
        """The fast road: addresses at once, or None where only `prepare` can tell. Raises what
        `prepare` would raise."""
        key = request.key
        self._refuse(request, netns)
        if request.adopts or self._attachments.get(key) is not None:
            return None
        if request.wishes.bandwidth and not self._limiting.proven:
            return None
        if self._bridging.is_going(request):
            return None
        if request.wishes.egress is not None:
            return None
        try:
            wish = self._bridging.reserved(request, self._wish(request, key))
            return self._addresses.assign(wish) if isinstance(wish, Wish) else None
        except WeftError:
            self._bridging.sweep()
            raise

    def _refuse(self, request: Request, netns: int | None) -> None:
        self._bridging.require(request)
        if (why := self._node.not_ready()) is not None:
            raise NotReady(why)
        if (why := self._node.hindered()) is not None:
            raise NotReady(why, reason="journal-unwritable")
        if netns is None:
            raise Invalid(
                f"CNI_NETNS={request.netns or ''} cannot be opened; pass the path of the "
                "container's network namespace",
                field="CNI_NETNS",
                reason="invalid-netns",
            )
        if not namespaces.is_network_namespace(netns):
            raise Invalid(
                f"CNI_NETNS={request.netns} is not a network namespace",
                field="CNI_NETNS",
                reason="invalid-netns",
            )
        if namespaces.identity(netns) == self._node.namespace:
            raise Invalid(
                f"CNI_NETNS={request.netns} is the node's own network namespace; a container "
                "that shares it needs no CNI",
                field="CNI_NETNS",
                reason="invalid-netns",
            )

    async def _clear_predecessor(self, key: AttachmentKey, netns: int) -> None:
        known = self._attachments.get(key)
        if known is None:
            return
        if known.state == "ready" and known.heard and not await self._vanishes(known, netns):
            raise Invalid(
                f"container {key.container} is attached to network {key.network} as "
                f"{key.ifname} already; DEL it first",
                field="CNI_IFNAME",
                reason="interface-exists",
            )
        # its namespace died without a DEL, and the container's id is used again; or its ADD was
        # never answered, and this one repeats it
        await self._detacher.detach_held(key)

    async def _vanishes(self, known: Attachment, netns: int) -> bool:
        """Whether the namespace that the attachment was made in is dead. Its link goes with it,
        but late: the kernel takes namespaces apart in deferred work (cleanup_net)."""
        dev, ino = namespaces.identity(netns)
        elsewhere = known.netns not in (None, NamespaceId(dev=dev, ino=ino))
        deadline = time.monotonic() + (VANISHING if elsewhere else 0)
        while not self._detacher.vanished(known):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _wish(self, request: Request, key: AttachmentKey) -> Wish:
        facts = self._node.facts
        return Wish(
            key=key,
            want4=facts.ipv4.on,
            want6=facts.ipv6.on,
            ips=request.wishes.ips,
            pools=request.conf.pools,
            pod=request.wishes.pod,
        )

    def perform(self, request: Request, netns: int, assigned: Addressed) -> Result:
        """The effects. Raises WeftError; what stands then is in the journal as `intent`, and the
        caller must `undo`."""
        key, egress = request.key, request.wishes.egress
        try:
            describe = self._described_adopted if request.adopts else self._described
            attachment = describe(request, netns, assigned)
            self._publishing.claim(attachment)
            self._egress.claim(key, egress)
            self._journal.put(attachment)
        except Exception:  # nothing has begun
            self._publishing.release(key)
            self._egress.release(key, egress)
            self.cancel(assigned)
            raise
        self._attachments.put(attachment)
        self._laps.lap("intent")
        return self._made(request, netns, attachment)

    def _described(self, request: Request, netns: int, assigned: Addressed) -> Attachment:
        key = request.key
        facts = self._node.facts
        place = _place(netns)
        routed = self._routed(place)
        on_bridge = request.conf.mode == BRIDGE
        leads = not routed and not (on_bridge and request.conf.is_default_gateway is False)
        mtu = request.conf.mtu or facts.mtu
        smallest = SMALLEST_MTU6 if any(":" in a.address for a in assigned) else SMALLEST_MTU4
        if not smallest <= mtu <= 65535:
            raise Invalid(f"mtu {mtu} is not within {smallest}..65535", field="mtu")
        return Attachment(
            key=key,
            state="intent",
            host_link=key.host_link,
            mac=bytes.fromhex(request.wishes.mac.replace(":", "")) or key.pod_mac,
            mtu=mtu,
            addresses=assigned,
            netns=place,
            sandbox=request.netns or "",
            pod=request.wishes.pod,
            labels=request.wishes.labels,
            ports=self._unpublished(request, place),
            bandwidth=request.wishes.bandwidth,
            egress=_digest(request),
            masquerade=self._node.masquerades(request.conf.ip_masq),
            bridged=self._bridging.described(request, assigned),
            via4=leads,
            via6=facts.way_out6 and leads,
            ranges6=() if routed else self._addresses.ranges6(),
            created=time.time(),
            begun_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            version=request.spec_version,
            hooked=request.hooked,
        )

    def _described_adopted(self, request: Request, netns: int, assigned: Addressed) -> Attachment:
        """Masquerade is the maker's to decide, unless the configuration of weft's asks for it."""
        end = self._adopter.find(request, netns)
        place = _place(netns)
        previous = request.prev_result
        routes = previous.routes if isinstance(previous, Result) else ()
        return Attachment(
            key=request.key,
            state="intent",
            host_link=end.link.name,
            mac=end.mac,
            mtu=end.link.mtu,
            addresses=assigned,
            netns=place,
            sandbox=request.netns or "",
            pod=request.wishes.pod,
            labels=request.wishes.labels,
            ports=self._unpublished(request, place),
            bandwidth=request.wishes.bandwidth,
            egress=_digest(request),
            masquerade=bool(request.conf.ip_masq),
            via4=any(route.dst == "0.0.0.0/0" for route in routes),
            via6=any(route.dst == "::/0" for route in routes),
            created=time.time(),
            begun_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            version=request.spec_version,
            adopted=self._adopter.adopted(end.link),
        )

    async def resume(self, request: Request, netns: int, refusal: KernelRefused) -> Result:
        """`perform`, again from its first effect after the kernel refused it, if that may pass.
        For who has the turn; raises as `perform` does, with `refusal` where it will not pass."""
        attachment = self._attachments.get(request.key)
        if attachment is None or attachment.state != "intent":  # undone by a DEL
            raise refusal

        def made() -> Result:
            self._laps.mark()
            return self._made(request, netns, attachment)

        return await again(made, refusal)

    def _made(self, request: Request, netns: int, attachment: Attachment) -> Result:
        """From the intent to the promise."""
        rows = rows_of(attachment, self._node)
        self._laps.lap("rows")
        owner = str(attachment.key)
        try:
            self._bridging.stand(attachment)
            self._egress.stand(attachment.egress)
            self._engine.apply(owner, rows, netns, self._staged)
        except KernelRefused as refusal:
            # a table or set of ours is gone, where rules are not protected: before any effect
            if refusal.errno != errno.ENOENT or self._engine.rows(owner):
                raise
            if not self._node.restore():
                raise
            self._bridging.stand(attachment)
            self._egress.stand(attachment.egress)
            self._engine.apply(owner, rows, netns, self._staged)
        attachment = attachment.having("ready")
        self._journal.put(attachment)
        self._attachments.put(attachment)
        self._publishing.published(attachment)
        self._laps.lap("promise")
        own = promised(attachment, request)
        previous = request.prev_result
        return merge(previous, own) if isinstance(previous, Result) else own

    def _staged(self, stage: Stage) -> None:
        self._laps.lap(_STAGES[stage])

    def _routed(self, place: NamespaceId) -> bool:
        """Whether another attachment has the default routes of this namespace already: the first
        one keeps them, or its container would lose its network with the second's DEL."""
        return any(
            other.via4 and not self._detacher.vanished(other)
            for other in self._attachments.inside(place)
        )

    def _unpublished(self, request: Request, place: NamespaceId) -> tuple[PortMapping, ...]:
        """The ports that no other network of this container has published already. Podman asks
        every network for all of them; the first has them, as it has the default routes."""
        if not request.wishes.ports:
            return ()
        beside = {
            mapping
            for other in self._attachments.inside(place)
            if other.key.container == request.key.container and not self._detacher.vanished(other)
            for mapping in other.ports
        }
        return tuple(each for each in request.wishes.ports if each not in beside)

    def cancel(self, assigned: Addressed) -> None:
        """Give back addresses for which nothing was begun."""
        self._addresses.take_back(assigned)
        self._bridging.sweep()
        self._egress.sweep()

    async def undo(self, key: AttachmentKey, cause: WeftError) -> WeftError:
        """Take back what `perform` began; the error to answer, with every error on the way."""
        if self._attachments.get(key) is None:
            return cause
        try:
            await self._detacher.detach_held(key)
        except (WeftError, OSError) as error:
            cause.details = "; ".join(t for t in (cause.details, f"undoing: {error}") if t)
        return cause


def _digest(request: Request) -> str:
    return "" if request.wishes.egress is None else request.wishes.egress.digest


def _place(netns: int) -> NamespaceId:
    dev, ino = namespaces.identity(netns)
    return NamespaceId(dev=dev, ino=ino)


def promised(attachment: Attachment, request: Request) -> Result:
    """What ADD adds to the result; of an adopted interface the maker has said all."""
    if attachment.adopted is not None:
        return Result(dns=request.conf.dns or Dns())
    interfaces = (
        Interface(name=attachment.host_link, mac=colons(HOST_MAC), mtu=attachment.mtu),
        Interface(
            name=attachment.key.ifname,
            mac=colons(attachment.mac),
            mtu=attachment.mtu,
            sandbox=attachment.sandbox,
        ),
    )
    ips: list[Ip] = []
    routes: list[Route] = []
    for assigned in attachment.addresses:
        if ":" in assigned.address:
            ranges = ("::/0",) if attachment.via6 else attachment.ranges6
            gateway = GATEWAY6_TEXT if ranges else None
            length = prefix_length(attachment, 128)
            ips.append(Ip(address=f"{assigned.address}/{length}", gateway=gateway, interface=1))
            routes.extend(Route(dst=dst, gw=GATEWAY6_TEXT) for dst in ranges)
        else:
            bridged = attachment.bridged
            via = GATEWAY4_TEXT if bridged is None else bridged.gateway.partition("/")[0]
            gateway = via if attachment.via4 or bridged is not None else None
            length = prefix_length(attachment, 32)
            ips.append(Ip(address=f"{assigned.address}/{length}", gateway=gateway, interface=1))
            if attachment.via4:
                routes.append(Route(dst="0.0.0.0/0", gw=via))
    return Result(
        interfaces=interfaces,
        ips=tuple(ips),
        routes=tuple(routes),
        dns=request.conf.dns or Dns(),
    )


def colons(mac: bytes) -> str:
    """`0a:77:65:66:74:00`."""
    return mac.hex(":")
