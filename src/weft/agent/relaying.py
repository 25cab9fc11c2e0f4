"""The relay for ::1 kept as it should be: there while ports need it, leading where they lead.

What is wanted is a table that others replace at any time; one task makes it so, and nobody waits
for it. A relay that an earlier agent left goes on, so that streams outlive the agent; one of
another release gives way to a new one and ends with its last stream. One that died, or does not
answer, is replaced. Next: `engines.relay`, `weft.relay`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from weft import __version__
from weft.agent.events import Log
from weft.agent.tending import tend
from weft.engines import relay
from weft.engines.relay import Said
from weft.kernel.loopback_hook import Goal, Port
from weft.model.errors import NotFound, PeerFault

LOOK = 10.0
"""Seconds between two questions to a relay that nothing is wanted of."""
FIRST, LONGEST = 0.1, 30.0
"""Seconds until another is started: after the first that failed, and at most."""
SHARE, REST = 10.0, 2.0
"""After telling a relay where to lead it rests so many times as long as that took, and at most so
many seconds: it is told of all ports each time, and a burst of ADDs is told of at once."""

Doors = dict[Port, int]


class Relaying:
    """Keeps the relay whose socket is in `directory`. For the loop's thread."""

    def __init__(self, directory: Path, log: Log, led: Callable[[Doors], None]) -> None:
        """`led` gets the relay's ports whenever they have changed."""
        self._path = directory / relay.NAME
        self._log = log
        self._led = led
        self._goals: Mapping[Port, Goal] = {}
        self._doors: Doors = {}  # of the last relay: the next one takes the same, if it can
        self._known: Doors = {}  # what packet rules lead to
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._handle = -1
        self._pause = FIRST
        self.said: Said | None = None
        """What the relay said last; None while there is none."""
        self.trouble = "it is being started"
        """Why what is wanted is not so; "" where it is."""

    def want(self, goals: Mapping[Port, Goal]) -> None:
        """Lead exactly these ports there. Who changes `goals` calls again."""
        self._goals = goals
        self._news.set()
        if self._task is None:
            self._task = tend("keeping the relay for ::1", self._keep, self._log)

    async def adopt(self) -> None:
        """At a start: a relay that leads ports goes on leading them until it is told otherwise."""
        with suppress(NotFound, PeerFault):
            said = await asyncio.to_thread(relay.hello, self._path)
            if said.release == __version__:
                self._take(said)

    async def forget(self) -> None:
        """Nothing is wanted, and whatever there is will be ended."""
        await self.close()
        self._goals = {}
        self._forget()
        self._lead({})

    async def close(self) -> None:
        """Leave the relay as it is, for the next agent."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._watch(None)

    # -- one task

    async def _keep(self) -> None:
        while True:
            patience = LOOK if self._goals else None
            if self.said is None and self._goals:
                patience = self._pause
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()
            self._news.clear()
            try:
                spent = await self._make_so()
            except (OSError, NotFound, PeerFault) as error:
                await self._failed(str(error))
            else:
                self._pause = FIRST
                await asyncio.sleep(min(REST, SHARE * spent))

    async def _make_so(self) -> float:
        """Answers for how many seconds the relay was being told."""
        if not self._goals:
            await asyncio.to_thread(relay.end, self._path)
            self._forget()
            self._lead({})
            return 0.0
        await self._ensure()
        goals, own = dict(self._goals), dict(self._doors)
        begun = time.monotonic()
        self._take(await asyncio.to_thread(relay.lead, self._path, goals, own))
        return time.monotonic() - begun

    async def _ensure(self) -> None:
        """A relay of this release, one way or another."""
        try:
            said = await asyncio.to_thread(relay.hello, self._path)
        except NotFound:
            self._end_unnamed()
            self._process = await asyncio.to_thread(relay.start, self._path)
            await asyncio.to_thread(relay.clear, self._path.parent)
            return
        if said.release != __version__:
            await asyncio.to_thread(relay.retire, self._path)
            self._process = await asyncio.to_thread(relay.start, self._path)

    def _end_unnamed(self) -> None:
        """One whose socket somebody removed can be asked, and ended, by nobody any more."""
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _take(self, said: Said) -> None:
        if self.said is None or self.said.pid != said.pid:
            self._watch(said.pid)
            words = f"the relay for ::1 is process {said.pid}"
            self._log.event("info", "Relayed", "node", words)
        self.said = said
        self.trouble = _refusals(said)
        self._doors = {Port(protocol, number): own for protocol, number, own in said.ports}
        self._lead(self._doors)

    def _lead(self, doors: Doors) -> None:
        if doors != self._known:
            self._known = doors
            self._led(doors)

    async def _failed(self, why: str) -> None:
        """Whatever is there does not do what it should: begin anew, the later the more often."""
        if why != self.trouble:
            self._log.event("warning", "RelayFailed", "node", why)
        self.trouble = why
        self.said = None
        self._watch(None)
        self._lead({})  # nobody keeps its ports: any program of the node could take them
        await asyncio.to_thread(relay.kill, self._path)
        self._pause = min(LONGEST, self._pause * 2)

    def _forget(self) -> None:
        self._watch(None)
        self.said = None
        self.trouble = "it is being started"
        self._doors = {}

    def _watch(self, pid: int | None) -> None:
        """Be told when this process has ended."""
        loop = asyncio.get_running_loop()
        if self._handle >= 0:
            loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
        if self._process is not None and self._process.pid != pid:
            self._process.poll()  # bury it
            self._process = None
        if pid is not None:
            with suppress(ProcessLookupError):
                self._handle = os.pidfd_open(pid)
                loop.add_reader(self._handle, self._ended)

    def _ended(self) -> None:
        self._watch(None)
        if self.said is not None and self._goals:
            words = f"process {self.said.pid} has ended; another is started, its streams are cut"
            self._log.event("warning", "RelayFailed", "node", words)
            self.trouble = words
        self.said = None
        self._lead({})  # as in `_failed`
        self._news.set()


def _refusals(said: Said) -> str:
    """Which ports the relay does not carry, in words."""
    if not said.refused:
        return ""
    protocol, number, why = said.refused[0]
    more = f", and {len(said.refused) - 1} more" if len(said.refused) > 1 else ""
    return f"port {number}/{'tcp' if protocol == 6 else 'udp'} is not carried: {why}{more}"
