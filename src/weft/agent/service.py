"""The composition root: one process, one loop, every room wired to its neighbours.

Start: store, journal, engine, node (ruleset, then forwarding), recovery of what the kernel holds,
then the socket is bound, the queue of deletions drained, and only then requests are served.
`weft agent` comes here directly; nothing of the command line is imported, which keeps it small.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import itertools
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path

from weft.agent import given, journal_file, sole
from weft.agent.addresses import Addresses
from weft.agent.adoption import Adopter
from weft.agent.api import Api
from weft.agent.attach import STEPS, Attacher
from weft.agent.bridging import Bridging
from weft.agent.check import Checker
from weft.agent.departed import Departed
from weft.agent.detach import Detacher
from weft.agent.egress import Egress
from weft.agent.events import Log
from weft.agent.firewalls import Firewalls
from weft.agent.given import Given, given_path
from weft.agent.ground import Ground
from weft.agent.health import Health
from weft.agent.importing import Importing
from weft.agent.journal import Journal
from weft.agent.keeping import Keeping
from weft.agent.limiting import Limiting
from weft.agent.loopback import Loopback
from weft.agent.lowering import give_way
from weft.agent.mirror import Mirror
from weft.agent.node import Node
from weft.agent.pace import watch_loop
from weft.agent.parting import Parting
from weft.agent.patience import PAUSES
from weft.agent.places import own_boot_id, read_settings, secure, tell_launchers, told
from weft.agent.publish import Publisher
from weft.agent.publishing import Publishing
from weft.agent.readers import Readers
from weft.agent.reaper import Reaper
from weft.agent.recognition import Recognition
from weft.agent.recovery import Recovery
from weft.agent.relaying import Doors
from weft.agent.server import Connection, Server
from weft.agent.status import Reporter
from weft.agent.supervision import Supervision
from weft.agent.table import Attachments
from weft.agent.teardown import close_boot, refuse_beside_agent, teardown
from weft.agent.tending import tend
from weft.agent.thrift import Thrift, confine
from weft.agent.turns import Turns
from weft.agent.verbs import Verbs
from weft.agent.watch import Links, Watcher
from weft.cni.queue import changed_at
from weft.drivers.engine import Engine
from weft.drivers.removal import Looking, delete_links
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.kernel import sysctl
from weft.model.errors import KernelRefused, PeerFault, WeftError
from weft.model.kernel_release import require_supported
from weft.model.settings import SETTINGS_PATH, Settings
from weft.observe.counts import Laps
from weft.store import sqlite_file
from weft.store.contract import Store
from weft.store.sqlite import SqliteStore
from weft.wire.local import Frame, Kind, decode_cni_request

QUEUE_LOOK = 1.0  # seconds between two looks whether the queue of deletions has changed
LOOKS_APART = 20  # every so many looks everything else is looked at, too
BOOT_ID = "kernel/random/boot_id"


class Service:
    """The agent. `start`, then serve until `stop`."""

    settings_file = SETTINGS_PATH
    """Where the settings were read from; only told."""

    _soon: asyncio.TimerHandle | None = None  # the node's rules, once more
    _programs = False  # whether the node's rules are written

    def __init__(self, settings: Settings, supervision: Supervision | None = None) -> None:
        """`supervision`: what a service manager gave; by default, nothing."""
        paths = settings.paths
        self.settings = settings
        supervision = supervision or Supervision({})
        self.name = node_name(settings)
        self.boot_id = boot_id()
        self.log = Log(settings.log.level, settings.log.format)
        if aside := secure(settings):
            self.log.event("error", "JournalSetAside", "journal", aside)
        refuse_newer(settings)
        self._passed = supervision.listening(Path(paths.socket), self.log)
        self._file = _open_store(paths.store, self.log)
        self.store: Store = self._file
        self.journal = Journal(Path(paths.journal), self.boot_id)
        self.given = Given(given_path(paths.store), self.boot_id, self.journal, self.log)
        self.rules = RulesTransport()
        self.engine = Engine(Host(self.rules), all_drivers(self.rules))
        self.node = Node(settings, self.engine, self.rules, self.given, self.log)
        self.attachments = Attachments()
        self.turns = Turns()
        self.looking = Looking()
        self.reaper = Reaper(delete_links, self.looking.gone)
        self.addresses = Addresses(self.store, settings, self.name, self.node, self.log)
        self.laps = Laps(STEPS)
        self.publishing = self._publishing()
        self.limiting, self.egress = Limiting(), Egress(self.engine, self.journal, self.log)
        self.bridging = Bridging(self.engine, self.attachments, self.addresses, self.node, self.log)
        ground = self._ground()
        self.addresses.mirror = self.mirror = Mirror(self.journal, self.log)
        self.keeping = Keeping(ground, self._file, self.given, self.mirror)
        self.node.hindered = self.keeping.hindered
        self.parting = Parting(self.log)
        self.detacher = Detacher(
            ground, self.reaper, self.turns, self.looking.name_of, self.parting
        )
        self.importing = Importing(ground, self.detacher)
        self.adopter = Adopter(ground, self.detacher)
        self.recognition = Recognition(ground)
        self.recovery = Recovery(ground, self.detacher)
        self.verbs = Verbs(
            ground,
            self.turns,
            attacher=Attacher(ground, self.detacher, self.adopter),
            detacher=self.detacher,
            checker=Checker(ground, repair_pods=settings.repair.pods),
        )
        ports = frozenset((self.engine.host.links.socket.port, self.rules.tables.port))
        self.watcher = Watcher(self.engine, self.node, ports, self._known_links(), self.log)
        self.firewalls = Firewalls(settings, self.node, self.addresses, ports, self.log)
        self.publisher = Publisher(self.store, self.name, self.boot_id, self.log)
        self._housekeeping: asyncio.Task[None] | None = None
        self._watchman: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self.reporter = Reporter(self)
        self.health = Health(self, supervision)
        self.api = Api(self.reporter)
        self.server = Server(Path(paths.socket), self.handle, self.log)
        self.readers = Readers(settings, self.api, self.log)

    def _publishing(self) -> Publishing:
        way, directory = self.settings.ports.ipv6_loopback, Path(self.settings.paths.socket).parent
        return Publishing(self.log, Loopback(way, directory, self.log, self._relayed))

    def _known_links(self) -> Links:
        return Links(is_up=self.looking.is_up, owner=self._owner_of)

    def _owner_of(self, link: str) -> str | None:
        return self.attachments.owner_of(link) or self.bridging.owner_of(link)

    def _ground(self) -> Ground:
        return Ground(
            engine=self.engine,
            journal=self.journal,
            addresses=self.addresses,
            bridging=self.bridging,
            attachments=self.attachments,
            node=self.node,
            publishing=self.publishing,
            limiting=self.limiting,
            egress=self.egress,
            log=self.log,
            laps=self.laps,
        )

    async def start(self) -> None:
        """Everything up to the first request. Raises WeftError with what to do."""
        self.recognition.refuse_newer()
        self.recognition.call_back()
        await self.mirror.restore(self.store, self._file.salvaged, self._renewed())
        await self.addresses.load(self.recognition.inhabited())
        self.recognition.remember()
        kept = self.journal.read().egress
        self.egress.begin(self.attachments, kept, self.node.listed)
        self.recovery.adopt()
        await self.publishing.loopback.adopt()
        # not earlier: rules that no attachment has are removed when they are taken over
        self.addresses.changed = self._reprogram
        await self.addresses.hold()
        self._programs = True
        self._reprogram()
        self._forward()
        await self.recovery.settle()
        await self.publishing.begin(self.attachments)
        await self.recognition.locate()
        self.server.listen(self._passed)
        await self.recovery.bury()
        self._tell_launchers()
        await self._drain()
        await self._publish()
        self.watcher.refreshed = self._host_changed
        self.watcher.renamed = self.adopter.renamed
        self.departed = Departed(self._ground(), self.detacher)
        self.watcher.ended = self.departed.ended
        self.watcher.start()
        self.firewalls.start()
        self.addresses.watch()
        # what lives now lives long: the collector need not look at it again
        gc.collect()
        gc.freeze()
        self._housekeeping = tend("keeping house", self._keep_house, self.log)
        self._watchman = tend("looking after the files", self.keeping.keep, self.log)
        self._resuming = tend("finishing DELs", self.importing.resume, self.log)
        self.health.start()
        self.server.serve()
        self.log.event("info", "Started", "node", f"serving on {self.settings.paths.socket}")

    def _renewed(self) -> str:
        """Why the store is new, or ""."""
        return self._file.report or (
            "the store was not there, or empty" if self._file.is_new else ""
        )

    def _reprogram(self, pauses: Sequence[float] = PAUSES) -> None:
        """Tried again after each of `pauses` as long as the kernel puts it off."""
        try:
            self.node.program(self.addresses.pool_prefixes(), self.addresses.block_prefixes())
        except WeftError as error:
            self.log.event("error", "NodeNotProgrammed", "node", error.message)
            if pauses and isinstance(error, KernelRefused) and error.passes:
                loop = asyncio.get_running_loop()
                self._soon = loop.call_later(pauses[0], self._try_again, pauses[1:])
        self.firewalls.again()

    def _relayed(self, doors: Doors) -> None:
        """The relay for ::1 has other ports."""
        own = tuple(sorted((*port, number) for port, number in doors.items()))
        if own != self.node.relayed:
            self.node.relayed = own
            if self._programs:
                self._reprogram()
        self.publishing.relayed()

    def _try_again(self, pauses: Sequence[float] = ()) -> None:
        """What kept ADD from being served may have passed."""
        if self.node.not_ready() is not None:
            self._reprogram(pauses)
            self._forward()

    async def _host_changed(self) -> None:
        self.adopter.follow_bridges()
        self._reprogram()
        await self._publish()

    async def _publish(self) -> None:
        await self.publisher.publish(self.node.facts, self.node.not_ready())

    async def _publish_readiness(self) -> None:
        if self.node.not_ready() != self.publisher.not_ready:
            await self._publish()

    async def _drain(self) -> int:
        return await self.recovery.drain(Path(self.settings.paths.queue))

    async def _keep_house(self) -> None:
        """A launcher that could not speak with us, or gave up on us, has queued its DEL, and a
        kernel that refused the node's rules may take them now: look now and then."""
        if not self.readers.is_open:
            await self.readers.open()
        queue = Path(self.settings.paths.queue)
        seen, wait, due = 0, 1, 1
        pause, again = 1, 0  # when DELs that failed are tried again; 0: there are none
        thrift = Thrift(self.verbs.counts.total)
        for look in itertools.count(1):
            await asyncio.sleep(QUEUE_LOOK)
            whole = look % LOOKS_APART == 0
            try:
                self._look_at_doors()
                if self.node.not_ready() is None:
                    wait, due = 1, look + 1
                elif look >= due:
                    self._try_again()
                    wait = min(LOOKS_APART, wait * 2)
                    due = look + wait
                await self._publish_readiness()
                if (now := changed_at(queue)) != seen or whole or 0 < again <= look:
                    seen, again = now, look + pause  # also where it is cut short
                    pause = min(LOOKS_APART, pause * 2)
                    if not await self._drain():
                        pause, again = 1, 0
                if whole:
                    await self.importing.sweep()
                await self.departed.look(whole=whole)
                await thrift.look()
            except (OSError, WeftError) as error:  # /run is full or gone: the next may find it well
                self.log.event("error", "HouseNotKept", "node", str(error))

    def _tell_launchers(self) -> None:
        tell_launchers(Path(self.settings.paths.socket), self.settings.attach.add_timeout)

    def _look_at_doors(self) -> None:
        """Somebody may have removed the sockets, or the file beside them."""
        self.server.look()
        self.readers.look()
        if not told(Path(self.settings.paths.socket)):
            self._tell_launchers()

    def _forward(self) -> None:
        try:
            self.node.forward()
        except WeftError as error:
            self.log.event("error", "NodeNotForwarding", "node", error.message)

    def handle(
        self, connection: Connection, frame: Frame, descriptor: int | None
    ) -> Awaitable[None] | None:
        """One frame of a connection: a launcher's or the command line's."""
        if frame.kind == Kind.CNI_REQUEST:
            try:
                asked = decode_cni_request(frame.payload)
            except PeerFault as error:
                _close(descriptor)
                self.log.line("warning", "a launcher broke the protocol", error=error.message)
                connection.close()
                return None
            return self.verbs.handle(connection, asked, descriptor)
        _close(descriptor)
        return self.api.handle(connection, frame)

    async def stop(self) -> None:
        """Finish what runs, leave the kernel as it is: containers go on talking."""
        self.health.stop()
        if self._soon is not None:
            self._soon.cancel()
        self.watcher.stop()
        self.firewalls.stop()
        for task in (self._housekeeping, self._watchman, self._resuming):
            if task is not None:
                task.cancel()
        self.api.close()
        await self.readers.stop()
        await self.server.stop()
        await self.publishing.close()
        await self.addresses.close()
        self.reaper.close()
        self.parting.close()
        self.looking.close()
        self.node.close()
        self.engine.host.close()
        self.rules.close()
        await self.store.close()
        self.journal.close()


