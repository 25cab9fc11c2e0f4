"""Keys of which a part is plain octets of a packet, written as nft does: `@th,64,128`.

Of such a part nft has to know where it comes from, or it would not read what it prints: it stores
the expressions of the key in the set's user data, nested attributes of one octet for the kind and
one for the length. The kernel does not read them. Source: nftables, src/netlink.c and
src/payload.c (NFTNL_UDATA_SET_KEY_TYPEOF); its numbers are stable, rulesets outlive programs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence

_NATIVE = struct.Struct("=I")
_RAW = re.compile(r"@th,([0-9]+),([0-9]+)")
_TRANSPORT = 3  # PROTO_BASE_TRANSPORT_HDR
_EXPR_PAYLOAD, _EXPR_META, _EXPR_CONCAT = 7, 9, 13
_META_IIFNAME = 6
_WORDS: Mapping[str, tuple[int, ...]] = {  # payload: protocol and field
    "ether_addr": (17, 2),  # ether saddr
    "ipv6_addr": (13, 8),  # ip6 saddr
}


def raw_bits(word: str) -> int:
    """Bits of a part that is plain octets of the transport header; 0 for any other word."""
    found = _RAW.fullmatch(word)
    return int(found[2]) if found else 0


def is_needed(words: Sequence[str]) -> bool:
    """Whether a key of these parts cannot be told by its types alone."""
    return any(map(raw_bits, words))


def note(kind: int, value: bytes) -> bytes:
    """One attribute of user data."""
    return bytes((kind, len(value))) + value


def notes(data: bytes) -> Mapping[int, bytes]:
    """The attributes of user data by their kinds."""
    found: dict[int, bytes] = {}
    while len(data) >= 2:
        found[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found


def encode(words: Sequence[str]) -> bytes:
    """The expressions of a key of several parts."""
    parts = b"".join(note(at, _part(word)) for at, word in enumerate(words))
    return _expression(_EXPR_CONCAT, parts)


def _expression(kind: int, data: bytes) -> bytes:
    return note(0, _NATIVE.pack(kind)) + note(1, data)


def _part(word: str) -> bytes:
    if word == "ifname":
        return _expression(_EXPR_META, note(0, _NATIVE.pack(_META_IIFNAME)))
    if found := _RAW.fullmatch(word):
        values: tuple[int, ...] = (0, 0, _TRANSPORT, int(found[1]), int(found[2]))
    else:
        values = _WORDS[word]
    fields = b"".join(note(at, _NATIVE.pack(value)) for at, value in enumerate(values))
    return _expression(_EXPR_PAYLOAD, fields)


def raw_words(data: bytes) -> Mapping[int, str]:
    """Of the expressions of a key, those that are plain octets of the transport header, by their
    places; nothing of what cannot be read."""
    found: dict[int, str] = {}
    for place, part in notes(notes(data).get(1, b"")).items():
        fields = notes(notes(part).get(1, b""))
        if len(fields) == 5 and all(len(value) == _NATIVE.size for value in fields.values()):
            protocol, _, base, offset, bits = (
                _NATIVE.unpack(fields[at])[0] for at in sorted(fields)
            )
            if (protocol, base) == (0, _TRANSPORT):
                found[place] = f"@th,{offset},{bits}"
    return found
