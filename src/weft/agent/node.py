"""The node itself: its facts, its ruleset, its forwarding, and whether it can serve ADD.

`program` makes the node's own rows true: the ruleset first, forwarding only after it, so that pod
ranges are never forwarded unguarded. The first time it takes over what an earlier agent left, in
one transaction with the guards of all attachments. `refresh` reads the facts again when the host
has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from weft.agent.events import Log
from weft.agent.facts import Facts, gather
from weft.agent.forwarding import (
    Memory,
    is_ours,
    keep_shut,
    open_ways_out,
    shut,
    switch_on,
    uplinks,
    wanted,
)
from weft.drivers.buckets import bucket_of
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport, surviving
from weft.kernel import namespaces
from weft.kernel.host import HostLink, HostView, Network, read_host, read_links
from weft.kernel.netlink import Socket
from weft.kernel.routes import PROTOCOL
from weft.kernel.traffic_control import decode_queue, get_queues
from weft.model.attachment import LINK_PREFIXES, LIVE_GROUP
from weft.model.errors import KernelRefused, WeftError
from weft.model.settings import Settings
from weft.render import egress
from weft.render.ruleset import NodeRules, node_rows
from weft.render.sets import HOST_PORTS, PORTS, TABLE
from weft.rows.bandwidth import Bucket
from weft.rows.base import Row
from weft.rows.rules import Element, Family, Table

NETLINK_ROUTE = 0
OWNER = "node"
"""The engine's name for the rows that belong to no attachment."""


