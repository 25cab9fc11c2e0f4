"""Bridges: made with a network's first container, removed with its last.

What is on a bridge is known from the attachments alone; there is no record of a bridge beside
theirs. Whoever leaves as the last removes it before it is forgotten itself, so that a crash leaves
somebody to finish that. A network that comes back meanwhile waits.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Iterable
from contextlib import suppress

from weft.agent.addresses import CLAIM_TRIES, Addressed, Addresses, Wish
from weft.agent.events import Log
from weft.agent.gateways import Gateways
from weft.agent.node import Node
from weft.agent.promise import rows_of_bridge
from weft.agent.table import Attachments
from weft.drivers.engine import Engine
from weft.ipam.gateway import likeliest
from weft.ipam.request import NeedBlock
from weft.kernel.links import Link
from weft.model.attachment import Attachment
from weft.model.bridge import Bridged, bridge_name, bridge_owner
from weft.model.errors import Conflict, Invalid, NotReady, Unsupported
from weft.model.ip_pool import pool_prefix
from weft.rows.links import Port
from weft.wire.cni import Request
from weft.wire.cni.config import BRIDGE

MOST_PORTS = 1023  # of a bridge: BR_MAX_PORTS, net/bridge/br_private.h, without number 0
PATIENCE = 10.0  # seconds that an ADD waits for a bridge to go


class Bridging:
    """The bridges of this node."""

    def __init__(
        self, engine: Engine, attachments: Attachments, addresses: Addresses, node: Node, log: Log
    ) -> None:
        self._engine = engine
        self._attachments = attachments
        self._addresses = addresses
        self._node = node
        self._log = log
        self.gateways = Gateways(addresses, attachments)
        self._going: dict[str, asyncio.Event] = {}

    # -- ADD

    def require(self, request: Request) -> None:
        """Raise Unsupported where this node cannot guard ports of bridges, Invalid for a list that
        would not hold between them, or a broadcast domain in a subnet of everybody's."""
        conf, wishes = request.conf, request.wishes
        if conf.mode == BRIDGE and conf.isolation is False and wishes.egress is not None:
            raise Invalid(
                "isolation: false lets containers reach each other past every rule of this node, "
                "also past runtimeConfig.netOutRules; leave one of both out",
                field="isolation",
                reason="invalid-config",
            )
        if conf.mode == BRIDGE and conf.isolation is False and conf.pools is None:
            raise Invalid(
                "isolation: without it the containers take all of their subnet for neighbours, so "
                "it has to be theirs alone; name pools for this network in `pools`",
                field="isolation",
                reason="invalid-config",
            )
        if conf.mode == BRIDGE and self._node.unbridged:
            raise Unsupported(
                f"mode: this node cannot put containers on bridges: {self._node.unbridged}; leave "
                "`mode` out",
                reason="no-bridge",
            )

    def is_going(self, request: Request) -> bool:
        """Whether the network's bridge is just being removed."""
        return request.conf.mode == BRIDGE and _name(request) in self._going

    async def gone(self, request: Request) -> None:
        """Wait until it is, and none that came meanwhile is just going either."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.is_going(request):
                    await self._going[_name(request)].wait()

    def reserved(self, request: Request, wish: Wish) -> Wish | NeedBlock:
        """The wish of a container whose bridge has its gateway by now, or is routed; a block that
        has to be claimed first. Raises Conflict. Who gives up then has to `sweep`."""
        if request.conf.mode != BRIDGE:
            return wish
        return self.gateways.reserved(request.network, _name(request), wish)

    async def secured(self, request: Request, wish: Wish) -> Wish:
        """The same, after claiming whatever block that takes."""
        for _ in range(CLAIM_TRIES):
            found = self.reserved(request, wish)
            if isinstance(found, Wish):
                return found
            await self._addresses.claim(found)
        raise NotReady("other nodes claim blocks of the same pool; try again", reason="busy")

    def sweep(self) -> None:
        """After an ADD that came to nothing, and after a DEL: gateways of bridges that nobody is
        on are free."""
        self.gateways.sweep()

    def described(self, request: Request, assigned: Addressed) -> Bridged | None:
        """The bridge of an attachment; None: its link is routed. Raises Invalid, Conflict, or
        NotReady."""
        if request.conf.mode != BRIDGE:
            return None
        if self.is_going(request):
            raise NotReady(f"the bridge {_name(request)} is just being removed", reason="busy")
        gateway, prefix6 = "", 0
        for each in assigned:
            pool = self._addresses.pools.get(each.pool)
            if pool is None:
                raise Conflict(f"there is no IPPool {each.pool} any more; try again")
            if ":" in each.address:
                prefix6 = pool_prefix(pool).prefixlen
            else:
                has = self.gateways.of(request.network, _name(request))
                has = has or self.gateways.again(request.network, _name(request))
                if has is None or has.pool != each.pool:
                    raise NotReady(f"the gateway of {_name(request)} has just gone", reason="busy")
                gateway = str(has.interface)
        bridged = Bridged(
            bridge=_name(request),
            isolated=request.conf.isolation is not False,
            gateway=gateway,
            prefix6=prefix6,
        )
        self._refuse(request.network, bridged)
        return bridged

    def recalled(
        self, network: str, addresses: Iterable[str], standing: Collection[str]
    ) -> Bridged:
        """The likeliest bridge of a network whose own one is gone with the journal. `standing`:
        addresses of all containers that are there."""
        gateway, prefix6 = "", 0
        for text in addresses:
            address = ipaddress.ip_address(text)
            state = self._addresses.view.pool_at(address)
            if state is not None and address.version == 6:
                prefix6 = state.prefix.prefixlen
            elif state is not None:
                gateway = f"{likeliest(state, standing)}/{state.prefix.prefixlen}"
        return Bridged(bridge=bridge_name(network), gateway=gateway, prefix6=prefix6)

    def _refuse(self, network: str, wanted: Bridged) -> None:
        """A network has one bridge, a bridge one network."""
        other = self._attachments.one_on(wanted.bridge)
        if other is not None and other.key.network != network:
            raise Conflict(
                f"bridge: {wanted.bridge} belongs to the network {other.key.network}; name another"
            )
        if self._attachments.count_on(wanted.bridge) >= MOST_PORTS:
            raise Conflict(
                f"bridge: {wanted.bridge} has {MOST_PORTS} ports, as many as Linux allows; attach "
                "further containers to another network"
            )
        other = self._attachments.one_bridged(network)
        if other is not None and other.bridged is not None and other.bridged != wanted:
            raise Conflict(
                f"the network {network} has containers on the bridge {_said(other.bridged)}, and "
                f"this one would be on {_said(wanted)}; give it one pool of each family, and "
                "change its configuration only while it has no containers"
            )

    def stand(self, attachment: Attachment) -> None:
        """Make the bridge of an attachment true. Raises KernelRefused, Conflict."""
        if (bridged := attachment.bridged) is not None:
            rows = rows_of_bridge(attachment.key.network, bridged, self._node)
            self._engine.apply(bridge_owner(bridged.bridge), rows)

    # -- DEL

    def last(self, attachment: Attachment) -> str | None:
        """The bridge that nobody else is on; None: there is none, or others are."""
        bridged = attachment.bridged
        if bridged is None:
            return None
        alone = self._attachments.count_on(bridged.bridge) == 1
        return bridged.bridge if alone else None

    def begin_removal(self, bridge: str) -> None:
        """Nobody may join from now on."""
        self._going[bridge] = asyncio.Event()

    def end_removal(self, bridge: str) -> None:
        """Whoever waited may go on."""
        self._going.pop(bridge).set()

    # -- looking

    def owner_of(self, link: str) -> str | None:
        """Under which name the engine knows the rows of a bridge; None: it is none of ours."""
        owner = bridge_owner(link)
        return owner if self._engine.row(owner, ("Bridge", link)) is not None else None

    def open_ones(self) -> list[tuple[str, str]]:
        """Network and bridge where ports are not isolated."""
        return sorted(
            (each.key.network, each.bridged.bridge)
            for each in self._attachments.bridges()
            if each.bridged is not None and not each.bridged.isolated
        )

    def adopt(self, present: dict[str, int]) -> list[str]:
        """Take the bridges of all attachments for standing; the names under which the engine knows
        those that containers are on. `present`: the numbers of links that are there."""
        owners: dict[str, bool] = {}
        for each in self._attachments:
            if (bridged := each.bridged) is None:
                continue
            owner = bridge_owner(bridged.bridge)
            if owner not in owners:
                self._adopt_gateway(each.key.network, bridged)
                self._engine.adopt(owner, rows_of_bridge(each.key.network, bridged, self._node))
                if bridged.bridge in present:
                    self._engine.learn(bridged.bridge, present[bridged.bridge])
            alive = each.state == "ready" and each.host_link in present
            owners[owner] = owners.get(owner, False) or alive
        return [owner for owner, alive in owners.items() if alive]

    def _adopt_gateway(self, network: str, bridged: Bridged) -> None:
        try:
            self.gateways.adopt(network, bridged)
        except Conflict as error:
            self._log.event("error", "AddressTwice", bridged.bridge, error.message)


def bridges_of(attachments: Iterable[Attachment]) -> set[str]:
    """Names of the bridges that attachments are on."""
    return {each.bridged.bridge for each in attachments if each.bridged is not None}


def _name(request: Request) -> str:
    return request.conf.bridge or bridge_name(request.network)


def _said(bridged: Bridged) -> str:
    how = "isolated" if bridged.isolated else "not isolated"
    subnets = [bridged.gateway] if bridged.gateway else []
    subnets += [f"an IPv6 subnet of /{bridged.prefix6}"] if bridged.prefix6 else []
    return f"{bridged.bridge} ({', '.join((how, *subnets))})"


def astray(engine: Engine, owner: str | None, said: Link, link: str) -> bool:
    """Whether a notification says that a port of ours is on another bridge than it should be."""
    row = engine.row(owner, ("Port", link)) if owner is not None else None
    return isinstance(row, Port) and said.master != engine.number(row.bridge)
