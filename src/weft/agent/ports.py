"""The node's ledger of ports: what is published for containers, and that nobody else has it.

    claim     before an ADD's first effect: all ports of one attachment, or none
    lend      at its end, to the runtime, and hold a little later what nobody took
    release   after its DEL
    adopt     at a start: what was promised stays promised, and is held again

A TCP or UDP port in the ledger is held by a bound socket of ours, so that no program of the node
can take it later, and one that has it is found at once; SCTP, which this kernel may not even have,
is only compared with the ledger. Ports that a connection of the node uses as its source are no
conflict: translation looks at new connections only. Where the ledger cannot hold one more socket
it says so (`held` False) and goes on. One port costs one socket and 15 microseconds.

Podman (seen with 4.3), and CRI-O's own manager of host ports, bind a container's ports themselves
right after the ADD, and end the container when they cannot: hence `lend`. Others bind them before
the ADD, so that nobody else can: RESERVING. A port that such a program has is not taken.
"""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from weft.agent.events import Log
from weft.kernel import listeners
from weft.kernel.listeners import Listener
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.errors import Conflict
from weft.model.ports import MAX_PORT, PROTOCOLS, PortMapping

SHARE = 4
"""The part of our descriptors that held ports may take: one in so many."""
_FIRST_FREE = 1024
SLICE = 100
"""Ports that are bound in one turn of the loop: half a millisecond."""
RESERVING = ("nerdctl", "starter", "starter-suid")
"""Programs that bind a container's ports before its ADD: nerdctl from 2.1.6 on (pkg/ocihook,
applyNetworkSettings), and Apptainer's starter for users other than root (pkg/network,
SetPortProtection)."""
RUNTIMES = (*RESERVING, "conmon", "podman", "crio", "sleep")
"""Programs that hold the ports of their containers. `sleep`: nerdctl hands the sockets to one."""


class Entry(NamedTuple):
    """One published port. `sockets` holds it; empty where it is not held."""

    mapping: PortMapping
    key: AttachmentKey
    owner: str
    addresses: tuple[str, ...]
    sockets: tuple[socket.socket, ...]