class Node:
    """What the node is, and the rows that belong to no attachment."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        rules: RulesTransport,
        given: Memory,
        log: Log,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._rules = rules
        self.unprotected = why_unprotected(settings, rules)
        """Why others can change our packet rules, or ""."""
        self.unbridged = rules.why_no_bridge()
        """Why this node cannot guard ports of bridges, or ""."""
        self._given = given
        self._log = log
        self._socket = Socket(NETLINK_ROUTE)
        self._shut: frozenset[str] = frozenset()
        self.namespace = namespaces.own()
        self._view = self.look()
        self.facts: Facts = self._gather()
        self._trouble = "the agent is starting"
        self._guarded = False
        self.relayed: tuple[tuple[int, int, int], ...] = ()
        """What a relay leads by ::1: protocol, published port, and the relay's own port."""
        self.full: Callable[[], str | None] = lambda: None
        self.hindered: Callable[[], str | None] = lambda: None
        """Why nothing new may begin, although what is attached does not suffer; or None."""

    def _gather(self) -> Facts:
        network = self._settings.network
        mtu = network.mtu if isinstance(network.mtu, int) else None
        return gather(self._view, mtu=mtu, ipv4=network.ipv4, ipv6=network.ipv6)

    def look(self) -> HostView:
        """The host as it is now. Reads whole tables: for a worker, with a socket of its own."""
        with Socket(NETLINK_ROUTE) as via:
            return read_host(
                via, skip_protocol=PROTOCOL, skip_links=LINK_PREFIXES, skip_group=LIVE_GROUP
            )

    def refresh(self, view: HostView) -> None:
        """Take new facts from a look; what changed for pods to come is an event."""
        self._view = view
        before, self.facts = self.facts, self._gather()
        for name in ("ipv4", "ipv6", "way_out4", "way_out6", "mtu"):
            old, new = getattr(before, name), getattr(self.facts, name)
            if old != new:
                why = getattr(self.facts, f"{name}_why", None) or self.facts.mtu_source
                self._log.event("info", "NodeChanged", "node", f"{name} is {new} now: {why}")

    def links(self) -> list[HostLink]:
        """The host's links now."""
        return read_links(self._socket)

    def published(self) -> list[Element]:
        """Elements of the maps of ports as the kernel holds them."""
        maps = {*PORTS.values(), *HOST_PORTS.values()}
        return self._elements(maps.__contains__)

    def listed(self) -> list[Element]:
        """Elements of egress lists, and of the maps that lead to them, as the kernel holds them."""
        return self._elements(egress.is_ours)

    def _elements(self, wanted: Callable[[str], bool]) -> list[Element]:
        return [
            element
            for schema in self._rules.tables.sets(Family.INET, TABLE)
            if wanted(schema.name)
            for element in self._rules.tables.elements(schema)
        ]

    def is_shaped(self, index: int) -> bool:
        """Whether somebody limits, or redirects, what goes through the link of this number."""
        queues = (decode_queue(body) for _, body in self._socket.dump(get_queues()))
        return any(
            queue.ifindex == index and (queue.rate or queue.kind in ("clsact", "ingress"))
            for queue in queues
        )

    def buckets(self) -> dict[str, Bucket]:
        """The token buckets of the host's links as the kernel holds them."""
        names = {link.index: link.name for link in self.links()}
        queues = (decode_queue(body) for _, body in self._socket.dump(get_queues()))
        return {
            names[queue.ifindex]: bucket_of(names[queue.ifindex], queue)
            for queue in queues
            if queue.is_root and queue.rate and queue.ifindex in names
        }

    def masquerades(self, asked: bool | None) -> bool:
        """Whether an attachment whose configuration says `ipMasq: asked` is masqueraded."""
        return self._settings.network.masquerade if asked is None else asked

    def not_ready(self) -> str | None:
        """Why ADD cannot be served now, or None."""
        if self._trouble:
            return self._trouble
        network, facts = self._settings.network, self.facts
        if network.ipv6 == "on" and not facts.ipv6.on:
            return f"network.ipv6 is on in the settings, but {facts.ipv6.why}"
        return None

    def no_addresses(self) -> str | None:
        """Why no pod could be given an address, or None."""
        return self.full()

    def program(self, pools: Iterable[Network], blocks: Iterable[Network]) -> None:
        """Make the ruleset true. Raises WeftError and stays not ready."""
        rows = node_rows(
            NodeRules(
                pools=tuple(pools),
                blocks=tuple(blocks),
                strangers=self.facts.strangers,
                owner=None if self.unprotected else self._rules.tables.port,
                bridges=not self.unbridged,
                relayed=self.relayed,
            )
        )
        try:
            if not (self._guarded and self._is_applied(rows)):
                self._take_over(rows)
        except WeftError as error:
            self._trouble = f"the packet rules cannot be set: {error.message}"
            self._guarded = False
            raise
        self._guarded = True

    def _is_applied(self, rows: Sequence[Row]) -> bool:
        """Change what is believed to stand; False where somebody has just taken it away."""
        try:
            self._engine.apply(OWNER, rows)
        except KernelRefused:
            return False
        return True

    def restore(self) -> bool:
        """Make the packet rules whole again if somebody has just taken any away; False where all
        stand, or where that cannot be done."""
        try:
            written = self._take_over(self._engine.rows(OWNER)) if self._guarded else 0
        except KernelRefused:
            return False
        if written:
            words = f"{written} packet rules were missing when an ADD needed them"
            self._log.event("warning", "Repaired", "node", words)
        return written > 0

    def _take_over(self, rows: Sequence[Row]) -> int:
        """Make the rules of the node and of all attachments true, believing nothing; how many rows
        were written."""
        self._engine.forget(OWNER)
        self._engine.adopt(OWNER, rows)
        wanted = {row.key: row for row in rows}
        self._engine.changes += self._rules.adopt(row for row in rows if isinstance(row, Table))
        return self._engine.take_over(surviving(self._rules.standing(TABLE), wanted))

    def forward(self) -> None:
        """Switch forwarding on, once the ruleset stands. Raises WeftError and stays not ready."""
        if not self._guarded:
            return
        facts, links = self.facts, self._view.links
        names = [link.name for link in links]
        writes = wanted(
            uplinks(links, facts.ways_out),
            ipv4=facts.ipv4.on,
            ipv6=facts.ipv6.on,
            ours=is_ours(self._given),
        )
        try:
            written = switch_on(self._given, writes, names)
            written += keep_shut(self._shut, written)
            written += open_ways_out(self._given, facts.ways_out)
        except WeftError as error:
            self._trouble = f"forwarding cannot be switched on: {error.message}"
            raise
        self._shut = shut(names)
        self._trouble = ""
        for path in written:
            self._log.event("info", "SysctlWritten", "node", f"wrote {path}")

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def why_unprotected(settings: Settings, rules: RulesTransport) -> str:
    """Why others can change our packet rules, or "" where the tables are ours alone."""
    if settings.ruleset.protected == "never":
        cause = "ruleset.protected is never in the settings"
    else:
        try:
            if rules.can_protect():
                return ""
            cause = "the kernel cannot protect them (Linux 6.9 and later can)"
        except WeftError as error:
            cause = error.message
    return f"others can flush our packet rules, which are repaired when that is noticed: {cause}"
