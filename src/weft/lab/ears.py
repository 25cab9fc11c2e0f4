"""Listening at a receiver's interface, and speaking raw frames from a sender's.

A "deny" is proven here, never by a client's time-out alone: an ear hears every frame that
arrives at an interface, whatever its addresses, and tells frames apart by a nonce inside.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from weft.lab import entering

_EVERY = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING


_MARK = b"wf"
_LENGTH = 12


def nonce() -> bytes:
    """Twelve bytes that no other frame holds."""
    return _MARK + os.urandom(_LENGTH - len(_MARK))


class _Raw:
    """A packet socket in a namespace; closed at the end of a `with` block."""

    def __init__(self, network: str | Path, ifname: str, protocol: int) -> None:
        self.socket = entering.socket_in(network, socket.AF_PACKET, socket.SOCK_RAW, 0)
        with entering.network(network):
            self.socket.bind((ifname, protocol))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Ear(_Raw):
    """Hears one interface of a namespace. `ifname` None: all of them."""

    def __init__(
        self, network: str | Path, ifname: str | None = "eth0", outgoing: bool = False
    ) -> None:
        super().__init__(network, ifname or "", _EVERY)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.outgoing = outgoing
        self.kept: list[bytes] = []

    def _drain(self, patience: float) -> bool:
        if not select.select([self.socket], [], [], max(0.0, patience))[0]:
            return False
        frame, about = self.socket.recvfrom(1 << 16)
        if (about[2] == _OUTGOING) == self.outgoing:
            self.kept.append(frame)
        return True

    def hears(self, mark: bytes, patience: float = 1.0) -> bytes | None:
        """The first frame that holds the mark, waiting for it; None when it does not come."""
        deadline = time.monotonic() + patience
        seen = 0
        while True:
            for frame in self.kept[seen:]:
                if mark in frame:
                    return frame
            seen = len(self.kept)
            if not self._drain(deadline - time.monotonic()) and time.monotonic() >= deadline:
                return None

    def heard(self, marks: Collection[bytes]) -> set[bytes]:
        """Which of the marks (made by `nonce`) have arrived until now."""
        while self._drain(0.0):
            continue
        return {mark for frame in self.kept for mark in _marks(frame) if mark in marks}


def _marks(frame: bytes) -> Iterator[bytes]:
    place = frame.find(_MARK)
    while place >= 0:
        yield frame[place : place + _LENGTH]
        place = frame.find(_MARK, place + 1)


class Mouth(_Raw):
    """Sends whole frames from an interface of a namespace."""

    def __init__(self, network: str | Path, ifname: str = "eth0") -> None:
        super().__init__(network, ifname, 0)

    def say(self, frame: bytes) -> None:
        self.socket.send(frame)
