"""What is asked of the room and what it answers: values only.

`plan.plan(view, request, now)` turns the first into one of the others; `view.View.commit` makes
an `Assigned` true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from weft.model.addresses import Address, Prefix
from weft.model.attachment import AttachmentKey

Need = Literal["required", "best-effort", "off"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment wants addresses, at most one of each family.

    `addresses`: particular ones. `pools`: only from these; None: from any, empty: from none.
    `pool4`: the only one for IPv4; empty: any of these.
    `namespace_labels` None: not known, and then a pool that selects namespaces is out of reach.
    `owner`: `namespace/name` of the pod, for reservations; empty: unknown.
    """

    key: AttachmentKey
    ipv4: Need = "required"
    ipv6: Need = "required"
    addresses: tuple[Address, ...] = ()
    pools: tuple[str, ...] | None = None
    pool4: str = ""
    namespace_labels: Mapping[str, str] | None = None
    owner: str = ""
    allow_requested: bool = True

    def may_use(self, pool: str, version: int) -> bool:
        """Whether the request is not restricted to other pools."""
        if version == 4 and self.pool4 not in ("", pool):
            return False
        return self.pools is None or pool in self.pools

    def need(self, version: int) -> Need:
        """How much this family is needed."""
        return self.ipv4 if version == 4 else self.ipv6


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an attachment. `pool` and `block` are None where none covers it."""

    address: Address
    pool: str | None
    block: Prefix | None
    sequence: int


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses an attachment gets; `notes` say why a best-effort family is missing."""

    key: AttachmentKey
    addresses: tuple[Held, ...]
    notes: tuple[str, ...] = ()


class NeedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """No held block serves: claim `cidr` of `pool` in the store, tell the view, plan again."""

    pool: str
    cidr: Prefix


Plan = Assigned | NeedBlock
