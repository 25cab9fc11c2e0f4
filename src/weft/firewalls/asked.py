"""What a packet answers when a rule asks for something of it (`flows.Packet`)."""

from __future__ import annotations

import struct

from weft.firewalls import values as v
from weft.firewalls.flows import ETHERTYPE, INPUT, OUTPUT, POSTROUTING, PREROUTING, Packet
from weft.rows.rules import Conntrack, Expression, ExtensionHeader, Fib, Meta, Payload

_UNICAST, _LOCAL = struct.pack("=I", 1), struct.pack("=I", 2)  # RTN_*
_NFPROTO = {4: b"\x02", 6: b"\x0a"}
_DST_NAT = 0x20  # IPS_DST_NAT
_LARGEST = 16  # octets of a register
_LINKS = frozenset(("iif", "oif", "iifname", "oifname", "bri_iifname", "bri_oifname"))
_KNOWN = frozenset(("protocol", "l4proto", "mark"))
_NO_LINK = v.exactly(bytes(16)), v.exactly(bytes(4))
"""What a rule gets that asks for a link that the packet has not: an empty name, number 0."""


def asked(packet: Packet, hook: int, word: Expression) -> v.Value | None:
    """The value that an expression loads at a hook; None where the packet has no such thing, at
    which the kernel ends the rule."""
    if packet.bridge is not None and not _is_plain(packet, word):
        return v.anything(_LARGEST)
    match word:
        case Meta():
            return _meta(packet, hook, word.key)
        case Payload():
            headers = {
                "network": packet.network,
                "transport": packet.transport,
                "link": packet.link,
            }
            header = headers.get(word.base)
            if header is None or word.offset >= header.size:
                return v.anything(word.length)
            return v.cut(header, word.offset, word.length)
        case Conntrack():
            return _conntrack(packet, word.key)
        case Fib():
            return _fib(packet, hook, word)
        case ExtensionHeader():
            return v.exactly(b"\0") if word.present else None  # the packet has none
    return v.anything(_LARGEST)


def _is_plain(packet: Packet, word: Expression) -> bool:
    """Whether it is known of a frame on a bridge: links, and where it has surely no tag, headers.
    What connection tracking says of it depends on the kernel."""
    match word:
        case Meta():
            return word.key in _LINKS or (packet.link is not None and word.key in _KNOWN)
        case Payload():
            return packet.link is not None
    return False


def _meta(packet: Packet, hook: int, key: str) -> v.Value | None:
    incoming = (None if hook == OUTPUT else packet.incoming) or _NO_LINK
    outgoing = (None if hook in (PREROUTING, INPUT) else packet.outgoing) or _NO_LINK
    match key:
        case "iifname" | "iif":
            return incoming[key == "iif"]
        case "oifname" | "oif":
            return outgoing[key == "oif"]
        case "bri_iifname":
            return packet.incoming and packet.bridge
        case "bri_oifname":
            return packet.outgoing and packet.bridge
        case "nfproto":
            return v.exactly(_NFPROTO[packet.version])
        case "l4proto":
            return v.exactly(bytes((packet.protocol,)))
        case "protocol":
            return v.exactly(ETHERTYPE[packet.version])
        case "mark" | "secpath":
            return v.exactly(bytes(4))
        case "pkttype":
            return v.exactly(b"\0")
    return v.anything(_LARGEST)


def _conntrack(packet: Packet, key: str) -> v.Value:
    match key:
        case "state":
            return v.exactly(struct.pack("=I", packet.state))
        case "direction":
            return v.exactly(bytes((packet.direction,)))
        case "mark":
            return v.exactly(bytes(4))
        case "status":  # nobody has translated its destination; the rest is not known
            return v.Value(size=4, known=int.from_bytes(struct.pack("=I", _DST_NAT)))
    return v.anything(_LARGEST)


def _fib(packet: Packet, hook: int, word: Fib) -> v.Value:
    if word.result == "type":
        if hook == POSTROUTING:
            return v.anything(4)
        local = (packet.local and "daddr" in word.flags) or (
            hook == OUTPUT and "saddr" in word.flags
        )
        return v.exactly(_LOCAL if local else _UNICAST)
    if "present" in word.flags:
        return v.exactly(struct.pack("=I", 1))  # there is a way back to whoever sends
    return v.nobody(4 if word.result == "oif" else _LARGEST)
