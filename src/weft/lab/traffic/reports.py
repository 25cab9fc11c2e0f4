"""What became of the traffic: counts, never estimates.

Lost means: sent, and not seen by the receiver when the time for stragglers was over. A flow that
could not even send (the kernel refused) counts it as a refusal, which is a loss too.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

SHOWN = 20


class FlowReport(msgspec.Struct, frozen=True, kw_only=True):
    """One flow of datagrams. Gaps are seconds between two that arrived one after another."""

    name: str
    sent: int
    arrived: int  # at the receiver, each once
    answered: int  # back at the sender, each once
    duplicates: int = 0
    refused: int = 0  # sends that failed, and errors that the network sent back
    longest_gap: float = 0.0

    @property
    def lost(self) -> int:
        """Datagrams and answers that did not arrive, and what was refused."""
        return (self.sent - self.arrived) + (self.arrived - self.answered) + self.refused


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One TCP connection. `broken` says how it ended before its time; empty when it did not."""

    name: str
    sent: int  # bytes
    echoed: int
    broken: str = ""
    corrupt: bool = False
    longest_stall: float = 0.0  # seconds in which something was under way and nothing came

    @property
    def is_whole(self) -> bool:
        """Whether every byte came back and nothing else."""
        return not self.broken and not self.corrupt and self.sent == self.echoed


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What one listener heard. `missed`: frames that the kernel could not hand it."""

    name: str
    forged: int
    honest: int
    missed: int
    claims: tuple[str, ...] = ()  # of forged frames that were heard, the first ones


class LiarReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one liar sent. `honest`: by the name of the goal, `victim` or `outside`."""

    name: str
    forged: int
    honest: dict[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `seconds` of sending."""

    seconds: float
    datagrams: tuple[FlowReport, ...] = ()
    streams: tuple[StreamReport, ...] = ()
    liars: tuple[LiarReport, ...] = ()
    heard: tuple[Heard, ...] = ()

    @property
    def lost(self) -> int:
        return sum(flow.lost for flow in self.datagrams)

    @property
    def sent(self) -> int:
        return sum(flow.sent for flow in self.datagrams)

    @property
    def broken(self) -> int:
        """Streams that were reset, or whose bytes are not all there."""
        return sum(not stream.is_whole for stream in self.streams)

    @property
    def forged(self) -> int:
        return sum(liar.forged for liar in self.liars)

    @property
    def leaked(self) -> int:
        """Forged frames that were heard anywhere."""
        return sum(heard.forged for heard in self.heard)

    @property
    def longest_gap(self) -> float:
        return max((flow.longest_gap for flow in self.datagrams), default=0.0)

    def problems(self) -> list[str]:
        """Everything that is not as it should be, one line each; empty when all is well."""
        return list(self._problems())[:SHOWN]

    def _problems(self) -> Iterator[str]:
        for flow in self.datagrams:
            if flow.lost or flow.duplicates or not flow.sent:
                yield (
                    f"{flow.name}: {flow.sent} sent, {flow.arrived} arrived, {flow.answered} "
                    f"answered, {flow.duplicates} twice, {flow.refused} refused, longest gap "
                    f"{flow.longest_gap:.3f} s"
                )
        for stream in self.streams:
            if not stream.is_whole or not stream.sent:
                how = stream.broken or ("wrong bytes" if stream.corrupt else "bytes are missing")
                yield f"{stream.name}: {how}; {stream.echoed} of {stream.sent} bytes came back"
        for heard in self.heard:
            if heard.forged:
                yield f"{heard.name} heard {heard.forged} forged: {'; '.join(heard.claims)}"
            if heard.missed:
                yield f"{heard.name} could not keep up with {heard.missed} frames"
        yield from self._silences()

    def _silences(self) -> Iterator[str]:
        """Silence about forged frames means something only where honest ones are heard."""
        for goal in ("victim", "outside"):
            told = sum(liar.honest.get(goal, 0) for liar in self.liars)
            ears = [heard for heard in self.heard if heard.name == goal]
            if self.liars and not told:
                yield f"no honest frame was sent to the {goal}"
            for ear in ears:
                if ear.honest != told:
                    yield f"{ear.name} heard {ear.honest} of {told} honest frames"

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.seconds:.1f} s: {self.sent:,} datagrams in {len(self.datagrams)} flows, "
            f"{self.lost} lost, longest gap {self.longest_gap * 1000:.0f} ms; "
            f"{len(self.streams)} streams, {self.broken} broken; "
            f"{self.forged:,} forged frames, {self.leaked} arrived"
        )
