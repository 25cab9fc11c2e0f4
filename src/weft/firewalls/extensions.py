"""Matches and targets of xtables as expressions of nftables, as far as they matter here.

iptables-nft puts a match that nftables has no words for into a rule as the octets of its own
struct. Whatever is not in the tables stays `Opaque`: the judge then cannot tell whether it
matches. Sources: include/uapi/linux/netfilter/xt_conntrack.h, xt_tcpudp.h, xt_addrtype.h,
xt_mark.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from weft.rows.firewalls import Extension, Opaque
from weft.rows.rules import (
    Bitwise,
    Compare,
    Conntrack,
    Expression,
    Fib,
    Masquerade,
    Meta,
    Payload,
    Range,
    Reject,
)

Words = tuple[Expression, ...]

NEVER: Words = (Opaque(name="never"),)
"""A match that packets of pods never meet, as that of bridged frames."""

_STATE, _STATE_ALIAS = 0x0001, 0x2000
_CONNTRACK = struct.Struct("=146xHHHH")  # match_flags, invert_flags, state_mask, status_mask
_UNTRACKED = 0x100  # XT_CONNTRACK_STATE_UNTRACKED
_NATIVE_UNTRACKED = 64
_TRACKED_STATES = 0x0F  # invalid, established, related, new: numbered alike
_PORTS = struct.Struct("=HHHH")
_LOCAL = 2  # RTN_LOCAL

CONTINUING = frozenset(
    (
        *("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "TCPOPTSTRIP", "CHECKSUM", "TTL"),
        *("HL", "TOS", "DSCP", "ECN", "CLASSIFY", "SET", "TRACE", "AUDIT", "CONNSECMARK"),
        *("SECMARK", "CT", "NOTRACK", "HMARK", "RATEEST", "IDLETIMER", "LED", "TEE"),
    )
)
"""Targets after which the next rule is asked."""
TRANSLATING = frozenset(("MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "NPT"))
"""Targets that change an address and let the packet go on."""


def words_of(extension: Extension) -> Words:
    """What it means; one `Opaque` where that is not known."""
    unknown: Words = (Opaque(name=extension.name),)
    if extension.kind == "target":
        return target_words(extension.name)
    reader = _MATCHES.get(extension.name)
    if reader is None:
        return unknown
    try:
        return reader(extension.data, extension.revision)
    except (struct.error, ValueError, IndexError):
        return unknown


def target_words(name: str) -> Words:
    """A target that is not a chain."""
    if name in CONTINUING:
        return ()
    if name in TRANSLATING:
        return (Masquerade(),)
    if name == "REJECT":
        return (Reject(type=0, code=0),)
    return (Opaque(name=f"target {name}"),)


def state_words(mask: int, *, invert: bool = False) -> Words:
    """Connection tracking's state is among these (NF_CT_STATE_BIT)."""
    return (
        Conntrack(key="state"),
        Bitwise(mask=struct.pack("=I", mask), xor=bytes(4)),
        Compare(op="==" if invert else "!=", value=bytes(4)),
    )


def port_words(offset: int, low: int, high: int, *, invert: bool = False) -> Words:
    """The port at `offset` of the upper header is in this range."""
    if (low, high) == (0, 0xFFFF) and not invert:
        return ()
    first, last = struct.pack(">H", low), struct.pack(">H", high)
    load = Payload(base="transport", offset=offset, length=2)
    if low == high:
        return (load, Compare(op="!=" if invert else "==", value=first))
    return (load, Range(low=first, high=last, invert=invert))


def type_words(side: str, mask: int, *, invert: bool = False) -> Words:
    """The address's type (a mask of 1 << RTN_*) is among these; one type at most is understood."""
    if mask.bit_count() != 1:
        return (Opaque(name="addrtype"),)
    number = struct.pack("=I", mask.bit_length() - 1)
    return (
        Fib(result="type", flags=(side,)),
        Compare(op="!=" if invert else "==", value=number),
    )


def mark_words(mark: int, mask: int, *, invert: bool = False) -> Words:
    """The packet's mark, under a mask."""
    return (
        Meta(key="mark"),
        Bitwise(mask=struct.pack("=I", mask), xor=bytes(4)),
        Compare(op="!=" if invert else "==", value=struct.pack("=I", mark)),
    )


def _conntrack(data: bytes, revision: int) -> Words:
    if revision not in (2, 3):  # revision 1 has octets for masks
        return (Opaque(name="conntrack"),)
    asked, inverted, states, _ = _CONNTRACK.unpack_from(data)
    if asked & ~_STATE_ALIAS != _STATE or states & ~(_TRACKED_STATES | _UNTRACKED):
        return (Opaque(name="conntrack"),)
    mask = states & _TRACKED_STATES | (_NATIVE_UNTRACKED if states & _UNTRACKED else 0)
    return state_words(mask, invert=bool(inverted & _STATE))


def _state(data: bytes, _: int) -> Words:
    return state_words(struct.unpack_from("=I", data)[0] & _TRACKED_STATES)


def _ports(data: bytes, flags_at: int) -> Words:
    low_source, high_source, low_target, high_target = _PORTS.unpack_from(data)
    inverted = data[flags_at]
    return (
        *port_words(0, low_source, high_source, invert=bool(inverted & 1)),
        *port_words(2, low_target, high_target, invert=bool(inverted & 2)),
    )


def _tcp(data: bytes, _: int) -> Words:
    # option, mask, comparison, inverted; then padding
    option, mask, wanted, inverted = data[8:12]
    more: Words = (Opaque(name="tcp option"),) if option else ()
    if mask:
        more += (
            Payload(base="transport", offset=13, length=1),
            Bitwise(mask=bytes((mask,)), xor=b"\0"),
            Compare(op="!=" if inverted & 4 else "==", value=bytes((wanted,))),
        )
    return (*_ports(data, 11), *more)


def _addrtype(data: bytes, revision: int) -> Words:
    if revision != 1:
        return (Opaque(name="addrtype"),)
    source, target, flags = struct.unpack_from("=HHI", data)
    if flags & ~3:  # limited to a link
        return (Opaque(name="addrtype"),)
    words: Words = type_words("saddr", source, invert=bool(flags & 1)) if source else ()
    return (*words, *(type_words("daddr", target, invert=bool(flags & 2)) if target else ()))


def _mark(data: bytes, revision: int) -> Words:
    if revision != 1:
        return (Opaque(name="mark"),)
    mark, mask, invert = struct.unpack_from("=IIB", data)
    return mark_words(mark, mask, invert=bool(invert))


def _multiport(data: bytes, revision: int) -> Words:
    # a list of ports: flags, count, fifteen ports, which of them begin a range, inverted
    if revision != 1:
        return (Opaque(name="multiport"),)
    _, count, *rest = struct.unpack_from("=BB15H15BB", data)
    return _listed(any(rest[15 : 15 + count]), bool(rest[30]))


def _listed(ranges: bool, invert: bool) -> Words:
    """One of several ports: never those of the packets that are asked about, but for ranges."""
    if ranges:
        return (Opaque(name="multiport"),)
    return () if invert else NEVER


_MATCHES: dict[str, Callable[[bytes, int], Words]] = {
    "comment": lambda data, revision: (),
    "conntrack": _conntrack,
    "state": _state,
    "tcp": _tcp,
    "udp": lambda data, revision: _ports(data, 8),
    "addrtype": _addrtype,
    "mark": _mark,
    "multiport": _multiport,
    **dict.fromkeys(
        ("icmp", "icmp6", "rt", "frag", "ah", "esp", "mh", "hbh", "dst"),
        lambda data, revision: NEVER,
    ),
}