async def serve(settings: Settings, settings_file: str) -> None:
    """Run until SIGTERM or SIGINT."""
    require_supported(os.uname().release)
    supervision = Supervision(os.environ)
    faulthandler.enable()  # a supervisor's SIGABRT, and a fault of C code, say where
    if not supervision.passes_sockets:  # else the supervisor is who listens
        # before anything is opened: nothing of a living agent may be touched
        refuse_beside_agent(Path(settings.paths.socket))
    alone = await sole.claim()
    loop = asyncio.get_running_loop()
    confine(loop)
    service = Service(settings, supervision)
    service.settings_file = settings_file
    if alone is None:
        words = "another program has locked the network namespace: a second agent is not refused"
        service.log.event("warning", "NotAlone", "agent", words)
    if os.environ.get("WEFT_DEBUG_LOOP"):
        watch_loop(loop, service.log)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await service.start()
    # fed at once: a supervisor may count from the first time on
    supervision.notify("READY=1", "WATCHDOG=1")
    await ended.wait()
    supervision.notify("STOPPING=1", "STATUS=stopping")
    await service.stop()
    supervision.close()
    _close(alone)


def boot_id() -> str:
    """The kernel's boot-id, or that of a lab node, which has its own."""
    return own_boot_id() or sysctl.read(BOOT_ID) or "unknown"


