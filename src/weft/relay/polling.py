"""epoll(7) with a function for each socket."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

IN, OUT = select.EPOLLIN, select.EPOLLOUT
BROKEN = select.EPOLLERR | select.EPOLLHUP
_AT_ONCE = 256

Handler = Callable[[int], None]


class Poll:
    """Sockets that are waited for, and who is told."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._paused: set[int] = set()
        self._closing: list[socket.socket] = []

    def add(self, sock: socket.socket, mask: int, handler: Handler) -> None:
        """Tell `handler` of these events of a socket, and of its end."""
        self._epoll.register(sock.fileno(), mask)
        self._handlers[sock.fileno()] = handler

    def tell(self, sock: socket.socket, mask: int, handler: Handler) -> None:
        """Tell another of these events of a socket from now on."""
        self._epoll.modify(sock.fileno(), mask)
        self._handlers[sock.fileno()] = handler

    def change(self, sock: socket.socket, mask: int | None) -> None:
        """Tell of these events from now on; 0: of its end only; None: of nothing, for now."""
        number = sock.fileno()
        if mask is None:
            self._epoll.unregister(number)
            self._paused.add(number)
        elif number in self._paused:
            self._paused.discard(number)
            self._epoll.register(number, mask)
        else:
            self._epoll.modify(number, mask)

    def close(self, sock: socket.socket) -> None:
        """Forget a socket, and close it once the turn is over: what is still to be told in this
        turn must not be taken for news of another socket that got its number."""
        number = sock.fileno()
        if self._handlers.pop(number, None) is not None and number not in self._paused:
            self._epoll.unregister(number)
        self._paused.discard(number)
        self._closing.append(sock)

    def turn(self, patience: float) -> None:
        """Wait so many seconds at most, and tell everybody."""
        for number, events in self._epoll.poll(patience, _AT_ONCE):
            handler = self._handlers.get(number)
            if handler is not None:
                handler(events)
        for sock in self._closing:
            sock.close()
        self._closing.clear()
