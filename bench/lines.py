"""What a run reports: one line a figure, as a table for people or as JSON.

Times are kept in seconds, memory in MiB, CPU as a share of one core, or things are counted; the
unit says which. A line is `met`, `missed` or `void` (the machine was too uneasy to compare
anything); `shown` has no target. None of these makes a run fail: that takes a broken function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.figures import Ratio, Rounds, median, pooled, quantile

Unit = Literal["s", "MiB", "%", "count"]
Verdict = Literal["met", "missed", "void", "shown"]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What a line is compared with. `ratio`: the line's p50 in multiples of the peer's."""

    name: str
    p50: float
    p99: float
    ratio: float
    low: float
    high: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `target`: the most that is allowed, of the peer's ratio where there is a peer,
    else of p50 (or of the worst, where `of_worst`; of p99, where `of_p99`)."""

    benchmark: str
    what: str
    unit: Unit
    count: int
    p50: float
    p99: float
    worst: float
    target: float | None = None
    of_worst: bool = False
    of_p99: bool = False
    peer: Peer | None = None
    void: bool = False
    note: str = ""

    @property
    def judged(self) -> float:
        """The figure that the target is about."""
        if self.peer is not None:
            return self.peer.ratio
        if self.of_p99:
            return self.p99
        return self.worst if self.of_worst else self.p50

    @property
    def verdict(self) -> Verdict:
        if self.target is None:
            return "shown"
        if self.void and self.peer is not None:
            return "void"
        return "met" if self.judged <= self.target else "missed"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `broken`: what did not work, one sentence each."""

    machine: dict[str, str]
    settings: dict[str, str]
    lines: tuple[Line, ...]
    broken: tuple[str, ...]
    seconds: float


def line(benchmark: str, what: str, rounds: Rounds, *, unit: Unit = "s", **more: object) -> Line:
    """A line from samples; `more` are further fields of Line."""
    samples = pooled(rounds)
    fields = {
        "benchmark": benchmark,
        "what": what,
        "unit": unit,
        "count": len(samples),
        "p50": median(samples),
        "p99": quantile(samples, 0.99),
        "worst": max(samples),
        **more,
    }
    return msgspec.convert(fields, Line)


def peer(name: str, rounds: Rounds, found: Ratio) -> Peer:
    """The other side of a comparison."""
    samples = pooled(rounds)
    return Peer(
        name=name,
        p50=median(samples),
        p99=quantile(samples, 0.99),
        ratio=found.value,
        low=found.low,
        high=found.high,
    )


def amount(value: float, unit: Unit) -> str:
    """A figure with its unit, in three digits."""
    if unit == "count":
        return f"{value:.0f}"
    if unit != "s":
        return f"{value:.3g} {unit}"
    for factor, name in ((1.0, "s"), (1e3, "ms")):
        if abs(value) * factor >= 1:
            return f"{value * factor:.3g} {name}" if abs(value) < 1000 else f"{value:.0f} s"
    return f"{value * 1e6:.3g} us"


HEAD = (
    *("figure", "n", "p50", "p99", "worst"),
    *("peer", "its p50", "its p99", "ratio (95 %)", "target", ""),
)


def cells(row: Line) -> tuple[str, ...]:
    """A line as the cells under HEAD."""
    other = row.peer
    target = ""
    if row.target is not None:
        limit = f"{row.target:g}x" if other is not None else amount(row.target, row.unit)
        of = "worst " if row.of_worst else "p99 " if row.of_p99 else ""
        target = f"{of}<= {limit}"
    return (
        row.what,
        str(row.count),
        amount(row.p50, row.unit),
        amount(row.p99, row.unit),
        amount(row.worst, row.unit),
        other.name if other else "",
        amount(other.p50, row.unit) if other else "",
        amount(other.p99, row.unit) if other else "",
        f"{other.ratio:.3f} ({other.low:.3f}-{other.high:.3f})" if other else "",
        target,
        row.verdict if row.verdict != "shown" else "",
    )


def table(rows: Sequence[Line]) -> str:
    """All lines as text, grouped by benchmark."""
    body = [cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(HEAD, *body, strict=True)]

    def text(row: Sequence[str]) -> str:
        joined = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return joined.rstrip()

    said: list[str] = [text(HEAD)]
    group = ""
    for row, shown in zip(rows, body, strict=True):
        if row.benchmark != group:
            group = row.benchmark
            said.append(f"-- {group}")
        said.append(text(shown))
        if row.note:
            said.append(f"     {row.note}")
    return "\n".join(said)
