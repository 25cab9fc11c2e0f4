"""What a conformance test is: data about it, a function, and three ways to end.

A function that returns has passed. The two exceptions below never leave the kit: they carry a
verdict up through a test's helpers to `run`, and nobody else catches or raises them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from weft.lab.conformance.station import Station

Verdict = Literal["pass", "fail", "not applicable"]


class Failed(Exception):
    """The plugin does not do what the specification says; the text is the evidence."""


class NotApplicable(Exception):
    """The plugin does not claim the version or feature that the test is about."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `spec`: the section of the CNI specification, or the source of the rule."""

    id: str
    title: str
    spec: str
    run: Callable[[Station], None]

    @property
    def group(self) -> str:
        return self.id.split(".", 1)[0]


def case(ident: str, run: Callable[[Station], None], spec: str, title: str) -> Case:
    """One line of a group's table."""
    return Case(id=ident, title=title, spec=spec, run=run)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one test found. `reason` is empty for a pass."""

    id: str
    title: str
    spec: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0

    @property
    def group(self) -> str:
        return self.id.split(".", 1)[0]


def require(condition: object, evidence: str) -> None:
    """Fail with the evidence unless the condition holds."""
    if not condition:
        raise Failed(evidence)


def none_of(problems: Iterable[str], limit: int = 4) -> None:
    """Fail with the first few problems unless there are none."""
    found = list(problems)
    if found:
        more = f" (and {len(found) - limit} more)" if len(found) > limit else ""
        raise Failed("; ".join(found[:limit]) + more)
