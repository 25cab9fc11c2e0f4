"""IPBlock: the part of a pool that one node holds and assigns from without asking the store.

Written by agents, not by people. `sequence` rises with every change of owner, so that a node
that lost a block can tell. The name is derived from the range, which makes claiming a block
the creation of one key: who creates it has it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from weft.model.addresses import Prefix, parse_prefix
from weft.model.errors import Invalid
from weft.model.metadata import Metadata, Object, Spec
from weft.model.names import check_name


class IPBlockSpec(Spec, frozen=True, kw_only=True):
    """Who holds which range."""

    cidr: Annotated[str, Meta(description="the range of the block")]
    pool: Annotated[str, Meta(description="the IPPool that it is part of")]
    node: Annotated[str, Meta(description="the node that holds it")]
    sequence: Annotated[int, Meta(ge=0, description="rises with every change of owner")] = 0


class IPBlock(Object, frozen=True, kw_only=True):
    """The part of a pool that one node holds."""

    spec: IPBlockSpec
    kind: str = "IPBlock"


def block_name(prefix: Prefix) -> str:
    """The one name that a block of this range has, e.g. `10-244-0-0-26`, `fd00-0-...-0-122`."""
    separator = "." if prefix.version == 4 else ":"
    parts = prefix.network_address.exploded.split(separator)
    return "-".join([*(part.lstrip("0") or "0" for part in parts), str(prefix.prefixlen)])


def new_block(prefix: Prefix, *, pool: str, node: str, sequence: int = 0) -> IPBlock:
    """The object whose creation claims `prefix` for `node`."""
    return IPBlock(
        metadata=Metadata(name=block_name(prefix)),
        spec=IPBlockSpec(cidr=str(prefix), pool=pool, node=node, sequence=sequence),
    )


def block_prefix(block: IPBlock) -> Prefix:
    """The block's range."""
    return parse_prefix(block.spec.cidr, "spec.cidr")


def check_block(block: IPBlock) -> None:
    """Raise `Invalid` for the first thing wrong with the spec."""
    prefix = parse_prefix(block.spec.cidr, "spec.cidr")
    check_name(block.spec.pool, "spec.pool")
    check_name(block.spec.node, "spec.node")
    if block.metadata.name != block_name(prefix):
        raise Invalid(
            f"metadata.name: a block of {prefix} is called {block_name(prefix)}",
            field="metadata.name",
            reason="invalid-object",
        )
