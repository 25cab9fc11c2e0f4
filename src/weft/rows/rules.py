"""nftables objects: tables, sets and maps, elements, chains with their rules.

A chain is one row together with its rules, so that a change of any rule replaces them all in one
transaction. Rules are tuples of expressions, the kernel's own (include/uapi/linux/netfilter/
nf_tables.h), as closed tagged unions: `render` writes them, `kernel.nftables` turns them to bytes
and back, and a read-back compares equal to what was written.
"""

from __future__ import annotations

import enum

import msgspec

from weft.rows.base import Row, RowKey


class Family(enum.IntEnum):
    """NFPROTO_*."""

    INET = 1
    IPV4 = 2
    ARP = 3
    NETDEV = 5
    BRIDGE = 7
    IPV6 = 10


class Table(Row, frozen=True, kw_only=True):
    """A table; everything of ours lives in tables of our name.

    `owner` is the netlink port of the only socket that may change it (None: anybody may), and
    `persist` says that it outlives its owner; it is nobody's then, until somebody adopts it. The
    chains of a `dormant` table are not hooked: it is as good as none, and never wanted.
    """

    family: Family
    name: str
    persist: bool = False
    owner: int | None = None
    dormant: bool = False

    @property
    def key(self) -> RowKey:
        return ("Table", self.family, self.name)


class Set(Row, frozen=True, kw_only=True):
    """A set, or a map where `data_type` is not None (several words: joined by ` . `).

    `key_types` names the parts of a concatenated key in nft's own words (`ifname`, `ether_addr`,
    `ipv4_addr`, `ipv6_addr`, `inet_service`, `inet_proto`, `mark`), so that `nft list` prints it.
    """

    family: Family
    table: str
    name: str
    key_types: tuple[str, ...]
    data_type: str | None = None  # a word as above, or "verdict"
    interval: bool = False
    constant: bool = False
    comment: str = ""

    @property
    def key(self) -> RowKey:
        return ("Set", self.family, self.table, self.name)


class Element(Row, frozen=True, kw_only=True):
    """An element of a set; `parts` has one packed value for each of the set's key types.

    `upto` is the inclusive end of an interval element, None for a single value; `data` is the
    packed value of a map's element, or None. Interface names are given without padding.
    """

    family: Family
    table: str
    set: str
    parts: tuple[bytes, ...]
    upto: tuple[bytes, ...] | None = None
    data: bytes | None = None

    @property
    def key(self) -> RowKey:
        return ("Element", self.family, self.table, self.set, self.parts)


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Where a base chain is hooked: `type` filter, nat or route; `number` NF_INET_* or NF_ARP_*."""

    type: str
    number: int
    priority: int
    policy: str = "accept"  # or "drop"
    device: str | None = None


Rule = tuple["Expression", ...]


class Chain(Row, frozen=True, kw_only=True):
    """A chain and all of its rules, in order."""

    family: Family
    table: str
    name: str
    hook: Hook | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def key(self) -> RowKey:
        return ("Chain", self.family, self.table, self.name)


class Oddity(Row, frozen=True, kw_only=True):
    """A stateful object (`kind` NFT_OBJECT_*) or a flowtable (0). We make none; in a table of ours
    it is somebody else's."""

    family: Family
    table: str
    name: str
    kind: int

    @property
    def key(self) -> RowKey:
        return ("Oddity", self.family, self.table, self.name, self.kind)


# -- expressions. Registers are numbered as the kernel does: 1..4 of 16 octets (NFT_REG_1..4), or
# 8..23 of 4 octets (NFT_REG32_00..15).


class Expression(msgspec.Struct, frozen=True, kw_only=True):
    """Root of the expressions."""


class Meta(Expression, frozen=True, kw_only=True):
    """Load packet metadata (`key`: NFT_META_* by name, as `iifname`, `nfproto`, `l4proto`)."""

    key: str
    register: int = 1


class MetaSet(Expression, frozen=True, kw_only=True):
    """Store a register into packet metadata (`mark`)."""

    key: str
    register: int = 1


class Payload(Expression, frozen=True, kw_only=True):
    """Load `length` octets at `offset` of the `base` header: link, network, transport."""

    base: str
    offset: int
    length: int
    register: int = 1


class ExtensionHeader(Expression, frozen=True, kw_only=True):
    """IPv6 extension header `type`: present (1 octet 0 or 1 into the register) or a field of it."""

    type: int
    offset: int = 0
    length: int = 1
    present: bool = True
    register: int = 1


class Compare(Expression, frozen=True, kw_only=True):
    """Go on with the rule only if register `op` `value`; op: == != < <= > >=."""

    op: str
    value: bytes
    register: int = 1


class Bitwise(Expression, frozen=True, kw_only=True):
    """register = (register & mask) ^ xor."""

    mask: bytes
    xor: bytes
    register: int = 1


class Lookup(Expression, frozen=True, kw_only=True):
    """Go on only if the key starting at `register` is in the set (`invert`: is not).

    `data_register` is where a map's data go; 0 means the verdict register, None no data.
    """

    set: str
    register: int = 1
    invert: bool = False
    data_register: int | None = None


class Range(Expression, frozen=True, kw_only=True):
    """Go on only if low <= register <= high (`invert`: otherwise)."""

    low: bytes
    high: bytes
    register: int = 1
    invert: bool = False


class Conntrack(Expression, frozen=True, kw_only=True):
    """Load conntrack metadata (`state`, `status`, `mark`, `direction`)."""

    key: str
    register: int = 1


class Fib(Expression, frozen=True, kw_only=True):
    """Look the packet up in the routing table: `result` type, oif or oifname; flags by name."""

    result: str
    flags: tuple[str, ...]
    register: int = 1


class Immediate(Expression, frozen=True, kw_only=True):
    """Put constant data into a register."""

    value: bytes
    register: int = 1


class Verdict(Expression, frozen=True, kw_only=True):
    """End with accept, drop, continue or return, or jump/goto `chain`."""

    verdict: str
    chain: str | None = None


class Counter(Expression, frozen=True, kw_only=True):
    """Count packets and bytes; the figures are no part of the row."""


class Limit(Expression, frozen=True, kw_only=True):
    """Go on for at most `rate` packets each `unit` seconds, and `burst` at once."""

    rate: int
    unit: int = 1
    burst: int = 5


class Log(Expression, frozen=True, kw_only=True):
    """Write the packet's headers into the kernel's log after `prefix`, as `level` (syslog's)."""

    prefix: str
    level: int = 6


class Masquerade(Expression, frozen=True, kw_only=True):
    """Source address translation to the outgoing link's address.

    `flags` is NF_NAT_RANGE_*; `port_register` names the registers of a port range, or None.
    """

    flags: int = 0
    port_low_register: int | None = None
    port_high_register: int | None = None


class DestinationNat(Expression, frozen=True, kw_only=True):
    """Destination address and port translation: `family` NFPROTO_* of the new destination, and the
    registers that hold it. `flags` is NF_NAT_RANGE_* as the kernel tells of it."""

    family: int
    address_low_register: int
    address_high_register: int
    port_low_register: int
    port_high_register: int
    flags: int = 3  # NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED


class Reject(Expression, frozen=True, kw_only=True):
    """Answer with an ICMP error, its code in its own numbering, or (code None) with a TCP reset:
    type as NFT_REJECT_*."""

    type: int
    code: int | None = None
