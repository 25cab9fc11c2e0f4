"""One thread that lets many speak in turn and hands each what arrives for it.

An actor that is late does not catch up: after a pause of the machine it goes on at its own pace,
so that a burst of ours is never mistaken for a loss of the network's.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Actor(Protocol):
    """Somebody who speaks now and then."""

    interval: float  # seconds between two turns

    def speak(self) -> None:
        """Send something. Must not block or raise."""


class Stage:
    """All actors and all sockets of the process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Actor]] = []
        self._order = count()

    def listen(self, sock: socket.socket, hear: Callable[[], None]) -> None:
        """Call `hear` whenever the socket has something; it reads all there is."""
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, hear)

    def ignore(self, sock: socket.socket) -> None:
        """No longer listen; a socket that is unknown is fine."""
        if sock.fileno() >= 0 and sock in self._selector.get_map():
            self._selector.unregister(sock)

    def join(self, actor: Actor, delay: float) -> None:
        """The actor's first turn is `delay` seconds from now."""
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), actor))

    def play(self, until: Callable[[], bool], *, silent: bool = False) -> None:
        """Go on until `until` says so; it is asked 20 times a second. `silent`: only listen."""
        while not until():
            pause = time.monotonic() + 0.05
            while (now := time.monotonic()) < pause:
                if not silent:
                    self._speak(now)
                    soon = self._due[0][0] if self._due else pause
                    wait = max(0.0, min(soon, pause) - time.monotonic())
                else:
                    wait = max(0.0, pause - now)
                for key, _ in self._selector.select(wait):
                    key.data()

    def _speak(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, order, actor = heapq.heappop(self._due)
            actor.speak()
            heapq.heappush(self._due, (max(due + actor.interval, now), order, actor))
