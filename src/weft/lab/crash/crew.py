"""Several stages at once, each in a process of its own that plays one trial after the other.

A trial waits more than it works: for an agent that starts, for a death, for what the kernel does
late. Trials do not know each other, so as many as the machine bears are played side by side. The
processes are forked and end with the one that made them.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from types import FrameType, TracebackType
from typing import Protocol

import msgspec

from weft.lab import libc
from weft.model.errors import WeftError


class Player(Protocol):
    """Plays what it is told, on a stage that lives as long as its `with` block."""

    def __enter__(self) -> Player: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def answer(self, asked: bytes) -> bytes: ...


class Crew:
    """`count` players for the length of a `with` block."""

    def __init__(self, count: int, player: Callable[[int], Player]) -> None:
        """`player`: makes the player of that number, in its own process."""
        self._count = count
        self._player = player
        self._members: dict[Connection, int] = {}

    def __enter__(self) -> Crew:
        try:
            for number in range(self._count):
                here, there = Pipe()
                pid = os.fork()
                if pid == 0:
                    for other in (here, *self._members):
                        other.close()
                    _serve(self._player, number, there)
                there.close()
                self._members[here] = pid
        except BaseException:
            self._end(signal.SIGTERM)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(0 if error is None else signal.SIGTERM)

    def _end(self, sign: int) -> None:
        """Every player gives its stage back and ends."""
        for connection, pid in self._members.items():
            connection.close()
            if sign:
                os.kill(pid, sign)
        for pid in self._members.values():
            os.waitpid(pid, 0)
        self._members.clear()

    def play(self, asked: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """The number of each question and its answer, as they come. Raises WeftError when a
        player cannot go on."""
        waiting = iter(enumerate(asked))
        busy: dict[Connection, int] = {}
        for connection in self._members:
            _give(connection, waiting, busy)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                number = busy.pop(ready)
                try:
                    good, answer = msgspec.msgpack.decode(ready.recv_bytes())
                except EOFError:
                    raise WeftError("a process that played trials has died") from None
                if not good:
                    raise WeftError(f"a stage could not go on: {answer}")
                _give(ready, waiting, busy)
                yield number, answer


def _give(
    connection: Connection, waiting: Iterator[tuple[int, bytes]], busy: dict[Connection, int]
) -> None:
    for number, asked in waiting:
        with suppress(BrokenPipeError):  # it has ended, and why is the next that is read
            connection.send_bytes(asked)
        busy[connection] = number
        return


def _serve(make: Callable[[int], Player], number: int, connection: Connection) -> None:
    """The life of a player's process; never returns."""
    try:
        signal.signal(signal.SIGTERM, _leave)
        libc.die_with_parent(signal.SIGTERM)
        with make(number) as player:
            try:
                while True:
                    answer = player.answer(connection.recv_bytes())
                    connection.send_bytes(msgspec.msgpack.encode((True, answer)))
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # giving back is not cut short
    except EOFError:  # no more questions
        pass
    except BaseException:  # a forked child must never run its parent's cleanup
        told = msgspec.msgpack.encode((False, traceback.format_exc(limit=6)))
        with suppress(OSError):  # nobody listens any more
            connection.send_bytes(told)
    finally:
        os._exit(0)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit
