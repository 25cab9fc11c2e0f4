"""Framing of nftables messages, and the order in which a transaction must hold them.

Rows are encoded one by one and know nothing of each other, but the kernel refuses a rule before
its chain and a chain's removal before that of the rules which jump to it. So every message bears
a rank, in the field where `netlink.Socket.send` will put the sequence number; `transport` sorts
by it. Additions of containers come first, then removals, then contents.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence

from weft.kernel.netlink import HEADER, NLM_F_REQUEST, attribute, attributes

NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 16, 17

U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
I32 = struct.Struct(">i")


class Kind(enum.IntEnum):
    """NFT_MSG_*."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    DELCHAIN = 5
    NEWRULE = 6
    GETRULE = 7
    DELRULE = 8
    NEWSET = 9
    GETSET = 10
    DELSET = 11
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    NEWGEN = 15
    GETGEN = 16


REMOVALS = frozenset(
    0x0A00 | kind
    for kind in (Kind.DELTABLE, Kind.DELCHAIN, Kind.DELRULE, Kind.DELSET, Kind.DELSETELEM)
)
"""Message types (with the subsystem) that ENOENT answers when there is nothing left to remove."""


class Rank(enum.IntEnum):
    """Place of a message in its transaction."""

    RETABLE = 0  # removal of a table that the same transaction makes again, with other flags
    TABLE = 1
    REHOOK = 2  # removal of a chain that the same transaction makes again on another hook
    CHAIN = 3
    FLUSH = 4  # all rules of a chain, after the chain is certain to exist
    RESET = 5  # removal of a set that the same transaction makes again, of another kind
    SET = 6
    UNLIST = 7
    UNCHAIN = 8
    UNSET = 9
    UNTABLE = 10
    LIST = 11  # elements; those of a verdict map need their chains
    RULE = 12


def compose(kind: int, rank: int, flags: int, family: int, body: bytes) -> bytes:
    """A message of the nftables subsystem."""
    return (
        HEADER.pack(20 + len(body), 0x0A00 | kind, flags | NLM_F_REQUEST, rank, 0)
        + bytes((family, 0, 0, 0))
        + body
    )


def rank_of(message: bytes) -> int:
    """The rank that `compose` put in."""
    return int.from_bytes(message[8:12], "little" if _LITTLE else "big")


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def kind_of(message: bytes) -> int:
    """Message type with the subsystem."""
    return int(HEADER.unpack_from(message)[1])


def bracket(kind: int) -> bytes:
    """The begin or the end of a transaction (res_id is the subsystem, big-endian)."""
    return HEADER.pack(20, kind, NLM_F_REQUEST, 0, 0) + bytes((0, 0, 0, NFNL_SUBSYS_NFTABLES))


def text(kind: int, value: str) -> bytes:
    """A string attribute, NUL-terminated."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network order."""
    return attribute(kind, U32.pack(value))


def table_of(message: bytes) -> str:
    """Name of the table that a request is about: attribute 1 of every kind of them."""
    return read_text(dict(attributes(message, HEADER.size + 4))[1])


def read_text(data: memoryview) -> str:
    """The value of a string attribute."""
    return bytes(data).split(b"\0", 1)[0].decode(errors="replace")


def read_number(data: memoryview) -> int:
    """The value of a 32-bit attribute."""
    return int(U32.unpack(data)[0])


def in_order(messages: Sequence[bytes]) -> list[int]:
    """Places of `messages` in the order in which a transaction must hold them; stable."""
    return sorted(range(len(messages)), key=lambda place: rank_of(messages[place]))
