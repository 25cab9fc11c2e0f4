"""What a packet answers when a rule asks for something of it (`flows.Packet`)."""

from __future__ import annotations

import struct

from weft.firewalls import values as v
from weft.firewalls.flows import INPUT, OUTPUT, POSTROUTING, PREROUTING, Packet
from weft.rows.rules import Conntrack, Expression, ExtensionHeader, Fib, Meta, Payload

_UNICAST, _LOCAL = struct.pack("=I", 1), struct.pack("=I", 2)  # RTN_*
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_NFPROTO = {4: b"\x02", 6: b"\x0a"}
_DST_NAT = 0x20  # IPS_DST_NAT
_LARGEST = 16  # octets of a register


def asked(packet: Packet, hook: int, word: Expression) -> v.Value | None:
    """The value that an expression loads at a hook; None where the packet has no such thing, at
    which the kernel ends the rule."""
    match word:
        case Meta():
            return _meta(packet, hook, word.key)
        case Payload():
            headers = {"network": packet.network, "transport": packet.transport}
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


def _meta(packet: Packet, hook: int, key: str) -> v.Value | None:
    incoming = None if hook == OUTPUT else packet.incoming
    outgoing = None if hook in (PREROUTING, INPUT) else packet.outgoing
    match key:
        case "iifname" | "iif":
            return incoming and incoming[key == "iif"]
        case "oifname" | "oif":
            return outgoing and outgoing[key == "oif"]
        case "nfproto":
            return v.exactly(_NFPROTO[packet.version])
        case "l4proto":
            return v.exactly(bytes((packet.protocol,)))
        case "protocol":
            return v.exactly(_ETHERTYPE[packet.version])
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
