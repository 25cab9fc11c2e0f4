"""Reading tables that hang on links: filtered by link where few links are asked for.

A dump that the kernel filters still walks the whole table, but only what passes crosses to us; so
up to FEW links are read one by one, and more than that as the whole table, once a family.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from weft.drivers.contract import Medium, Scope
from weft.drivers.links import FEW
from weft.drivers.transports import LinkTransport
from weft.kernel.netlink import Failure
from weft.kernel.routes import AF_INET, AF_INET6
from weft.rows.base import Place


class Linked(Protocol):
    """A row with the name of a link."""

    @property
    def link(self) -> str: ...


class Numbered(Protocol):
    """A decoded answer with the number of a link."""

    @property
    def ifindex(self) -> int: ...


Found = TypeVar("Found", bound=Numbered)


def dumps(
    rows: Sequence[Linked],
    lengths: Collection[int],
    scope: Scope,
    request: Callable[[int, int], bytes],
    decode: Callable[[memoryview], Found | None],
) -> Iterator[tuple[str, Found]]:
    """Entries of the links of `rows`, as (name of the link, entry).

    `lengths` of the addresses (4, 16) say which families are read.
    """
    inside = scope.place is Place.POD
    via: LinkTransport = scope.transport(Medium.POD_LINKS if inside else Medium.HOST_LINKS)
    numbers = {}
    for name in {row.link for row in rows}:
        number = scope.names.find(scope.place, name)
        if number is not None:
            numbers[number] = name
    if not numbers:
        return
    filters = list(numbers) if len(numbers) <= FEW else [0]
    for length in sorted(lengths):
        family = AF_INET if length == 4 else AF_INET6
        for number in filters:
            for body in _answers(via, request(family, number)):
                entry = decode(body)
                if entry is not None and entry.ifindex in numbers:
                    yield numbers[entry.ifindex], entry


def _answers(via: LinkTransport, request: bytes) -> Iterator[memoryview]:
    """What a dump brings; nothing where its link went meanwhile."""
    try:
        for _, body in via.dump(request):
            yield body
    except Failure as failure:
        if failure.errno != errno.ENODEV:
            raise


def written(address: bytes, prefix: int | None = None) -> str:
    """An address, with its prefix length if given, as people write it."""
    text = str(ipaddress.ip_address(address))
    return text if prefix is None else f"{text}/{prefix}"
