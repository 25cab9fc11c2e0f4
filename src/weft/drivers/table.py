"""The drivers there are: one line each. A new kind of row is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.drivers.addresses import Addresses
from weft.drivers.adoptions import Adoptions
from weft.drivers.bridge_ports import BridgePorts
from weft.drivers.bridges import Bridges
from weft.drivers.buckets import Buckets
from weft.drivers.contract import Driver
from weft.drivers.ifbs import Ifbs
from weft.drivers.links import Links
from weft.drivers.neighbours import Neighbours
from weft.drivers.redirects import Redirects
from weft.drivers.routes import Routes
from weft.drivers.rules import Rules, RulesTransport
from weft.drivers.single_links import SingleLinks
from weft.drivers.strays import Strays
from weft.drivers.sysctls import Sysctls
from weft.drivers.up import Ups
from weft.kernel.links import Link
from weft.rows.bandwidth import Ifb
from weft.rows.base import Row
from weft.rows.links import Bridge

SINGLE: Mapping[type, SingleLinks[Any]] = {Ifb: Ifbs(), Bridge: Bridges()}
"""Rows whose links have one end, and their drivers, which keep nothing."""


def link_drivers() -> tuple[Driver[Any], ...]:
    """Drivers that need no packet rules."""
    wires = (Links(), Ups(), Addresses(), Routes(), Neighbours(), Sysctls())
    singles = SINGLE.values()
    return (*wires, *singles, BridgePorts(), Adoptions(), Buckets(), Redirects())


def all_drivers(rules: RulesTransport | None = None) -> tuple[Driver[Any], ...]:
    """Every driver. `rules` is the transport that the driver of packet rules may ask for a set it
    has not met; None: one of its own."""
    return (*link_drivers(), Rules(rules if rules is not None else RulesTransport()), Strays())


def single_differs(row: Row | None, link: Link) -> bool:
    """Whether a link of one end is not as wanted, judged by a notification; False of others."""
    driver = SINGLE.get(type(row))
    return driver is not None and driver.differs(row, link)