class Ledger:
    """Published ports of this node. For the loop's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._entries: dict[tuple[str, int], list[Entry]] = {}
        self._by_key: dict[AttachmentKey, list[PortMapping]] = {}
        self._held = 0
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // SHARE

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._entries.values() for entry in entries)

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def claim(self, attachment: Attachment) -> None:
        """Enter all ports of an attachment. Raises Conflict (port-taken), and then enters none."""
        if not attachment.ports:
            return
        key = attachment.key
        self._by_key[key] = []
        try:
            for mapping in attachment.ports:
                self._refuse_published(mapping)
                self._enter(mapping, attachment, self._hold(mapping, RESERVING))
        except BaseException:
            self.release(key)
            raise

    def lend(self, key: AttachmentKey) -> None:
        """Let go of the ports of an attachment, which stay its own."""
        for place, number, entry in self._entries_of(key):
            for held in entry.sockets:
                held.close()
                self._held -= 1
            self._entries[place][number] = entry._replace(sockets=())

    def hold(self, key: AttachmentKey, first: int = 0) -> int:
        """Hold again what was lent, where nobody has it: SLICE ports from `first` on. Where to go
        on, 0 at the end; unknown keys are fine."""
        lent = self._entries_of(key)
        for place, number, entry in lent[first : first + SLICE]:
            if not entry.sockets:
                held = self._bind(entry.mapping) or ()
                self._entries[place][number] = entry._replace(sockets=held)
                self._held += len(held)
        return first + SLICE if first + SLICE < len(lent) else 0

    def adopt(self, attachment: Attachment) -> None:
        """Enter the ports of an attachment that stands; who has one besides is an event."""
        if not attachment.ports or attachment.key in self._by_key:
            return
        key = attachment.key
        self._by_key[key] = []
        for mapping in attachment.ports:
            try:
                sockets = self._hold(mapping, RUNTIMES)
            except Conflict as error:
                self._log.event("warning", "PortTwice", str(key), error.message)
                sockets = ()
            self._enter(mapping, attachment, sockets)

    def release(self, key: AttachmentKey) -> None:
        """Give back what an attachment has; unknown keys are fine."""
        for mapping in self._by_key.pop(key, ()):
            place = (mapping.protocol, mapping.host_port)
            beside = self._entries[place]
            for entry in [each for each in beside if each.key == key and each.mapping == mapping]:
                beside.remove(entry)
                for held in entry.sockets:
                    held.close()
                    self._held -= 1
            if not beside:
                del self._entries[place]

    def close(self) -> None:
        """Give all sockets back; the ports stay published."""
        for key in list(self._by_key):
            self.release(key)

    # -- one port

    def _enter(
        self, mapping: PortMapping, attachment: Attachment, held: tuple[socket.socket, ...]
    ) -> None:
        place = (mapping.protocol, mapping.host_port)
        entry = Entry(
            mapping, attachment.key, _owner(attachment), _goals(mapping, attachment), held
        )
        self._entries.setdefault(place, []).append(entry)
        self._by_key[attachment.key].append(mapping)
        self._held += len(held)

    def colliding(self, mapping: PortMapping) -> list[Entry]:
        """Who has a port already, or a part of it."""
        beside = self._entries.get((mapping.protocol, mapping.host_port), ())
        return [entry for entry in beside if mapping.collides(entry.mapping)]

    def _refuse_published(self, mapping: PortMapping) -> None:
        for entry in self.colliding(mapping):
            raise self._taken(mapping, f"published for {entry.owner}")

    def _entries_of(self, key: AttachmentKey) -> list[tuple[tuple[str, int], int, Entry]]:
        """The entries of an attachment, and where they are."""
        mappings = self._by_key.get(key, ())
        places = dict.fromkeys((each.protocol, each.host_port) for each in mappings)
        return [
            (place, number, entry)
            for place in places
            for number, entry in enumerate(self._entries[place])
            if entry.key == key
        ]

    def _hold(self, mapping: PortMapping, passing: Sequence[str]) -> tuple[socket.socket, ...]:
        """Hold a port. Raises Conflict where another program has it but one of `passing`."""
        sockets = self._bind(mapping)
        if sockets is not None:
            return sockets
        # what was just closed may be listed for a moment: only a listener with a process counts
        for listener in _colliding(mapping):
            if listeners.is_held_by(listener.inode, passing):
                continue
            who = listeners.holder(listener.inode)
            if who:
                raise self._taken(mapping, f"in use by {who}")
        return ()

    def _bind(self, mapping: PortMapping) -> tuple[socket.socket, ...] | None:
        """None: somebody has it. Empty: it cannot be held."""
        if mapping.protocol == "sctp" or self._held >= self._room:
            return ()
        number = PROTOCOLS[mapping.protocol]
        try:
            held = listeners.hold(number, mapping.host_ip, mapping.host_port)
        except OSError as error:  # no memory, no descriptors: the ledger alone has to do
            self._log.event("warning", "PortNotHeld", str(mapping), str(error))
            return ()
        return None if held is None else (held,)

    def _taken(self, mapping: PortMapping, by: str) -> Conflict:
        free = self._next_free(mapping)
        hint = f"; the next free port is {free}" if free else ""
        ip = f" of {mapping.host_ip}" if mapping.host_ip else ""
        return Conflict(
            f"hostPort {mapping.host_port}/{mapping.protocol}{ip} is {by}{hint}",
            reason="port-taken",
        )

    def _next_free(self, wanted: PortMapping) -> int | None:
        """The next port after the wanted one, round to 1024, that nobody has and that the kernel
        gives to no connection by itself."""
        low, high = listeners.ephemeral_range()
        number = PROTOCOLS[wanted.protocol]
        used: set[int] = {port for name, port in self._entries if name == wanted.protocol}
        if wanted.protocol != "sctp":
            used |= {each.port for each in listeners.listening(number)}
        after = wanted.host_port + 1
        for port in chain(range(after, MAX_PORT + 1), range(_FIRST_FREE, wanted.host_port)):
            if port not in used and not low <= port <= high:
                return port
        return None


def _colliding(mapping: PortMapping) -> Sequence[Listener]:
    found = listeners.listening(PROTOCOLS[mapping.protocol])
    return [each for each in found if each.port == mapping.host_port and _same(mapping, each)]


def _same(mapping: PortMapping, listener: Listener) -> bool:
    """Whether a packet for the mapping could be the listener's."""
    if mapping.every or not listener.address:
        return True
    return ipaddress.ip_address(mapping.host_ip) == ipaddress.ip_address(listener.address)


def _goals(mapping: PortMapping, attachment: Attachment) -> tuple[str, ...]:
    """The address that the port leads to, of each family in which it does."""
    first: dict[int, str] = {}
    for each in attachment.addresses:
        first.setdefault(6 if ":" in each.address else 4, each.address)
    return tuple(first[family] for family in mapping.families if family in first)


def _owner(attachment: Attachment) -> str:
    pod, key = attachment.pod, attachment.key
    if pod.name:
        return f"pod {pod.namespace}/{pod.name}" if pod.namespace else f"container {pod.name}"
    return f"container {key.container[:12]} on network {key.network}"
