"""Tables, and who may change them.

A table with an owner can be changed by one socket only; others can neither flush nor edit it. When
that socket closes the kernel removes the table (Linux 5.12 and later), unless the table persists
(6.9 and later): then it is left an orphan, which anybody may change or adopt. So an owner without
persistence would take our rules along when it dies; we use both or neither.
Source: nf_tables_updtable and nft_rcv_nl_event in net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

from weft.kernel.netlink import NLM_F_CREATE, attributes
from weft.kernel.nftables.messages import (
    Kind,
    Rank,
    compose,
    number,
    read_number,
    read_text,
    text,
)
from weft.rows.rules import Family, Table

_NAME, _FLAGS, _OWNER = 1, 2, 7
_F_DORMANT, _F_OWNER, _F_PERSIST = 1, 2, 4


def add_table(row: Table) -> bytes:
    """Make the table, or make what stands this one: see `can_become`.

    `row.owner` is for read-backs; the kernel makes the sending socket the owner.
    """
    flags = (_F_PERSIST if row.persist else 0) | (_F_OWNER if row.owner is not None else 0)
    body = text(_NAME, row.name) + number(_FLAGS, flags)
    return compose(Kind.NEWTABLE, Rank.TABLE, NLM_F_CREATE, row.family, body)


def can_become(old: Table, new: Table) -> bool:
    """Whether the kernel turns a standing table into `new`, leaving what it holds as it is.

    An orphan can be adopted; all other differences ask for another table in the place of this one.
    So does a dormant table: whoever put it to sleep may have changed anything in it.
    """
    if old == new:
        return True
    orphan = old.persist and old.owner is None and not old.dormant
    return orphan and new.persist and new.owner is not None


def delete_table(row: Table, *, made_anew: bool = False) -> bytes:
    """Remove the table with all it holds. `made_anew`: the same transaction makes it again."""
    rank = Rank.RETABLE if made_anew else Rank.UNTABLE
    return compose(Kind.DELTABLE, rank, 0, row.family, text(_NAME, row.name))


def get_tables(family: Family, flags: int) -> bytes:
    """Ask for all tables of a family."""
    return compose(Kind.GETTABLE, 0, flags, family, b"")


def decode_table(body: memoryview) -> Table:
    """A table with its flags and its owner."""
    values = dict(attributes(body, 4))
    flags = read_number(values[_FLAGS]) if _FLAGS in values else 0
    return Table(
        family=Family(body[0]),
        name=read_text(values[_NAME]),
        persist=bool(flags & _F_PERSIST),
        owner=read_number(values[_OWNER]) if _OWNER in values else None,
        dormant=bool(flags & _F_DORMANT),
    )


def name_of_table(body: memoryview) -> str:
    """Name of the table in any message of a transaction: always the first attribute."""
    for kind, data in attributes(body, 4):
        if kind == _NAME:
            return read_text(data)
    return ""
