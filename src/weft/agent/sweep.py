"""A look at everything now and then, at the price of what has changed.

Notifications may be lost, and not everything is announced. The sweep takes the fingerprints of all
links (`kernel.fingerprints`) and tells which are not those of the last time they were found right.
Packet rules have one number for all: that of their last transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple

from weft.kernel.fingerprints import Prints, Reader
from weft.rows.base import Place
from weft.rows.links import Address


class Look(NamedTuple):
    """One sweep: prints now, links that changed since they were found right, addresses that are on
    our links, and whether any packet rule has changed."""

    prints: Prints
    changed: frozenset[str]
    addresses: tuple[Address, ...]
    rules: bool
    generation: int


class Sweeper:
    """Prints of what was found right."""

    def __init__(self) -> None:
        self._right: dict[int, int] = {}
        self._generation = -1
        self._reader: Reader | None = None

    def open(self) -> None:
        """Open the sockets at the start, so that what the agent holds does not grow later."""
        if self._reader is None:
            self._reader = Reader()

    async def look(self, known: Mapping[int, str]) -> Look:
        """`known`: our links by number. Raises WeftError where tables change too fast to read."""
        return await asyncio.to_thread(self._look, known)

    def _look(self, known: Mapping[int, str]) -> Look:
        if self._reader is None:
            self._reader = Reader()
        generation = self._reader.generation()
        prints = self._reader.take()
        return Look(
            prints=prints,
            changed=frozenset(
                name for index, name in known.items() if prints.get(index) != self._right.get(index)
            )
            | frozenset(name for index, name in known.items() if index not in prints),
            addresses=_on(known, self._reader),
            rules=generation != self._generation,
            generation=generation,
        )

    async def addresses(self, known: Mapping[int, str]) -> tuple[Address, ...]:
        """Those on our links only."""
        return await asyncio.to_thread(self._addresses, known)

    def _addresses(self, known: Mapping[int, str]) -> tuple[Address, ...]:
        if self._reader is None:
            self._reader = Reader()
        return _on(known, self._reader)

    def right(self, look: Look, known: Mapping[int, str], damaged: Collection[str]) -> None:
        """After what changed was compared: all links but `damaged` are as they should be."""
        self._right = {
            index: print_
            for index, print_ in look.prints.items()
            if index in known and known[index] not in damaged
        }

    def rules_right(self, look: Look) -> None:
        """All packet rules were as they should be."""
        self._generation = look.generation

    def close(self) -> None:
        """Give the sockets back."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _on(known: Mapping[int, str], reader: Reader) -> tuple[Address, ...]:
    return tuple(
        Address(
            place=Place.HOST,
            link=known[each.ifindex],
            ip=each.ip,
            prefix=each.prefix,
            scope=each.scope,
        )
        for each in reader.addresses()
        if each.ifindex in known
    )
