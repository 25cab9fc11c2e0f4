"""Keeps what is known of others' packet filters current, and ours admitted where that is asked for.

Changes of nftables are announced, so a look follows shortly after them, never more than one at a
time and never on the loop. Legacy iptables announce nothing: where they are in use there is a look
now and then. Who keeps taking our rules away is left alone for a while, and that is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time

import msgspec

from weft.agent.addresses import Addresses
from weft.agent.asking import Order
from weft.agent.events import Log
from weft.agent.foreign import Seen, look, record_path
from weft.agent.insistence import Insistence
from weft.agent.node import Node
from weft.agent.tending import tend
from weft.firewalls.owners import NAMES
from weft.firewalls.report import REASON, reported, warnings
from weft.kernel.netlink import Socket
from weft.kernel.nftables.generations import listen_for_generations
from weft.model.settings import Settings
from weft.wire.status import ForeignFirewall, Why

GATHER = 0.1  # seconds between an announcement and the look: programs change much at once
PAUSE = 0.4  # seconds between two looks at least, and
SHARE = 20  # times what the last look cost, so that looking is a twentieth of a core at most
SWEEP = 30.0  # seconds between two looks where changes are not announced


class Firewalls:
    """What others' packet filters do to pods; `start` and `stop` are the agent's."""

    def __init__(
        self,
        settings: Settings,
        node: Node,
        addresses: Addresses,
        ports: frozenset[int],
        log: Log,
        insistence: Insistence | None = None,
    ) -> None:
        """`ports`: the agent's own sockets, whose changes are not news."""
        self._admit = settings.foreign_firewall == "admit"
        self._record = record_path(settings.paths)
        self._node = node
        self._pools = addresses.pool_prefixes
        self._ports = ports
        self._log = log
        self._news = asyncio.Event()
        self._ear: Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self._troubled: set[str] = set()
        self._insistence = insistence or Insistence()
        self._asked_about: Order | None = None
        self.entries: tuple[ForeignFirewall, ...] = ()
        self.seen: Seen | None = None

    def start(self) -> None:
        """Look now, and after every change from now on."""
        loop = asyncio.get_running_loop()
        self._ear = listen_for_generations(self._ports)
        loop.add_reader(self._ear.fileno(), self._hear, self._ear)
        self._news.set()
        self._task = tend("looking at other packet filters", self._keep, self._log)

    def stop(self) -> None:
        """Leave everything as it is: pods go on talking."""
        if self._ear is not None:
            asyncio.get_running_loop().remove_reader(self._ear.fileno())
            self._ear.close()
            self._ear = None
        if self._task is not None:
            self._task.cancel()

    def again(self) -> None:
        """Pools or facts of the host may have changed: if they have, look again."""
        if self._asked_about is not None and self._subject() != self._asked_about:
            self._news.set()

    def warnings(self) -> list[Why]:
        """For the status: who leaves pods without a network, who takes our rules away."""
        spared = self._insistence.spared(time.monotonic())
        return [
            *warnings(self.entries),
            *(
                Why(
                    reason=REASON,
                    message=f"somebody keeps taking our rules from {NAMES[owner]}; it is asked "
                    f"again in {left:.0f} s",
                )
                for owner, left in spared.items()
            ),
        ]

    def _hear(self, ear: Socket) -> None:
        # how many there are does not matter, nor that some were lost
        try:
            while True:
                ear.receive()
                self._news.set()
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._news.set()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._patience())
            await asyncio.sleep(GATHER)
            self._news.clear()
            began = time.monotonic()
            try:
                self._take_in(await asyncio.to_thread(look, self._order(began)))
            except BaseException:
                self._news.set()  # what was announced has not been seen
                raise
            cost = self.seen.cost if self.seen is not None else 0.0
            await asyncio.sleep(max(PAUSE, SHARE * cost))

    def _patience(self) -> float | None:
        """How long to wait for news; None where everything is announced."""
        seen = self.seen
        spared = self._insistence.spared(time.monotonic())
        if seen is None or seen.legacy or seen.troubles:
            return min((SWEEP, *spared.values()))
        return min(spared.values(), default=None)

    def _order(self, now: float) -> Order:
        self._asked_about = self._subject()
        spared = frozenset(self._insistence.spared(now))
        return msgspec.structs.replace(self._asked_about, spare=spared)

    def _subject(self) -> Order:
        facts = self._node.facts
        families = ((4, facts.ipv4, facts.uplink4), (6, facts.ipv6, facts.uplink6))
        return Order(
            pools=tuple(self._pools()),
            families=tuple(version for version, family, _ in families if family.on),
            uplinks={version: link for version, _, link in families if link is not None},
            admit=self._admit,
            record=self._record,
        )

    def _take_in(self, seen: Seen) -> None:
        self.seen = seen
        self.entries = reported(seen.judgements, tuple(self._pools()))
        for owner, words in seen.asked:
            self._log.event("info", "FirewallAsked", NAMES[owner], f"let pass: {words}")
        for owner, words in seen.taken_back:
            self._log.event("info", "FirewallTakenBack", NAMES[owner], f"taken back: {words}")
        self._count(seen)
        broken = {each.message for each in self.entries if each.breaks}
        for message in sorted(broken - self._warned):
            self._log.event("warning", "ForeignFirewall", "node", message)
        if self._warned and not broken:
            self._log.event("info", "ForeignFirewall", "node", "pods' packets pass again")
        for message in sorted(set(seen.troubles) - self._troubled):
            self._log.event("warning", "FirewallTrouble", "node", message)
        self._warned, self._troubled = broken, set(seen.troubles)

    def _count(self, seen: Seen) -> None:
        """Rules that we asked for before and had to ask for again: somebody takes them away."""
        for owner in self._insistence.told(seen.asked, seen.taken_back, time.monotonic()):
            self._log.event(
                "warning",
                "Contested",
                NAMES[owner],
                f"somebody has taken our rules away {self._insistence.often} times within "
                f"{self._insistence.lately:.0f} s; left alone for {self._insistence.pause:.0f} s",
            )
