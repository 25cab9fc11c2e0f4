"""Noticing what others do to our objects on the host, and having it mended.

Sockets of every protocol that a driver watches; what we did ourselves is told by the sender's port
and dropped by the kernel. What notifications say is gathered for a moment (`agent.notices`), then
the owners of what changed are compared with the kernel and mended (`agent.mending`). What was
mended is looked at once more. A socket that overflowed (ENOBUFS) means a look at everything, and a
sweep (`agent.sweep`) does so anyway. Changes of the host's own routes, addresses and links refresh
the node's facts.

    notifications ─┐                     ┌─ facts, forwarding
    sysctl files  ─┼─ gather 50 ms ─ look ┼─ compare in a worker ─ mend in slices ─ look again
    sweep 30 s    ─┘                     └─ strangers in our tables, on our links

Whoever makes us look without end finds the looks rarer: a twentieth of the time goes into them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from weft.agent.bridging import astray
from weft.agent.events import Log
from weft.agent.mending import IN_A_TURN, Doubt, Mender, shown, slices
from weft.agent.node import OWNER, Node
from weft.agent.notices import Heard, Notices, link_keys
from weft.agent.sweep import Sweeper
from weft.agent.sysctls import SysctlEar
from weft.agent.tending import tell_failure, tend
from weft.drivers import adoptions
from weft.drivers.engine import Engine
from weft.drivers.links import differs
from weft.drivers.strays import KINDS
from weft.drivers.table import single_differs
from weft.kernel.links import Link
from weft.kernel.netconf import RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF
from weft.kernel.netlink import Socket
from weft.kernel.notifications import Well, ignoring, listen
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.attachment import (
    ALIAS_MARK,
    HOST_LINK_LENGTH,
    HOST_MAC,
    LINK_PREFIX,
    LIVE_GROUP,
    is_still,
)
from weft.model.errors import WeftError
from weft.rows.base import RowKey
from weft.rows.links import Address, Adoption, Veth

GATHER = 0.05  # seconds between the first notification and the look at what changed
URGENT = 0.002  # the same where packet rules have changed: they may stand open
SHARE = 20  # a look of so long is followed by so many times as long without one
SLOWEST = 0.5  # seconds at most between two looks at what notifications say
HOST_SLOWEST = 60.0  # the same of the host's own tables, which may be of any size
HOST_AGAIN = 5.0  # seconds after which the host is looked at again when it could not be read
SWEEP = 30.0  # seconds between two looks at everything
TICK = 1.0  # seconds between two looks for new links whose files to listen to
LOST_APART = (1.0, 30.0)  # seconds between looks at everything: after a loss, after a failure
READ_FOR = 0.002  # seconds of one turn of the loop that reading notifications may take
READ_AT_MOST = 2000  # datagrams a second; the rest waits in the socket, or is lost and looked for
HOST_GROUPS = (1, 5, 7, 9, 11, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF)
"""RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE and forwarding."""


_LINK_LOST = "the container has no network until it is made anew"


@dataclass(slots=True)
class _Reading:
    """How much of a socket was read within the current second."""

    protocol: int
    socket: Socket
    since: float = 0.0
    datagrams: int = 0


class Links(NamedTuple):
    """What is known of links without asking netlink: `owner` by the name of the host's end."""

    is_up: Callable[[str], bool]
    owner: Callable[[str], str | None]


