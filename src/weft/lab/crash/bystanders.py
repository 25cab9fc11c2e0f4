"""Datagrams among pods that have nothing to do with a fault, numbered, so that none is lost unseen.

A process of its own, so that nothing the sweep does delays it: it holds sockets inside both pods,
sends one datagram each way every few milliseconds, and answers on a pipe how many it misses. A
datagram counts as lost when it has not arrived a while after it was sent. `lab.traffic` reports
once, at its end; here every trial asks, so that a loss is known by its trial.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from pathlib import Path

import msgspec

from weft.lab import entering, libc
from weft.lab.crash.scope import Scope
from weft.model.errors import NotReady, WeftError

PAUSE = 0.005  # seconds between two datagrams of a direction
PATIENCE = 0.25  # seconds after which one that has not arrived is lost
_NUMBER = struct.Struct("!Q")
_ANSWER_LIMIT = 10.0


class Flow(msgspec.Struct, frozen=True):
    """From the pod at one path of a namespace to an address of the pod at another."""

    origin: str
    goal: str
    address: str


class Counted(msgspec.Struct, frozen=True):
    """Datagrams until now; those still on their way are in neither."""

    sent: int = 0
    lost: int = 0


class Traffic(Scope):
    """Datagrams for the length of a `with` block."""

    def __init__(self, flows: list[Flow]) -> None:
        self._flows = flows

    def __enter__(self) -> Traffic:
        asked, self._ask = os.pipe2(os.O_CLOEXEC)
        self._answers, answer = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._ask)
            _serve(self._flows, asked, answer)
        os.close(asked)
        os.close(answer)
        self.counted()
        return self

    def close(self) -> None:
        """End them."""
        os.close(self._ask)
        os.close(self._answers)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def counted(self) -> Counted:
        """How many were sent and lost by now."""
        os.write(self._ask, b"?")
        if not select.select([self._answers], [], [], _ANSWER_LIMIT)[0]:
            raise NotReady("the traffic among the bystanders has stopped to answer")
        raw = os.read(self._answers, 4096)
        if not raw:
            raise WeftError("the traffic among the bystanders could not be begun")
        return msgspec.json.decode(raw, type=Counted)


class _Way:
    """One direction: numbers go out and are ticked off as they arrive."""

    def __init__(self, flow: Flow) -> None:
        family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
        self.receiver = entering.socket_in(Path(flow.goal), family, socket.SOCK_DGRAM)
        self._sender = entering.socket_in(Path(flow.origin), family, socket.SOCK_DGRAM)
        self.receiver.bind(("", 0))
        self.receiver.setblocking(False)
        self._sender.setblocking(False)
        self._to = (flow.address, self.receiver.getsockname()[1])
        self._sent: dict[int, float] = {}
        self._next = 0
        self.lost = 0
        self.arrived = 0

    def send(self, now: float) -> None:
        self._next += 1
        self._sent[self._next] = now
        try:
            self._sender.sendto(_NUMBER.pack(self._next), self._to)
        except OSError:  # no route, no neighbour: it will be missed
            return

    def receive(self) -> None:
        while True:
            try:
                number = _NUMBER.unpack(self.receiver.recv(64))[0]
            except (BlockingIOError, InterruptedError):
                return
            self.arrived += self._sent.pop(number, None) is not None

    def give_up(self, now: float) -> None:
        late = [number for number, at in self._sent.items() if now - at > PATIENCE]
        for number in late:
            del self._sent[number]
        self.lost += len(late)


def _serve(flows: list[Flow], asked: int, answer: int) -> None:
    """The child's whole life; never returns."""
    try:
        libc.die_with_parent(signal.SIGKILL)
        ways = [_Way(flow) for flow in flows]
        ears = [asked, *(way.receiver.fileno() for way in ways)]
        turn = time.monotonic()
        while True:
            ready = select.select(ears, [], [], max(0.0, turn - time.monotonic()))[0]
            for way in ways:
                way.receive()
            now = time.monotonic()
            if now >= turn:
                for way in ways:
                    way.send(now)
                # after a pause of this process the clock starts anew: no burst
                turn = max(turn + PAUSE, now)
            if asked in ready:
                if not os.read(asked, 1):
                    break
                for way in ways:
                    way.receive()
                    way.give_up(time.monotonic())
                lost = sum(way.lost for way in ways)
                sent = lost + sum(way.arrived for way in ways)
                os.write(answer, msgspec.json.encode(Counted(sent, lost)))
    finally:
        os._exit(0)
