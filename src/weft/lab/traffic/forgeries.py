"""Frames that must not arrive, and the interfaces where one that did would be heard.

Every frame bears a mark of twelve bytes: whether it is forged, whose it is, and which claim it
makes. Honest frames are made the same way and sent between the forged ones: where they are heard,
silence about the others means a guard and not a broken path.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

from weft.lab import entering, frames
from weft.lab.traffic.actors import Stage
from weft.lab.traffic.reports import Heard, LiarReport
from weft.lab.traffic.wanted import Liar, Listener
from weft.model.attachment import HOST_MAC

_EVERY = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_SOL_PACKET, _STATISTICS = 263, 6  # include/uapi/linux/if_packet.h
_FORCED_BUFFER = 33  # SO_RCVBUFFORCE
_BUFFER = 8 << 20
_STRANGE_MAC = "02:00:00:66:66:66"
_STRANGERS = {4: "203.0.113.9", 6: "2001:db8:bad::9"}
_ALL_NODES = "33:33:00:00:00:01"
_PORTS = (40003, 40004)
_GATEWAY = HOST_MAC.hex(":")
_FIRST_FRAGMENT = 0x2000
_EVERY_NTH_IS_HONEST = 8
_CLAIMS_KEPT = 5

Make = Callable[[bytes], bytes]


def _mark(forged: bool, session: bytes, claim: int) -> bytes:
    return (b"wff" if forged else b"wfh") + session + struct.pack("!H", claim)


class Forger:
    """A liar at work: each turn one frame, every eighth of them honest."""

    def __init__(self, liar: Liar, interval: float, session: bytes) -> None:
        self.liar = liar
        self.interval = interval
        self._session = session
        self._socket = entering.socket_in(liar.network, socket.AF_PACKET, socket.SOCK_RAW, 0)
        with entering.network(liar.network):
            self._socket.bind(("eth0", 0))
        self.claims = _claims(liar)
        self._honest = [
            (goal, _packet(liar, own, address))
            for goal, addresses in (("victim", liar.victim), ("outside", liar.outside))
            for address in addresses
            if (own := _of_family(liar.addresses, address)) is not None
        ]
        self._turn = self._forged = 0
        self._told: dict[str, int] = {}

    def speak(self) -> None:
        """The next frame of the round."""
        turn, self._turn = self._turn, self._turn + 1
        if turn % _EVERY_NTH_IS_HONEST == 0 and self._honest:
            goal, make = self._honest[turn // _EVERY_NTH_IS_HONEST % len(self._honest)]
            if self._say(make(_mark(False, self._session, 0))):
                self._told[goal] = self._told.get(goal, 0) + 1
            return
        place = self._forged % len(self.claims)
        _, make = self.claims[place]
        self._forged += self._say(make(_mark(True, self._session, place)))

    def _say(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def report(self) -> LiarReport:
        return LiarReport(name=self.liar.name, forged=self._forged, honest=dict(self._told))


class Listening:
    """An ear at one interface, for the whole time."""

    def __init__(self, listener: Listener, session: bytes, stage: Stage) -> None:
        self.listener = listener
        self._socket = entering.socket_in(listener.network, socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, _BUFFER)
        with entering.network(listener.network):
            self._socket.bind((listener.ifname, _EVERY))
        self._forged_mark = b"wff" + session
        self._honest_mark = b"wfh" + session
        self._forged = self._honest = self._missed = 0
        self._claims: list[int] = []
        stage.listen(self._socket, self._hear)

    def _hear(self) -> None:
        while True:
            try:
                frame, about = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:  # the interface is down; what came before is still counted
                return
            if (about[2] == _OUTGOING) != self.listener.outgoing:
                continue
            if (place := frame.find(self._forged_mark)) >= 0:
                self._forged += 1
                at = place + len(self._forged_mark)
                self._claims.append(int.from_bytes(frame[at : at + 2], "big"))
            self._honest += self._honest_mark in frame

    def report(self, told: list[str]) -> Heard:
        """`told`: the claims by number."""
        raw = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        first = dict.fromkeys(told[n] for n in self._claims if n < len(told))
        return Heard(
            name=self.listener.name,
            forged=self._forged,
            honest=self._honest,
            missed=int(struct.unpack("=II", raw)[1]),
            claims=tuple(list(first)[:_CLAIMS_KEPT]),
        )


def session() -> bytes:
    """Seven bytes that tell one prober's frames from another's."""
    return os.urandom(7)


def _of_family(addresses: tuple[str, ...], like: str) -> str | None:
    return next((a for a in addresses if (":" in a) == (":" in like)), None)


def _packet(liar: Liar, source: str, goal: str, mac: str = "") -> Make:
    def make(mark: bytes) -> bytes:
        packet = frames.packet(source, goal, _PORTS, mark)
        return frames.ethernet(_GATEWAY, mac or liar.mac, frames.kind_of(source), packet)

    return make


def _fragment(liar: Liar, source: str, goal: str) -> Make:
    def make(mark: bytes) -> bytes:
        whole = frames.udp(source, goal, _PORTS, mark.ljust(120, b"f"))[:64]
        ident = int.from_bytes(mark[-4:], "big") & 0xFFFF
        packet = frames.fragment(source, goal, whole, _FIRST_FRAGMENT, ident)
        return frames.ethernet(_GATEWAY, liar.mac, frames.kind_of(source), packet)

    return make


def _claims(liar: Liar) -> list[tuple[str, Make]]:
    """Everything it lies about, with words for it."""
    found: list[tuple[str, Make]] = []
    for goal in (*liar.victim, *liar.outside):
        family = 6 if ":" in goal else 4
        sources = [a for a in (*liar.claimed, *liar.victim, _STRANGERS[family])
                   if (":" in a) == (family == 6) and a != goal]  # fmt: skip
        for source in sources:
            found.append((f"{source} to {goal}", _packet(liar, source, goal)))
        found.append((f"fragment to {goal}", _fragment(liar, _STRANGERS[family], goal)))
        if (own := _of_family(liar.addresses, goal)) is not None:
            strange = _packet(liar, own, goal, _STRANGE_MAC)
            found.append((f"{own} behind {_STRANGE_MAC} to {goal}", strange))
    return found + _neighbours(liar)


def _neighbours(liar: Liar) -> list[tuple[str, Make]]:
    """Claims to be somebody else, by ARP and by neighbour discovery."""
    found: list[tuple[str, Make]] = []
    for claimed in (*liar.claimed, *liar.victim):

        def arp(mark: bytes, claimed: str = claimed) -> bytes:
            body = frames.arp(2, (liar.mac, claimed), (_GATEWAY, claimed), mark)
            return frames.ethernet(frames.BROADCAST, liar.mac, frames.ARP, body)

        def advertise(mark: bytes, claimed: str = claimed) -> bytes:
            packet = frames.neighbour_advertisement(
                claimed, frames.ALL_NODES, claimed, liar.mac, mark
            )
            return frames.ethernet(_ALL_NODES, liar.mac, frames.IPV6, packet)

        found.append((f"to be {claimed}", advertise if ":" in claimed else arp))
    return found
