"""Wanted rows beside what the kernel holds.

Needs no engine and no shadow, only rows and transports, so that a worker thread with a `Host` of
its own can read whole tables while the loop goes on. Cost grows with what is read: up to a few
links are asked for one by one, more of them as one dump a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weft.drivers.contract import Difference, Driver
from weft.drivers.links import FEW
from weft.drivers.surroundings import Host, Indexes, Surroundings
from weft.rows.base import Place, Row, RowKey
from weft.rows.rules import Element, Set


def compare(
    rows: Sequence[Row],
    drivers: Mapping[type[Row], Driver[Any]],
    host: Host,
    pod_fd: int | None = None,
) -> list[Difference]:
    """What differs, in the order of `rows`. Rows inside a pod need `pod_fd`, or are left out."""
    groups: dict[tuple[int, Place], tuple[Driver[Any], list[Row]]] = {}
    for row in rows:
        place = getattr(row, "place", Place.HOST)
        if place is Place.HOST or pod_fd is not None:
            driver = drivers[type(row)]
            groups.setdefault((id(driver), place), (driver, []))[1].append(row)
    wrong = {}
    with Surroundings(host, Indexes(), pod_fd) as surroundings:
        links = {link for row in rows if (link := getattr(row, "link", ""))}
        if len(links) > FEW:
            surroundings.learn_all(Place.HOST)
        for (_, place), (driver, asked) in groups.items():
            found = driver.read(asked, surroundings.views[place])
            for row in asked:
                standing = found.get(row.key)
                if standing != row:
                    words = driver.words(row, standing)
                    wrong[row.key] = Difference(row, standing, words)
    return [wrong[row.key] for row in rows if row.key in wrong]


def without_members(rows: Mapping[RowKey, Row]) -> dict[RowKey, Row]:
    """Rows that go, less the elements of sets that go with them: the kernel drops those itself."""
    going = {key for key, row in rows.items() if isinstance(row, Set)}
    return {
        key: row
        for key, row in rows.items()
        if not (isinstance(row, Element) and ("Set", row.family, row.table, row.set) in going)
    }
