"""What a table may hold beside sets and chains: stateful objects and flowtables.

We make none, so of one in a table of ours only its name matters: it has to go.
Source: include/uapi/linux/netfilter/nf_tables.h (NFTA_OBJ_*, NFTA_FLOWTABLE_*).
"""

from __future__ import annotations

from collections.abc import Mapping

from weft.kernel.netlink import NLM_F_DUMP, attributes
from weft.kernel.nftables.messages import Rank, compose, number, read_number, read_text, text
from weft.rows.rules import Family, Oddity

NEWOBJ, GETOBJ, DELOBJ = 18, 19, 20  # NFT_MSG_*
NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = 22, 23, 24
ANNOUNCED = frozenset((NEWOBJ, DELOBJ, NEWFLOWTABLE, DELFLOWTABLE))
FLOWTABLE = 0
"""`Oddity.kind` of a flowtable; of an object it is NFT_OBJECT_*, which begin with 1."""

_TABLE, _NAME, _OBJECT_TYPE = 1, 2, 3
_QUESTIONS: Mapping[int, int] = {GETOBJ: NEWOBJ, GETFLOWTABLE: NEWFLOWTABLE}


def questions(family: Family) -> list[bytes]:
    """Dump requests whose answers are for `decode`."""
    return [compose(kind, 0, NLM_F_DUMP, family, b"") for kind in _QUESTIONS]


def decode(kind: int, body: memoryview) -> Oddity | None:
    """From an answer, or a notification that something came or went."""
    values = dict(attributes(body, 4))
    if _TABLE not in values or _NAME not in values:
        return None
    what = FLOWTABLE
    if kind in (NEWOBJ, DELOBJ):
        what = read_number(values[_OBJECT_TYPE]) if _OBJECT_TYPE in values else -1
    return Oddity(
        family=Family(body[0]),
        table=read_text(values[_TABLE]),
        name=read_text(values[_NAME]),
        kind=what,
    )


def delete(row: Oddity) -> bytes:
    """Remove it; EBUSY while a rule or an element uses it."""
    body = text(_TABLE, row.table) + text(_NAME, row.name)
    if row.kind == FLOWTABLE:
        return compose(DELFLOWTABLE, Rank.UNTABLE, 0, row.family, body)
    return compose(DELOBJ, Rank.UNTABLE, 0, row.family, body + number(_OBJECT_TYPE, row.kind))
