"""The tables that are weft's, whoever made them, and the links of pods.

An orphan needs no adopting: Linux lets anybody with CAP_NET_ADMIN delete a table without an owner,
also one that persists. All tables go in one transaction, which the kernel does wholly or not at
all; one that has an owner refuses it (EPERM).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

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

Counts = tuple[int, int, int, int]
T = TypeVar("T")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One table as it stands. `holder`: the process that alone may change it, 0 where the socket
    is of none that can be seen from here; None: anybody may. `contents`: how many chains, rules,
    sets and elements; None where they cannot be read, which keeps nobody from removing them."""

    family: str
    name: str
    persists: bool
    holder: int | None
    contents: Counts | None


def standing() -> tuple[Standing, ...]:
    """Tables of our families and name in this namespace. Raises KernelRefused."""
    transport = RulesTransport()
    try:
        found = _patiently(lambda: _tables(transport))
        rows = _readable(transport) if found else []
    finally:
        transport.close()
    return tuple(
        Standing(
            family=table.family.name.lower(),
            name=table.name,
            persists=table.persist,
            holder=_holder(table),
            contents=_counted(table, rows) if rows is not None else None,
        )
        for table in found
    )


def _tables(transport: RulesTransport) -> list[Table]:
    every = (row for family in FAMILIES for row in transport.tables.tables(family))
    return [row for row in every if row.name == TABLE]


def _holder(table: Table) -> int | None:
    if table.owner is None:
        return None
    return holders.process_of(table.owner, everywhere=True) or 0


def _readable(transport: RulesTransport) -> list[Table | Set | Element | Chain] | None:
    try:
        return transport.standing(TABLE)
    except Exception:  # of another release, damaged, too busy: it is for people's eyes only
        return None


def _counted(table: Table, rows: Sequence[Table | Set | Element | Chain]) -> Counts:
    within = [row for row in rows if row.family == table.family]
    chains = [row for row in within if isinstance(row, Chain)]
    return (
        len(chains),
        sum(len(chain.rules) for chain in chains),
        sum(isinstance(row, Set) for row in within),
        sum(isinstance(row, Element) for row in within),
    )


def remove() -> None:
    """Remove all of them, or none; done when there are none. Raises WeftError with the holder where
    one is somebody's, KernelRefused for all else."""
    _patiently(_remove_once)


def _patiently(act: Callable[[], T]) -> T:
    """What the kernel puts off is tried again, TRIES times in all."""
    for _ in range(TRIES - 1):
        try:
            return act()
        except KernelRefused as refused:
            if not refused.passes:
                raise
        time.sleep(PAUSE)
    return act()


def _remove_once() -> None:
    transport = RulesTransport()
    try:
        found = _tables(transport)
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
        return tuple(sorted(link.name for link in _patiently(lambda: _marked(via))))


def shut_links() -> tuple[str, ...]:
    """Set them down; the names of those that were up. An agent that starts sets them up again.
    Raises WeftError where one stays up."""
    with open_socket() as via:
        up = [link for link in _patiently(lambda: _marked(via)) if link.up]
        via.exchange([links.set_down(link.ifindex) for link in up])
        still = [link.name for link in _patiently(lambda: _marked(via)) if link.up]
    if still:
        raise WeftError(
            f"these links of pods cannot be set down: {', '.join(still)}; the rules still stand",
            reason="kernel-refused",
        )
    return tuple(sorted(link.name for link in up))


def _marked(via: Socket) -> list[links.Link]:
    decoded = (links.decode(body) for _, body in via.dump(links.get_all()))
    return [each for each in decoded if each.kind == "veth" and each.alias.startswith(ALIAS_MARK)]
