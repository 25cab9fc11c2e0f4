"""Pools around the ranges of plugins before us, whose containers still live.

Such a pool assigns nothing (`disabled`): it makes the range known as one of pods, so that it is
reached under the pod's own address. Pure: says which pool covers a range, or the one to make.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from weft.model.addresses import Prefix
from weft.model.errors import Invalid
from weft.model.ip_pool import IPPool, IPPoolSpec, check_pool, pool_prefix
from weft.model.metadata import Metadata
from weft.model.names import MAX_LABEL

PREFIX = "former"
_STRANGE = re.compile("[^a-z0-9]+")


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """A range and its pool. covered: there is one; made: `make` is to be applied; open: none can
    be, or need be, `why` says the reason. A pool that is `enabled` gives out addresses of a range
    that the former plugins give out, too."""

    network: str
    cidr: str
    pool: str = ""
    state: Literal["covered", "made", "open"]
    why: str = ""
    make: IPPool | None = None


def cover(ranges: Iterable[tuple[str, Prefix]], pools: Sequence[IPPool]) -> list[Cover]:
    """For each (network, range), in their order."""
    known = list(pools)
    families: set[int] = {pool_prefix(pool).version for pool in pools}
    found = []
    for network, prefix in ranges:
        each = _one(network, prefix, known, families)
        if each.make is not None:
            known.append(each.make)
        found.append(each)
    return found


def _one(network: str, prefix: Prefix, known: list[IPPool], families: set[int]) -> Cover:
    def answer(state: Literal["covered", "open"], why: str = "", pool: str = "") -> Cover:
        return Cover(network=network, cidr=str(prefix), state=state, why=why, pool=pool)

    beside = [pool for pool in known if pool_prefix(pool).overlaps(prefix)]
    for pool in beside:
        if pool_prefix(pool).prefixlen <= prefix.prefixlen:  # of two that overlap
            why = "" if pool.spec.disabled else "it gives out addresses; disable it until they left"
            return answer("covered", why, pool.metadata.name)
    if beside:
        names = ", ".join(pool.metadata.name for pool in beside)
        return answer("open", f"overlaps {names}, which covers a part of it")
    if prefix.version not in families:
        return answer("open", f"there is no pool of IPv{prefix.version}, so no pod of ours has any")
    name = _free_name(network, prefix.version, {pool.metadata.name for pool in known})
    made = IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=str(prefix), disabled=True))
    try:
        check_pool(made)
    except Invalid as error:
        return answer("open", error.message)
    return Cover(network=network, cidr=str(prefix), pool=name, state="made", make=made)


def _free_name(network: str, version: int, taken: set[str]) -> str:
    middle = _STRANGE.sub("-", network.lower()).strip("-")[: MAX_LABEL - 20].strip("-")
    stem = "-".join(part for part in (PREFIX, middle, f"ipv{version}") if part)
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name
