"""The tables that are weft's, whoever made them, and the links of pods.

An orphan needs no adopting: Linux lets anybody with CAP_NET_ADMIN delete a table without an owner,
also one that persists. All tables go in one transaction, which the kernel does wholly or not at
all; one that has an owner refuses it (EPERM).
"""

from __future__ import annotations

import time

import msgspec

from weft.drivers.rules import FAMILIES, RulesTransport
from weft.kernel import links
from weft.kernel.netlink import Socket
from weft.kernel.nftables import holders
from weft.kernel.nftables.tables import delete_table
from weft.kernel.rtnetlink import open_socket
from weft.model.attachment import ALIAS_MARK
from weft.model.errors import KernelRefused, WeftError
from weft.render.sets import TABLE
from weft.rows.rules import Chain, Element, Set, Table

TRIES = 50
PAUSE = 0.02  # seconds between two of them


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One table as it stands. `holder`: the process that alone may change it, 0 where the socket
    is of none that can be seen from here; None: anybody may."""

    family: str
    name: str
    persists: bool
    holder: int | None
    chains: int
    rules: int
    sets: int
    elements: int


def standing() -> tuple[Standing, ...]:
    """Tables of our families and name in this namespace. Raises KernelRefused."""
    transport = RulesTransport()
    try:
        rows = transport.standing(TABLE)
    finally:
        transport.close()
    return tuple(_counted(table, rows) for table in rows if isinstance(table, Table))


def _counted(table: Table, rows: list[Table | Set | Element | Chain]) -> Standing:
    within = [row for row in rows if row.family == table.family]
    chains = [row for row in within if isinstance(row, Chain)]
    holder = None
    if table.owner is not None:
        holder = holders.process_of(table.owner, everywhere=True) or 0
    return Standing(
        family=table.family.name.lower(),
        name=table.name,
        persists=table.persist,
        holder=holder,
        chains=len(chains),
        rules=sum(len(chain.rules) for chain in chains),
        sets=sum(isinstance(row, Set) for row in within),
        elements=sum(isinstance(row, Element) for row in within),
    )


def remove() -> None:
    """Remove all of them, or none; done when there are none. What the kernel puts off is tried
    again, TRIES times. Raises WeftError with the holder where one is somebody's, KernelRefused for
    all else."""
    for left in reversed(range(TRIES)):
        try:
            _remove_once()
            return
        except KernelRefused as refused:
            if not refused.passes or not left:
                raise
        time.sleep(PAUSE)


def _remove_once() -> None:
    transport = RulesTransport()
    try:
        found = [
            row
            for family in FAMILIES
            for row in transport.tables.tables(family)
            if row.name == TABLE
        ]
        refusals = transport.commit([delete_table(row) for row in found]).refusals
        held = transport.held() if refusals else []
    finally:
        transport.close()
    if not refusals:
        return
    first = refusals[0]
    if any(row.name == TABLE for row in held):
        raise WeftError(f"nothing was removed: {first.words}", reason="tables-held")
    raise KernelRefused(first.errno, "remove", f"the tables {TABLE}", first.words)


def pod_links() -> tuple[str, ...]:
    """Names of the host's ends of attachments, by the mark in their alias."""
    with open_socket() as via:
        return tuple(sorted(link.name for link in _marked(via)))


def shut_links() -> tuple[str, ...]:
    """Set them down; the names of those that were up. An agent that starts sets them up again.
    Raises WeftError where one stays up."""
    with open_socket() as via:
        up = [link for link in _marked(via) if link.up]
        via.exchange([links.set_down(link.ifindex) for link in up])
        still = [link.name for link in _marked(via) if link.up]
    if still:
        raise WeftError(
            f"these links of pods cannot be set down: {', '.join(still)}; the rules still stand",
            reason="kernel-refused",
        )
    return tuple(sorted(link.name for link in up))


def _marked(via: Socket) -> list[links.Link]:
    decoded = (links.decode(body) for _, body in via.dump(links.get_all()))
    return [each for each in decoded if each.kind == "veth" and each.alias.startswith(ALIAS_MARK)]
