"""What `weft doctor` judges about other packet filters of the host.

A running agent judges them itself, for its pools, and its findings are shown; here they are judged
where no agent answers, for pods of whatever range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from weft.cli.machine import Machine
from weft.firewalls.report import REASON, findings
from weft.wire.api import Finding


def firewalls(machine: Machine) -> Iterator[Finding]:
    """Chains that drop pods' packets, whatever weft accepts; and what could not be seen."""
    found = machine.survey()
    for trouble in found.troubles:
        yield Finding(
            id=REASON,
            level="warn",
            text=f"cannot see all packet filters of this host: {trouble}",
        )
    if machine.status is None and not found.troubles:
        yield from findings(found.entries)


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (firewalls,)
