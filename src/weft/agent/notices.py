"""What notifications have said since the last look: which rows, which links, and what of the host.

Nothing is asked and nothing is decided here; a notification costs microseconds. What is gathered
is bounded: beyond MOST keys everything has to be looked at anyway.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.drivers.contract import Driver
from weft.drivers.engine import Engine
from weft.kernel import links, netconf, routes, traffic_control
from weft.kernel.host import AF_INET, link_name
from weft.kernel.netlink import frames, sender
from weft.kernel.nftables.tables import name_of_table
from weft.kernel.routes import PROTOCOL, decode_address, prefix_link
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.attachment import LIMITER_PREFIX, LINK_PREFIX, LINK_PREFIXES
from weft.model.bridge import bridge_owner
from weft.model.errors import KernelRefused
from weft.render.sets import TABLE, strangers_among
from weft.rows.bandwidth import Bucket
from weft.rows.base import Place, RowKey
from weft.rows.links import Address
from weft.rows.routes import MAIN_TABLE, Neighbour, Route

MOST = 5000
"""Keys that are told apart."""

_NAMED = TABLE.encode() + b"\0"


@dataclass(slots=True)
class Heard:
    """All that was said. Keys are of rows that changed, whosesoever they are; a key of a table or
    set means all that is in it."""

    keys: set[RowKey] = field(default_factory=set)
    links: dict[str, links.Link] = field(default_factory=dict)  # ours, as they are now
    deleted: dict[str, str] = field(default_factory=dict)  # ours, and how; "" with its container
    addresses: dict[RowKey, Address] = field(default_factory=dict)  # on links of ours
    addressed: bool = False  # a link of ours may have addresses that were not announced
    everything: bool = False
    host: bool = False  # links, addresses, ways out of the host
    forwarding: bool = False  # switched off somewhere
    urgent: bool = False  # the guards of a link may be passed by

    @property
    def anything(self) -> bool:
        """Whether it is worth a look."""
        return bool(
            self.keys
            or self.links
            or self.deleted
            or self.addresses
            or self.addressed
            or self.everything
            or self.host
            or self.forwarding
        )


class Notices:
    """Gathers; `take` hands over what there is and begins anew."""

    def __init__(self, engine: Engine) -> None:
        table: Mapping[type, Driver[Any]] = engine.driver_table
        self._engine = engine
        self._rules = tuple(
            driver
            for driver in dict.fromkeys(table.values())
            if driver.watch and driver.watch.protocol != NETLINK_ROUTE
        )
        self._routes, self._neighbours = table[Route], table[Neighbour]
        self._buckets = table[Bucket]
        self._names = _Known(engine)
        self.heard = Heard()

    def take(self) -> Heard:
        """What was said since the last time."""
        taken, self.heard = self.heard, Heard()
        return taken

    def hear(self, protocol: int, datagram: bytes) -> None:
        """One datagram of a socket of this netlink protocol."""
        if protocol != NETLINK_ROUTE:
            if _NAMED in datagram:  # most is about other people's tables
                for kind, _, _, body in frames(datagram):
                    if name_of_table(body) == TABLE:
                        for driver in self._rules:
                            self._mark(driver.touched(kind, body, self._names))
            return
        for kind, _, _, body in frames(datagram):
            match kind & ~3:  # RTM_NEWxxx, RTM_DELxxx, RTM_GETxxx are neighbours
                case links.RTM_NEWLINK:
                    self._link(kind, body, sender(datagram))
                case routes.RTM_NEWADDR:
                    self._address(body)
                case routes.RTM_NEWROUTE:
                    self._route(kind, body)
                case traffic_control.RTM_NEWQDISC | traffic_control.RTM_NEWTFILTER:
                    self._mark(self._buckets.touched(kind, body, self._names))
                case routes.RTM_NEWNEIGH:
                    self._mark(self._neighbours.touched(kind, body, self._names))
                case netconf.RTM_NEWNETCONF:
                    self._netconf(body)

    def _mark(self, keys: Collection[RowKey]) -> None:
        if len(self.heard.keys) + len(keys) > MOST:
            self.heard.everything = True
            self.heard.keys.clear()
        if not self.heard.everything:
            self.heard.keys.update(keys)

    def _link(self, kind: int, body: memoryview, port: int) -> None:
        known = self._engine.known_link(links.index_of(body))
        if body[0]:
            if known is not None and known.startswith(LINK_PREFIX):
                self._mark((("Port", known),))  # a bridge's word on its port (AF_BRIDGE)
            return
        if known is None:
            name = link_name(body).decode(errors="replace")
            if not name.startswith(LINK_PREFIXES) or strangers_among((name,)):
                self.heard.host = True
        elif kind == links.RTM_DELLINK and self._can_be_remade(known):
            self.heard.links.pop(known, None)
            self._mark(link_keys(known))
        elif kind == links.RTM_DELLINK:
            self.heard.links.pop(known, None)
            moved = links.is_moved(body)
            by = f"deleted by process or socket {port}" if port else ""
            self.heard.deleted[known] = "moved to another network namespace" if moved else by
        else:
            link = self.heard.links[known] = links.decode(body)
            # the rules know our links by their names, and do not see a bridge's ports
            self.heard.urgent = self.heard.urgent or link.name != known or bool(link.master)

    def _can_be_remade(self, link: str) -> bool:
        """An ifb or a bridge: nothing inside a container went with it."""
        row = self._engine.row(bridge_owner(link), ("Bridge", link))
        return link.startswith(LIMITER_PREFIX) or row is not None

    def _address(self, body: memoryview) -> None:
        found = decode_address(body)
        known = self._engine.known_link(found.ifindex) if found is not None else None
        if found is None or known is None:
            self.heard.host = True
            return
        row = Address(
            place=Place.HOST, link=known, ip=found.ip, prefix=found.prefix, scope=found.scope
        )
        self.heard.addresses[row.key] = row

    def _route(self, kind: int, body: memoryview) -> None:
        # struct rtmsg: family, dst_len, src_len, tos, table, protocol; pods have host routes
        if body[1] == (32 if body[0] == AF_INET else 128) or body[5] == PROTOCOL:
            self._mark(self._routes.touched(kind, body, self._names))
        elif body[4] == MAIN_TABLE:
            self.heard.host = True
            # the address that the kernel gives a link itself is announced seconds later, when it
            # is known to be nobody else's; its prefix is routed at once
            index = prefix_link(body)
            if index is not None and self._engine.known_link(index) is not None:
                self.heard.addressed = True

    def _netconf(self, body: memoryview) -> None:
        said = netconf.decode(body)
        if said is None:
            return
        known = self._engine.known_link(said.ifindex)
        if known is None:
            self.heard.forwarding = self.heard.forwarding or said.forwarding is False
            return
        wrong = ["forwarding"] if said.forwarding is False else []
        wrong += ["rp_filter"] if said.rp_filter not in (None, 1) else []
        paths = (f"net/ipv{said.version}/conf/{known}/{name}" for name in wrong)
        self._mark([("Sysctl", Place.HOST, path) for path in paths])


def link_keys(link: str) -> tuple[RowKey, RowKey]:
    """The pair itself, or an ifb, and whether it is up."""
    kind = "Veth" if link.startswith(LINK_PREFIX) else "Bridge"
    kind = "Ifb" if link.startswith(LIMITER_PREFIX) else kind
    return (kind, link), ("Up", Place.HOST, link)


class _Known:
    """Names of links from memory: a notification is never worth a question to the kernel."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def name(self, place: Place, index: int) -> str | None:
        """The name of a link of ours, else None."""
        return self._engine.known_link(index)

    def index(self, place: Place, link: str) -> int:
        """Not asked for by `touched`."""
        raise KernelRefused(errno.ENODEV, "look up the number of", link)

    def find(self, place: Place, link: str) -> int | None:
        """Not asked for by `touched`."""
        return None

    def learn(self, place: Place, link: str, index: int) -> None:
        """What a notification says of a number is only believed of links that we made."""

    def pod(self) -> int:
        """There is no pod."""
        raise KernelRefused(errno.ENOENT, "enter a pod's network namespace")