class Watcher:
    """Listens to the host's namespace; `start` and `stop` are the agent's."""

    def __init__(
        self,
        engine: Engine,
        node: Node,
        ports: frozenset[int],
        links: Links,
        log: Log,
    ) -> None:
        """`ports`: the agent's own sockets, whose changes are not news."""
        self._engine = engine
        self._node = node
        self._ports = ports
        self._links = links
        self._log = log
        self._notices = Notices(engine)
        self._mender = Mender(engine, log)
        self._sweeper = Sweeper()
        self._ear = SysctlEar(self._file_written, self._host_written, log)
        self._sockets: list[_Reading] = []
        self._mtu = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._looking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._again: set[str] = set()
        self._rules_again = False
        self._rest = 0.0
        self._host_rest = 0.0
        self._lost = 0.0
        self._lost_apart = LOST_APART[0]
        self._failed_apart = LOST_APART[0]
        self._turn = asyncio.Lock()
        self.refreshed: Callable[[], Awaitable[None]] = _nothing
        self.renamed: Callable[[str, str], None] = lambda link, name: None
        """Told of an adopted link that it is called otherwise now."""
        self.ended: Callable[[str], None] = lambda link: None
        """Told of a link that went with its container."""
        self.overflows = 0

    # -- figures

    @property
    def repairs(self) -> dict[str, int]:
        """How many rows were mended, by kind; a kind of a stranger's that was removed counts."""
        return dict(self._mender.repairs)

    def contested(self) -> list[str]:
        """What somebody changes as soon as it is mended, in words."""
        return [shown(key) for key in self._mender.contest.contested()]

    # -- life

    def start(self) -> None:
        """Listen from now on."""
        self._sweeper.open()
        groups: dict[int, set[int]] = {NETLINK_ROUTE: set(HOST_GROUPS)}
        for driver in dict.fromkeys(self._engine.driver_table.values()):
            if driver.watch is not None:
                groups.setdefault(driver.watch.protocol, set()).update(driver.watch.groups)
        loop = asyncio.get_running_loop()
        self._mtu = self._node.facts.mtu
        for protocol, wanted in groups.items():
            sock = listen(protocol, sorted(wanted), ignore=self._ports, well=self._well(protocol))
            reading = _Reading(protocol, sock)
            self._sockets.append(reading)
            loop.add_reader(sock.fileno(), self._readable, reading)
        self._ear.start()
        self._sweeping = tend("sweeping", self._keep_looking, self._log)

    def stop(self) -> None:
        """Stop listening."""
        loop = asyncio.get_running_loop()
        for reading in self._sockets:
            loop.remove_reader(reading.socket.fileno())
            reading.socket.close()
        self._sockets.clear()
        self._ear.stop()
        for timer in (self._timer, *self._timers):
            if timer is not None:
                timer.cancel()
        for task in (self._looking, self._sweeping):
            if task is not None:
                task.cancel()
        self._sweeper.close()

    def _well(self, protocol: int) -> Well | None:
        if protocol != NETLINK_ROUTE:
            return None
        return Well(
            prefix=LINK_PREFIX.encode(),
            length=HOST_LINK_LENGTH,
            group=LIVE_GROUP,
            mac=HOST_MAC,
            mtu=self._mtu,
            mark=ALIAS_MARK.encode(),
        )

    # -- hearing

    def _readable(self, reading: _Reading) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - reading.since > 1.0:
            reading.since, reading.datagrams = now, 0
        try:
            while loop.time() - now < READ_FOR:
                if reading.datagrams >= READ_AT_MOST:
                    loop.remove_reader(reading.socket.fileno())
                    self._later(1.0 - (now - reading.since), self._read_on, reading)
                    break
                self._notices.hear(reading.protocol, reading.socket.receive())
                reading.datagrams += 1
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._overflowed(now)
        except Exception as error:  # a message that we misread: look at what it may have said
            tell_failure(self._log, "hearing", error, LOST_APART[0])
            self._overflowed(now)
        if self._notices.heard.anything:
            urgent = reading.protocol != NETLINK_ROUTE or self._notices.heard.urgent
            self._soon(URGENT if urgent else GATHER)

    def _read_on(self, reading: _Reading) -> None:
        if reading in self._sockets:
            loop = asyncio.get_running_loop()
            reading.since, reading.datagrams = loop.time(), 0
            loop.add_reader(reading.socket.fileno(), self._readable, reading)

    def _overflowed(self, now: float) -> None:
        """Notifications were lost: look at everything, but not without end."""
        self.overflows += 1
        quiet = now - self._lost
        if quiet > 2 * LOST_APART[1]:
            self._lost_apart = LOST_APART[0]
        if self._lost and quiet < self._lost_apart:
            return  # a look is under way, or the sweep comes
        self._lost = now
        self._lost_apart = min(LOST_APART[1], self._lost_apart * 2)
        self._notices.heard.everything = True
        self._later(LOST_APART[0], self._everything)  # for what is lost until then

    def _everything(self) -> None:
        self._notices.heard.everything = True
        self._soon()

    def _file_written(self, key: RowKey) -> None:
        self._notices.heard.keys.add(key)
        self._soon()

    def _host_written(self) -> None:
        self._notices.heard.forwarding = True
        self._soon()

    # -- looking

    def _later(self, delay: float, act: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.discard(timer)
            act(*arguments)

        timer = loop.call_later(max(0.0, delay), run)
        self._timers.add(timer)

    def _soon(self, gather: float = GATHER) -> None:
        loop = asyncio.get_running_loop()
        when = max(loop.time() + gather, self._rest)
        if self._timer is not None and self._timer.when() <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._looking is not None and not self._looking.done():
            self._soon()
            return
        self._looking = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with self._turn:
            heard = self._notices.take()
            try:
                if heard.forwarding:
                    self._forward()
                if heard.addressed:
                    found = await self._sweeper.addresses(self._engine.known_links())
                    heard.addresses.update((row.key, row) for row in found)
                await self._mend(heard)
            except Exception as error:
                self._not_seen(error)
            else:
                self._failed_apart = LOST_APART[0]
        now = loop.time()
        self._rest = now + min(SLOWEST, SHARE * (now - begun))
        if heard.host:
            await self._look_at_host()

    def _not_seen(self, error: Exception) -> None:
        """A look failed: a table changed too fast, a pod went away meanwhile, no descriptor was
        left. What was said of changes is not said again, so look at everything, but not without
        end."""
        pause, self._failed_apart = self._failed_apart, min(LOST_APART[1], self._failed_apart * 2)
        if isinstance(error, WeftError | ExceptionGroup | OSError):
            self._log.event("error", "NotRepaired", "node", f"{error}; again in {pause:.0f} s")
        else:
            tell_failure(self._log, "mending", error, pause)
        self._later(pause, self._everything)

    async def _look_at_host(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if begun < self._host_rest:
            self._later(self._host_rest - begun, self._host_changed)
            return
        try:
            self._node.refresh(await asyncio.to_thread(self._node.look))
            self._forward()
            await self.refreshed()
        except (WeftError, OSError) as error:
            self._log.event("error", "HostUnreadable", "node", str(error))
            self._later(HOST_AGAIN, self._host_changed)
        now = loop.time()
        self._host_rest = now + min(HOST_SLOWEST, SHARE * (now - begun))
        if self._node.facts.mtu != self._mtu:
            self._mtu = self._node.facts.mtu
            for reading in self._sockets:
                well = self._well(reading.protocol)
                ignoring(reading.socket, ignore=self._ports, well=well)

    def _forward(self) -> None:
        try:
            self._node.forward()
        except WeftError as error:
            self._log.event("error", "NodeNotForwarding", "node", error.message)

    def _host_changed(self) -> None:
        self._notices.heard.host = True
        self._soon()

    async def _mend(self, heard: Heard) -> None:
        again, self._again = self._again, set()
        rules, self._rules_again = self._rules_again, False
        if heard.everything:
            await self._examine(Doubt(owners=self._engine.owners, rules=True))
            return
        doubt = (await self._doubt(heard)).also(again, rules=rules)
        if doubt.owners or doubt.rules or doubt.suspects or doubt.strays:
            await self._examine(doubt, first=not (again or rules))

    async def _doubt(self, heard: Heard) -> Doubt:
        """What the notices say may be wrong, judged from memory."""
        keys = {
            *heard.keys,
            *(key for link in heard.links for key in self._wrong_keys(heard, link)),
        }
        # what is contested is looked at when its time has come, whatever is said of it until then
        waits = {key: pause for key in keys if (pause := self._mender.is_held(key))}
        known: dict[RowKey, str] = {}
        for some in slices(self._engine.owners, IN_A_TURN) if keys else ():
            known.update(self._engine.owners_of(keys, some))
            await asyncio.sleep(0)
        for key, pause in waits.items():
            self._later(pause, self._look_again, known.get(key, OWNER))
        ready = [key for key in keys if key not in waits]
        self._tell_deleted(heard)
        return Doubt(
            owners={known[key] for key in ready if key in known}
            | self._around(heard.addresses.values()),
            suspects=[key for key in ready if key not in known and key[0] in KINDS],
            strays=self._on_ours(heard.addresses.values()),
            rules=any(key[0] in ("Table", "Set") for key in ready),
            sysctls=not heard.addresses and all(key[0] == "Sysctl" for key in ready),
        )

    def _wrong_keys(self, heard: Heard, link: str) -> Collection[RowKey]:
        said = heard.links[link]
        pair, up = link_keys(link)
        owner = self._links.owner(link)
        row = self._engine.row(owner, pair) if owner is not None else None
        if said.name != link:
            self._ear.renamed(link)
        if row is None and owner is not None:
            return self._wrong_adoption(owner, link, said)
        if (isinstance(row, Veth) and differs(row, said)) or single_differs(row, said):
            return (pair,)
        if astray(self._engine, owner, said, link):
            return (("Port", link),)
        # every link is born down, and most are up by now
        return (up,) if not said.up and not self._links.is_up(link) else ()

    def _wrong_adoption(self, owner: str, link: str, said: Link) -> Collection[RowKey]:
        """Of a link that another plugin made only our mark is ours to keep; a new name is taken
        over."""
        row = self._engine.row(owner, ("Adoption", said.ifindex))
        if not isinstance(row, Adoption) or not is_still(said, link, row.alias):
            return ()
        if said.name != link:
            self.renamed(link, said.name)
            return ()
        return (row.key,) if adoptions.differs(row, said) else ()

    def _around(self, addresses: Iterable[Address]) -> set[str]:
        """Whose links they are on: with its last address a link loses its routes and neighbours,
        and nothing is said of them (fib_disable_ip)."""
        found = (self._links.owner(row.link) for row in addresses if not self._adopted(row))
        owners = {owner for owner in found if owner is not None}
        for owner in owners:
            self._later(SLOWEST, self._look_again, owner)
        return owners

    def _on_ours(self, addresses: Iterable[Address]) -> list[Address]:
        """Those on links of ours; what is on adopted ones is their makers'."""
        ours = [(self._links.owner(row.link), row) for row in addresses if not self._adopted(row)]
        return [row for owner, row in ours if owner and not self._engine.row(owner, row.key)]

    def _adopted(self, row: Address) -> bool:
        owner = self._links.owner(row.link)
        number = self._engine.number(row.link)
        return owner is not None and self._engine.row(owner, ("Adoption", number)) is not None

    def _tell_deleted(self, heard: Heard) -> None:
        for link, how in heard.deleted.items():
            owner = self._links.owner(link)
            if not how:
                self.ended(link)
            elif owner is not None:
                self._log.event("error", "LinkLost", owner, f"{link} was {how}; {_LINK_LOST}")

    async def _examine(self, doubt: Doubt, *, first: bool = True) -> frozenset[str]:
        outcome = await self._mender.mend(doubt)
        # what was mended is looked at again: others may have been at it meanwhile
        if outcome.by_rules:
            self._later(0.0 if first else SLOWEST, self._look_at_rules_again)
        for owner in outcome.damaged - (outcome.by_rules - outcome.waiting.keys()):
            delay = outcome.waiting.get(owner, 0.0 if first else SLOWEST)
            if delay:
                self._later(delay, self._look_again, owner)
            else:
                self._look_again(owner)
        return outcome.damaged

    def _look_again(self, owner: str) -> None:
        self._again.add(owner)
        self._soon()

    def _look_at_rules_again(self) -> None:
        self._rules_again = True
        self._soon()

    # -- now and then

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + SWEEP
        busy, seen = False, (-1, self._node.facts.ways_out)
        while True:
            await asyncio.sleep(TICK / 20 if busy else TICK)
            due = loop.time() >= next_sweep
            # walking through a thousand links every second would be most of what idleness costs
            now = self._engine.changes, self._node.facts.ways_out
            if busy or due or now != seen or self._ear.is_behind:
                seen = now
                busy = self._ear.follow(self._engine.known_links().values(), now[1])
            if not due:
                continue
            try:
                async with self._turn:
                    await self._sweep()
            except (WeftError, ExceptionGroup, OSError) as error:
                self._log.line("warning", "a sweep was cut short", error=str(error))
            next_sweep = loop.time() + SWEEP

    async def _sweep(self) -> None:
        known = self._engine.known_links()
        look = await self._sweeper.look(known)
        self._forward()
        changed = {link: self._links.owner(link) for link in look.changed}
        around = self._around(look.addresses)
        damaged = await self._examine(
            Doubt(
                owners=around.union(owner for owner in changed.values() if owner is not None),
                strays=self._on_ours(look.addresses),
                rules=look.rules,
            )
        )
        self._sweeper.right(
            look, known, [link for link, owner in changed.items() if owner in damaged]
        )
        if look.rules and OWNER not in damaged:
            self._sweeper.rules_right(look)
        self._mender.settle()


async def _nothing() -> None:
    """Nobody wants to know."""
