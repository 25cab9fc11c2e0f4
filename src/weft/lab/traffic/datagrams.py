"""A flow of numbered datagrams, each echoed by its receiver."""

from __future__ import annotations

import os
import socket
import struct
import time

from weft.lab import entering
from weft.lab.traffic.actors import Stage
from weft.lab.traffic.reports import FlowReport
from weft.lab.traffic.wanted import Flow

SIZE = 64
_HEAD = struct.Struct("!8sI")
_TRIAL = 0xFFFFFFFF  # the number of those that only try the way
_RECEIVE = 1 << 20


class Counted:
    """Numbers that were seen, how often, and the longest time between two of them."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.duplicates = 0
        self.longest = 0.0
        self._last = 0.0

    def note(self, number: int, now: float) -> None:
        if self._last:
            self.longest = max(self.longest, now - self._last)
        self._last = now
        if number in self.seen:
            self.duplicates += 1
        self.seen.add(number)


class Datagrams:
    """Both ends of a flow."""

    def __init__(self, flow: Flow, interval: float, stage: Stage) -> None:
        family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
        self.flow = flow
        self.interval = interval
        self._key = os.urandom(8)
        self._server = entering.socket_in(flow.goal, family, socket.SOCK_DGRAM)
        self._client = entering.socket_in(flow.origin, family, socket.SOCK_DGRAM)
        for each in (self._server, self._client):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE)
        self._server.bind(("", 0))
        self._client.connect((flow.address, self._server.getsockname()[1]))
        self._arrived, self._answered = Counted(), Counted()
        self._sent = self._refused = 0
        self.is_tried = False
        stage.listen(self._server, self._serve)
        stage.listen(self._client, self._hear)

    def attempt(self) -> None:
        """A datagram that does not count; `is_tried` once one has come back."""
        try:
            self._client.send(self._packed(_TRIAL))
        except OSError:
            return  # the next attempt may go through

    def speak(self) -> None:
        """One more datagram."""
        try:
            self._client.send(self._packed(self._sent))
        except OSError:  # no way, no room, or the answer to an earlier one was an ICMP error
            self._refused += 1
            return
        self._sent += 1

    def _packed(self, number: int) -> bytes:
        return _HEAD.pack(self._key, number).ljust(SIZE, b"u")

    def _number(self, data: bytes) -> int | None:
        if len(data) != SIZE or data[:8] != self._key:
            return None
        return int(_HEAD.unpack_from(data)[1])

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self._server.recvfrom(SIZE + 1)
            except BlockingIOError:
                return
            except OSError:
                self._refused += 1
                continue
            number = self._number(data)
            if number is None:
                continue
            if number != _TRIAL:
                self._arrived.note(number, time.monotonic())
            try:
                self._server.sendto(data, sender)
            except OSError:
                self._refused += number != _TRIAL

    def _hear(self) -> None:
        while True:
            try:
                number = self._number(self._client.recv(SIZE + 1))
            except BlockingIOError:
                return
            except OSError:
                self._refused += self.is_tried
                continue
            if number == _TRIAL:
                self.is_tried = True
            elif number is not None:
                self._answered.note(number, time.monotonic())

    @property
    def is_settled(self) -> bool:
        """Whether everything that was sent has come back."""
        return len(self._answered.seen) == self._sent

    def report(self) -> FlowReport:
        return FlowReport(
            name=self.flow.name,
            sent=self._sent,
            arrived=len(self._arrived.seen),
            answered=len(self._answered.seen),
            duplicates=self._arrived.duplicates + self._answered.duplicates,
            refused=self._refused,
            longest_gap=self._answered.longest,
        )
