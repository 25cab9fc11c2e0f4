"""How programs of the node reach published ports by ::1: a hook, else a relay, else not at all.

    hook    kernel.loopback_hook: nothing is in the way of a connection once it is made
    relay   agent.relaying: a process copies; where the kernel has no hook
    off     ::1 leads nowhere

`ports.ipv6Loopback` of the settings chooses; `why` and `way` say for status what came of it. SCTP
is led by neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from weft.agent.events import Log
from weft.agent.relaying import Doors, Relaying
from weft.engines import relay
from weft.fabric.wiring import packed
from weft.kernel import loopback_hook
from weft.kernel.loopback_hook import Goal, Hook, Port
from weft.model.attachment import Attachment
from weft.model.ports import PROTOCOLS
from weft.model.settings import LoopbackWay


class Loopback:
    """Leads ::1 for this node."""

    def __init__(
        self, wanted: LoopbackWay, directory: Path, log: Log, led: Callable[[Doors], None]
    ) -> None:
        """`directory`: where the relay is asked; `led`: told of its ports."""
        self._wanted = wanted
        self._directory = directory
        self._log = log
        self._led = led
        self._hook: Hook | None = None
        self._no_hook = ""
        self._goals: dict[Port, Goal] = {}
        self._relaying = Relaying(directory, log, led)

    @property
    def relays(self) -> bool:
        """Whether a relay is what leads, or would."""
        return self._wanted == "relay" or (self._wanted == "auto" and bool(self._no_hook))

    @property
    def why(self) -> str:
        """Why ::1 does not lead where it should; "" where it does, or where no port needs it."""
        if not self._goals:
            return ""
        if self._wanted == "off":
            return "ports.ipv6Loopback is off in the settings"
        if self.relays:
            trouble = self._relaying.trouble
            return trouble and f"{self._reason()}; the relay in its place: {trouble}"
        return self._no_hook

    @property
    def way(self) -> str:
        """How ::1 leads, in words; "" where it does not, or where no port needs it."""
        if not self._goals or self.why:
            return ""
        said = self._relaying.said
        if not self.relays or said is None:
            return "" if self.relays else "a connect hook"
        away = f", {said.turned_away} turned away" if said.turned_away else ""
        return (
            f"a relay (process {said.pid}, {said.streams} streams, {said.flows} flows{away}): "
            f"{self._reason()}"
        )

    def _reason(self) -> str:
        return self._no_hook or "ports.ipv6Loopback is relay in the settings"

    async def adopt(self) -> None:
        """Before packet rules are written: what a relay leads, it goes on leading."""
        if self._wanted in ("auto", "relay"):
            await self._relaying.adopt()

    async def begin(self, attachments: Iterable[Attachment]) -> None:
        """At a start, once it is known what stands: lead exactly that."""
        self._goals = {port: goal for each in attachments for port, goal in _goals(each)}
        if self._goals and self._wanted in ("auto", "hook"):
            self._make()
        else:
            loopback_hook.remove()
        if self._goals and self.relays:
            self._relaying.want(self._goals)
            return
        await self._relaying.forget()
        await asyncio.to_thread(relay.end_all, self._directory)
        self._led({})

    def published(self, attachment: Attachment) -> None:
        """The rows of an attachment stand."""
        goals = dict(_goals(attachment))
        if not goals:
            return
        self._goals |= goals
        if self._hook is None and not self.relays and self._wanted != "off":
            self._make()
        elif self._hook is not None:
            try:
                for port, goal in goals.items():
                    self._hook.put(port, goal)
            except OSError as error:
                self._failed(error)
        if self.relays:
            self._relaying.want(self._goals)

    def withdrawn(self, attachment: Attachment) -> None:
        """The rows of an attachment are gone."""
        gone = [port for port, goal in _goals(attachment) if self._goals.get(port) == goal]
        for port in gone:
            del self._goals[port]
        if gone and self.relays:
            self._relaying.want(self._goals)
        if self._hook is None:
            return
        try:
            for port in gone:
                self._hook.drop(port)
        except OSError as error:
            self._failed(error)

    def _make(self) -> None:
        try:
            self._hook = Hook(self._goals)
        except OSError as error:
            self._failed(error)
        else:
            self._no_hook = ""

    def _failed(self, error: OSError) -> None:
        why = f"no connect hook: {error.strerror or error}"
        if why != self._no_hook:
            self._log.event("warning", "LoopbackNotLed", "node", why)
        self._no_hook = why
        if self._wanted == "auto" and self._hook is not None:
            self._hook.close()
            self._hook = None
            loopback_hook.remove()  # half of the ports would go one way, and half another

    async def close(self) -> None:
        """Give back the map; hook and relay go on."""
        await self._relaying.close()
        if self._hook is not None:
            self._hook.close()


def _goals(attachment: Attachment) -> Iterator[tuple[Port, Goal]]:
    """What ::1 leads to for an attachment."""
    ip = next((each.address for each in attachment.addresses if ":" in each.address), None)
    if ip is None:
        return
    for mapping in attachment.ports:
        wanted = mapping.host_ip == "::1" or (mapping.every and 6 in mapping.families)
        if wanted and mapping.protocol != "sctp":
            port = Port(PROTOCOLS[mapping.protocol], mapping.host_port)
            yield port, Goal(packed(ip), mapping.container_port)
