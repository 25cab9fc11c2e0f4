"""Bridges: made with a network's first container, removed with its last.

What is on a bridge is known from the attachments alone; there is no record of a bridge beside
theirs. Whoever leaves as the last removes it before it is forgotten itself, so that a crash leaves
somebody to finish that. A network that comes back meanwhile waits.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from contextlib import suppress

from weft.agent.addresses import Addressed, Addresses
from weft.agent.node import Node
from weft.agent.promise import rows_of_bridge
from weft.agent.table import Attachments
from weft.drivers.engine import Engine
from weft.kernel.links import Link
from weft.model.attachment import Attachment
from weft.model.bridge import Bridged, bridge_name, bridge_owner
from weft.model.errors import Conflict, Invalid, NotReady, Unsupported
from weft.model.ip_pool import IPPool, pool_prefix
from weft.rows.links import Port
from weft.wire.cni import Request
from weft.wire.cni.config import BRIDGE

PATIENCE = 10.0  # seconds that an ADD waits for a bridge to go


class Bridging:
    """The bridges of this node."""

    def __init__(
        self, engine: Engine, attachments: Attachments, addresses: Addresses, node: Node
    ) -> None:
        self._engine = engine
        self._attachments = attachments
        self._addresses = addresses
        self._node = node
        self._going: dict[str, asyncio.Event] = {}

    # -- ADD

    def require(self, request: Request) -> None:
        """Raise Unsupported where this node cannot guard ports of bridges, Invalid for a list that
        would not hold between them."""
        conf, wishes = request.conf, request.wishes
        if conf.mode == BRIDGE and conf.isolation is False and wishes.egress is not None:
            raise Invalid(
                "isolation: false lets containers reach each other past every rule of this node, "
                "also past runtimeConfig.netOutRules; leave one of both out",
                field="isolation",
                reason="invalid-config",
            )
        if request.conf.mode == BRIDGE and self._node.unbridged:
            raise Unsupported(
                f"mode: this node cannot put containers on bridges: {self._node.unbridged}; leave "
                "`mode` out",
                reason="no-bridge",
            )

    def is_going(self, request: Request) -> bool:
        """Whether the network's bridge is just being removed."""
        return request.conf.mode == BRIDGE and _name(request) in self._going

    async def gone(self, request: Request) -> None:
        """Wait until it is."""
        event = self._going.get(_name(request)) if request.conf.mode == BRIDGE else None
        if event is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), PATIENCE)

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
                gateway = self._gateway(pool)
        bridged = Bridged(
            bridge=_name(request),
            isolated=request.conf.isolation is not False,
            gateway=gateway,
            prefix6=prefix6,
        )
        self._refuse(request.network, bridged)
        return bridged

    def recalled(self, network: str, addresses: Iterable[str]) -> Bridged:
        """The likeliest bridge of a network whose own one is gone with the journal."""
        gateway, prefix6 = "", 0
        for text in addresses:
            address = ipaddress.ip_address(text)
            for pool in self._addresses.pools.values():
                prefix = pool_prefix(pool)
                if prefix.version == address.version and address in prefix:
                    if address.version == 6:
                        prefix6 = prefix.prefixlen
                    else:
                        gateway = f"{pool.spec.gateway or prefix[1]}/{prefix.prefixlen}"
        return Bridged(bridge=bridge_name(network), gateway=gateway, prefix6=prefix6)

    def _gateway(self, pool: IPPool) -> str:
        name, text = pool.metadata.name, pool.spec.gateway
        if text is None:
            raise Invalid(
                f"pools: the IPPool {name} names no gateway, which the bridge would have; set "
                "spec.gateway to an address of it that no container has",
                field="pools",
                reason="invalid-config",
            )
        address = ipaddress.ip_address(text)
        use = self._addresses.view.ledgers[4].used.get(int(address))
        if use is not None:
            raise Conflict(f"{text}, the gateway of the IPPool {name}, is in use by {use.key}")
        return f"{text}/{pool_prefix(pool).prefixlen}"

    def _refuse(self, network: str, wanted: Bridged) -> None:
        """A network has one bridge, a bridge one network and one subnet."""
        for other in self._attachments:
            if (has := other.bridged) is None:
                continue
            if other.key.network != network and has.bridge == wanted.bridge:
                raise Conflict(
                    f"bridge: {wanted.bridge} belongs to the network {other.key.network}; name "
                    "another"
                )
            if other.key.network != network and has.gateway and has.gateway == wanted.gateway:
                raise Conflict(
                    f"pools: {wanted.gateway} is the gateway on the bridge {has.bridge} of the "
                    f"network {other.key.network} already; give each network a pool of its own"
                )
            if other.key.network == network and has != wanted:
                raise Conflict(
                    f"the network {network} has containers on the bridge {_said(has)}, and this "
                    f"one would be on {_said(wanted)}; give it one pool of each family, and change "
                    "its configuration only while it has no containers"
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
        others = (each for each in self._attachments if each.key != attachment.key)
        if any(each.bridged and each.bridged.bridge == bridged.bridge for each in others):
            return None
        return bridged.bridge

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
            {
                (each.key.network, each.bridged.bridge)
                for each in self._attachments
                if each.bridged is not None and not each.bridged.isolated
            }
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
                self._engine.adopt(owner, rows_of_bridge(each.key.network, bridged, self._node))
                if bridged.bridge in present:
                    self._engine.learn(bridged.bridge, present[bridged.bridge])
            alive = each.state == "ready" and each.host_link in present
            owners[owner] = owners.get(owner, False) or alive
        return [owner for owner, alive in owners.items() if alive]


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
