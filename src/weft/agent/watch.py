"""Noticing what others do to our objects on the host, and mending it.

Sockets of every protocol that a driver watches; what we did ourselves is told by the sender's port
and skipped. A foreign change of a row that stands for somebody marks its owner; a short while later
all marked owners are compared with the kernel and mended at once. A socket that overflowed
(ENOBUFS), and a slow sweep, look at everybody. Changes of the host's own routes, addresses and
links refresh the node's facts.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from weft.agent.events import Log
from weft.agent.node import NETLINK_ROUTE, Node
from weft.drivers.comparison import compare
from weft.drivers.contract import Difference
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.kernel.host import AF_INET, link_name
from weft.kernel.netlink import Socket, frames, sender
from weft.kernel.notifications import listen
from weft.kernel.routes import PROTOCOL
from weft.model.attachment import LINK_PREFIX
from weft.model.errors import KernelRefused, WeftError
from weft.render.sets import strangers_among
from weft.rows.base import Place
from weft.rows.links import Address, Veth
from weft.rows.routes import MAIN_TABLE, Neighbour, Route
from weft.rows.rules import Set

GATHER = 0.05  # seconds between the first notification and the look at what changed
SWEEP = 60.0  # seconds between two looks at everything
FEW = 20  # owners that are compared on the loop; more go to a worker
READ_AT_ONCE = 64  # notifications read in one turn of the loop
RTM_LINK, RTM_ADDRESS, RTM_ROUTE, RTM_NEIGHBOUR = 16, 20, 24, 28  # the first of each four
FACT_GROUPS = (1, 5, 7, 9, 11)  # RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
IFF_UP = 1


class Watcher:
    """Listens to the host's namespace; `start` and `stop` are the agent's."""

    def __init__(
        self,
        engine: Engine,
        node: Node,
        ports: frozenset[int],
        is_up: Callable[[str], bool],
        log: Log,
    ) -> None:
        """`ports`: the agent's own sockets, whose changes are not news. `is_up`: of a link."""
        self._is_up = is_up
        self._engine = engine
        self._drivers = tuple(dict.fromkeys(engine.driver_table.values()))
        self._others = tuple(
            d for d in self._drivers if d.watch and d.watch.protocol != NETLINK_ROUTE
        )
        table = engine.driver_table
        self._about = {
            RTM_LINK: table[Veth],
            RTM_ADDRESS: table[Address],
            RTM_ROUTE: table[Route],
            RTM_NEIGHBOUR: table[Neighbour],
        }
        self._names = _Known(engine)
        self._ports = ports
        self._node = node
        self._log = log
        self._sockets: list[tuple[int, Socket]] = []
        self._marked: set[str] = set()
        self._down: set[str] = set()
        self._everybody = False
        self._stale = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.refreshed: Callable[[], Awaitable[None]] = _nothing
        self.repairs: Counter[str] = Counter()  # by kind of row
        self.overflows = 0

    def start(self) -> None:
        """Listen from now on."""
        groups: dict[int, set[int]] = {NETLINK_ROUTE: set(FACT_GROUPS)}
        for driver in self._drivers:
            if driver.watch is not None:
                groups.setdefault(driver.watch.protocol, set()).update(driver.watch.groups)
        loop = asyncio.get_running_loop()
        for protocol, wanted in groups.items():
            ours = LINK_PREFIX if protocol == NETLINK_ROUTE else ""
            sock = listen(protocol, sorted(wanted), ignore=self._ports, unless_down=ours)
            self._sockets.append((protocol, sock))
            loop.add_reader(sock.fileno(), self._readable, protocol, sock)
        self._sweeping = loop.create_task(self._sweep())

    def stop(self) -> None:
        """Stop listening."""
        loop = asyncio.get_running_loop()
        for _, sock in self._sockets:
            loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._looking, self._sweeping):
            if task is not None:
                task.cancel()

    def _readable(self, protocol: int, sock: Socket) -> None:
        for _ in range(READ_AT_ONCE):
            try:
                datagram = sock.receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1
                self._everybody = True
                self._soon()
                return
            self._noticed(protocol, datagram)

    def _noticed(self, protocol: int, datagram: bytes) -> None:
        own_accord = sender(datagram) == 0
        for kind, _, _, body in frames(datagram):
            if protocol != NETLINK_ROUTE:
                for driver in self._others:
                    self._mark(driver.touched(kind, body, self._names))
                continue
            family = kind & ~3  # RTM_NEWxxx, RTM_DELxxx, RTM_GETxxx are neighbours
            if self._is_news(family, body):
                self._stale = True
                self._soon()
            elif own_accord and kind == RTM_LINK:
                self._changed_by_itself(body)
                continue
            if family == RTM_LINK and self._engine.number(_name(body)) is None:
                continue  # nobody's: it is being deleted, or was never ours
            about = self._about.get(family)
            if about is not None and not self._everybody:
                self._mark(about.touched(kind, body, self._names))

    def _changed_by_itself(self, body: memoryview) -> None:
        """The kernel announces birth, carrier and, before Linux 6.2, what others set, without
        saying who asked. Only a link that stays down needs a look."""
        name = _name(body)
        if _is_up(body):
            self._down.discard(name)
        else:
            self._down.add(name)
            self._soon()

    def _is_news(self, family: int, body: memoryview) -> bool:
        """Whether the host's own addresses, links or ways out may have changed."""
        if family == RTM_LINK:
            name = _name(body)
            return not name.startswith(LINK_PREFIX) or bool(strangers_among((name,)))
        if family == RTM_ROUTE:
            # struct rtmsg: family, dst_len, src_len, tos, table, protocol; pods have host routes
            whole = body[1] == (32 if body[0] == AF_INET else 128)
            return not whole and body[4] == MAIN_TABLE and body[5] != PROTOCOL
        return family == RTM_ADDRESS

    def _mark(self, keys: Iterable[tuple[object, ...]]) -> None:
        for key in keys:
            owner = self._engine.owner_of(key)
            if owner is not None:
                self._marked.add(owner)
                self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._looking is not None and not self._looking.done():
            self._soon()
            return
        self._looking = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        # every link is born down, and most are up by now
        down = [name for name in self._down if not self._is_up(name)]
        self._down.clear()
        self._mark(("Up", Place.HOST, name) for name in down)
        marked, everybody, stale = self._marked, self._everybody, self._stale
        self._marked, self._everybody, self._stale = set(), False, False
        try:
            if stale:
                self._node.refresh()
                self._node.forward()
                await self.refreshed()
            if everybody:
                await self._mend(self._engine.owners)
            elif marked:
                await self._mend(tuple(marked))
        except WeftError as error:
            self._log.event("error", "NotRepaired", "node", error.message)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self._everybody = True
            self._soon()

    async def _mend(self, owners: tuple[str, ...]) -> None:
        if len(owners) <= FEW:
            found = self._engine.drift(owners)
        else:
            found = await self._compared(owners)
        for owner, wrong in found.items():
            mended = [difference.words for difference in wrong if difference.mended]
            if any(difference.mended and isinstance(difference.row, Set) for difference in wrong):
                # a set goes with the elements of all owners, and of those nothing is announced
                self._everybody = True
                self._soon()
            if mended:
                self.repairs.update(
                    type(difference.row).__name__.lower()
                    for difference in wrong
                    if difference.mended
                )
                self._log.event("warning", "Repaired", owner, "; ".join(mended))

    async def _compared(self, owners: tuple[str, ...]) -> dict[str, list[Difference]]:
        """Compare in a worker with sockets of its own, mend on the loop."""
        rows = {
            owner: [
                row
                for row in self._engine.rows(owner)
                if getattr(row, "place", Place.HOST) is Place.HOST
            ]
            for owner in owners
        }
        owner_of = {row.key: owner for owner, held in rows.items() for row in held}
        wanted = [row for held in rows.values() for row in held]

        def read() -> list[Difference]:
            rules = RulesTransport()
            host = Host(rules)
            try:
                return compare(wanted, self._engine.driver_table, host, None)
            finally:
                host.close()
                rules.close()

        wrong: dict[str, list[Difference]] = {}
        for difference in await asyncio.to_thread(read):
            wrong.setdefault(owner_of[difference.row.key], []).append(difference)
        return self._engine.mend_all(wrong)


def _name(body: memoryview) -> str:
    return link_name(body).decode(errors="replace")


async def _nothing() -> None:
    """Nobody wants to know."""


def _is_up(body: memoryview) -> bool:
    """`ifi_flags` of a struct ifinfomsg."""
    return bool(int.from_bytes(body[8:12], sys.byteorder) & IFF_UP)


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
