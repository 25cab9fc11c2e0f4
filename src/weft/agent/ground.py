"""What every journey of an attachment stands on: one of each, wired once by `agent.service`."""

from __future__ import annotations

from dataclasses import dataclass

from weft.agent.addresses import Addresses
from weft.agent.bridging import Bridging
from weft.agent.egress import Egress
from weft.agent.events import Log
from weft.agent.journal import Journal
from weft.agent.limiting import Limiting
from weft.agent.node import Node
from weft.agent.publishing import Publishing
from weft.agent.table import Attachments
from weft.drivers.engine import Engine
from weft.observe.counts import Laps


@dataclass(slots=True, frozen=True, kw_only=True)
class Ground:
    """The kernel's engine, the node, who remembers what, and where the time of an ADD goes."""

    engine: Engine
    journal: Journal
    addresses: Addresses
    bridging: Bridging
    attachments: Attachments
    node: Node
    publishing: Publishing
    limiting: Limiting
    egress: Egress
    log: Log
    laps: Laps