def node_name(settings: Settings) -> str:
    """The node's name: settings, else the host's in lower case."""
    return settings.node.name or socket.gethostname().lower() or "node"


def _open_store(path: str, log: Log) -> SqliteStore:
    store = SqliteStore(path)
    if store.report:
        log.event("error", "StoreDamaged", "store", store.report)
    return store


def refuse_newer(settings: Settings) -> None:
    """Raise Unsupported if a newer weft wrote any of the files, before any of them is touched."""
    sqlite_file.refuse_untouched(settings.paths.store)
    journal_file.refuse_newer(Path(settings.paths.journal))
    given.refuse_newer(given_path(settings.paths.store))


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def main(argv: Sequence[str]) -> int:
    """`weft agent`: the exit status."""
    parser = argparse.ArgumentParser(prog="weft agent", description="The resident agent of a node.")
    parser.add_argument("--config", metavar="FILE", help=f"settings (default: {SETTINGS_PATH})")
    parser.add_argument(
        "--teardown", action="store_true", help="remove every link, rule and sysctl of ours; exit"
    )
    parser.add_argument(
        "--close-boot",
        action="store_true",
        help="load the ruleset that keeps pod ranges from being forwarded until the agent runs",
    )
    options = parser.parse_args(argv)
    path = Path(options.config or SETTINGS_PATH).absolute()
    try:
        settings = read_settings(path, required=options.config is not None)
        if options.teardown:
            asyncio.run(teardown(settings, boot_id()))
        elif options.close_boot:
            asyncio.run(close_boot(settings))
        else:
            give_way(settings.paths, argv)
            asyncio.run(serve(settings, str(path)))
    except WeftError as error:
        sys.stderr.write(f"weft agent: {error.message} (weft explain {error.reason})\n")
        return 1
    except OSError as error:  # a path of the settings that cannot be read or made
        sys.stderr.write(f"weft agent: {error}\n")
        return 1
    return 0
