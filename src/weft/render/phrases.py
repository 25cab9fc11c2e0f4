"""The vocabulary of our rules: short names for the expressions that they are made of.

Our links are known by the first two octets of their names. A set of our links' names would be
exact, but a link that is missing from it would go unguarded, and a name cannot be missing. One that
somebody renames is still known by its group, which it has from the message that makes it; what
comes from it is on no list then, and dropped. A link that another plugin made and we adopted has a
name of its own: it is in the set `adopted`, and has a group as well. The rare foreign link that
begins alike is listed in the set `strangers`, and only what would be dropped is looked up there.
The words chosen are those that `nft list ruleset` prints in a form that `nft -f` reads again: a
saved ruleset that fails to load would leave a host without any.
"""

from __future__ import annotations

import struct

from weft.model.attachment import ADOPTED_GROUP, LINK_PREFIX, LIVE_GROUP
from weft.render.sets import ADOPTED, ARP_GUARD, LOCALNET, OUT, SEGMENTS, STRANGERS
from weft.rows.rules import (
    Bitwise,
    Compare,
    Conntrack,
    Expression,
    ExtensionHeader,
    Lookup,
    Meta,
    Payload,
    Verdict,
)

Words = tuple[Expression, ...]

TCP, UDP, ICMP, ICMP6 = b"\x06", b"\x11", b"\x01", b"\x3a"
ROUTING, FRAGMENT = 43, 44

_PREFIX = LINK_PREFIX.encode()
_ETHERNET = struct.pack("=H", 1)  # ARPHRD_ETHER, in the host's order
_GROUP = struct.pack("=I", LIVE_GROUP)
_ADOPTED_GROUP = struct.pack("=I", ADOPTED_GROUP)
_TRANSLATED = struct.pack("=I", 1 << 5)  # IPS_DST_NAT, in the host's order
_ARP_IPV4 = bytes.fromhex("000108000604")  # Ethernet, IPv4, and their sizes
ESTABLISHED = struct.pack("=I", 6)
"""NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED, in the host's order."""
_INVALID = struct.pack("=I", 1)  # NF_CT_STATE_INVALID_BIT, in the host's order

ACCEPT = Verdict(verdict="accept")
DROP = Verdict(verdict="drop")
RETURN = Verdict(verdict="return")


def jump(chain: str) -> Verdict:
    """Go on in `chain` and come back."""
    return Verdict(verdict="jump", chain=chain)


def goto(chain: str) -> Verdict:
    """Go on in `chain` and do not come back."""
    return Verdict(verdict="goto", chain=chain)


def refuse(reason: str) -> Verdict:
    """Count the packet under `reason` and drop it."""
    return goto(f"drop-{reason}")


def named(side: str) -> Words:
    """The link (`side` iifname or oifname) has our prefix."""
    return (Meta(key=side), Compare(op="==", value=_PREFIX))


def not_named(side: str) -> Words:
    """The link is certainly not ours."""
    return (Meta(key=side), Compare(op="!=", value=_PREFIX))


def of_our_group(side: str, op: str = "==") -> Words:
    """The link (`side` iifgroup or oifgroup) is in the group of our links."""
    return (Meta(key=side), Compare(op=op, value=_GROUP))


def from_elsewhere() -> Words:
    """The packet's link is neither ours nor adopted, by its name nor by its group."""
    return (
        *not_named("iifname"),
        *of_our_group("iifgroup", "!="),
        Compare(op="!=", value=_ADOPTED_GROUP),
        *adopted("iifname", inside=False),
    )


def of_adopted_group(side: str) -> Words:
    """The link is in the group of adopted links."""
    return (Meta(key=side), Compare(op="==", value=_ADOPTED_GROUP))


def adopted(side: str, *, inside: bool = True) -> Words:
    """The link is one that another plugin made and we guard (or, `inside` False, is none)."""
    return (Meta(key=side), Lookup(set=ADOPTED, invert=not inside))


def in_segment(side: str, *, inside: bool = True) -> Words:
    """The link is a bridge whose ports reach each other without the node: with br_netfilter what
    they say to each other is seen at the hooks, too (or, `inside` False, it is none)."""
    return (Meta(key=side), Lookup(set=SEGMENTS, invert=not inside))


def strange(side: str, *, inside: bool = True) -> Words:
    """The link has our prefix and is not ours (or, `inside` False, is ours after all)."""
    return (Meta(key=side), Lookup(set=STRANGERS, invert=not inside))


def ours(side: str) -> Words:
    """The link is ours."""
    return (*named(side), *strange(side, inside=False))


def ipv4() -> Words:
    """The packet is IPv4."""
    return (Meta(key="nfproto"), Compare(op="==", value=b"\x02"))


def ipv6() -> Words:
    """The packet is IPv6."""
    return (Meta(key="nfproto"), Compare(op="==", value=b"\x0a"))


def protocol(number: bytes) -> Words:
    """The upper protocol, found behind IPv6 extension headers. Never true where it is not found."""
    return (Meta(key="l4proto"), Compare(op="==", value=number))


def protocol_other_than(number: bytes) -> Words:
    """The upper protocol was found, and is another. Never true where it is not found."""
    return (Meta(key="l4proto"), Compare(op="!=", value=number))


def network(offset: int, value: bytes, op: str = "==") -> Words:
    """Octets of the IP header."""
    return (
        Payload(base="network", offset=offset, length=len(value)),
        Compare(op=op, value=value),
    )


def transport(offset: int, value: bytes, op: str = "==") -> Words:
    """Octets of the header above IP. Never true where the packet ends before them."""
    return (
        Payload(base="transport", offset=offset, length=len(value)),
        Compare(op=op, value=value),
    )


def between(low: int, high: int) -> Words:
    """The first octet above IP (an ICMP type) is in this range."""
    return (
        Payload(base="transport", offset=0, length=1),
        Compare(op=">=", value=bytes((low,))),
        Compare(op="<=", value=bytes((high,))),
    )


def masked(offset: int, mask: bytes, value: bytes, op: str = "==") -> Words:
    """Octets of the IP header under a mask."""
    return (
        Payload(base="network", offset=offset, length=len(mask)),
        Bitwise(mask=mask, xor=bytes(len(mask))),
        Compare(op=op, value=value),
    )


def has_header(kind: int) -> Words:
    """The IPv6 packet has an extension header of this kind."""
    return (ExtensionHeader(type=kind), Compare(op="==", value=b"\x01"))


def fragment_next(kind: bytes) -> Words:
    """The header that follows the IPv6 fragment header is of this kind."""
    return (
        ExtensionHeader(type=FRAGMENT, offset=0, present=False),
        Compare(op="==", value=kind),
    )


def later_fragment() -> Words:
    """An IPv6 fragment that is not the first of its packet."""
    return (
        ExtensionHeader(type=FRAGMENT, offset=2, length=2, present=False),
        Bitwise(mask=b"\xff\xf8", xor=bytes(2)),
        Compare(op="!=", value=bytes(2)),
    )


def invalid() -> Words:
    """Connection tracking cannot make sense of the packet, so it will not be translated."""
    return (
        Conntrack(key="state"),
        Bitwise(mask=_INVALID, xor=bytes(4)),
        Compare(op="!=", value=bytes(4)),
    )


def sender(version: int) -> Words:
    """Link, hardware address and IP source are listed in guard4 or guard6.

    Never true for what is not Ethernet. A concatenated key lies in consecutive registers of 4
    octets: the name in 0..3 (NFT_REG_1), the hardware address in 4..5 (from NFT_REG_2 on), the IP
    address from 6 on (NFT_REG32_06 is 14).
    """
    family, offset, length = {4: (ipv4(), 12, 4), 6: (ipv6(), 8, 16)}[version]
    return (
        Meta(key="iiftype"),
        Compare(op="==", value=_ETHERNET),
        *family,
        Meta(key="iifname"),
        Payload(base="link", offset=6, length=6, register=2),
        Payload(base="network", offset=offset, length=length, register=14),
        Lookup(set=f"guard{version}"),
    )


def receiver(version: int) -> Words:
    """Outgoing link and IP destination are listed in local4 or local6."""
    family, offset, length = {4: (ipv4(), 16, 4), 6: (ipv6(), 24, 16)}[version]
    return (
        *family,
        Meta(key="oifname"),
        Payload(base="network", offset=offset, length=length, register=2),
        Lookup(set=f"local{version}"),
    )


def led_in() -> Words:
    """The link is a bridge that lets packets for 127/8 in."""
    return (Meta(key="iifname"), Lookup(set=LOCALNET))


def to_own_side(version: int) -> Words:
    """The packet goes out by the link that the pod of its source is behind."""
    family, offset, length = {4: (ipv4(), 12, 4), 6: (ipv6(), 8, 16)}[version]
    return (
        *family,
        Meta(key="oifname"),
        Payload(base="network", offset=offset, length=length, register=2),
        Lookup(set=f"local{version}"),
    )


def arp_sender() -> Words:
    """Link, hardware and IPv4 address of an ARP message's sender are listed."""
    return (
        *network(0, _ARP_IPV4),
        Meta(key="iifname"),
        Payload(base="network", offset=8, length=6, register=2),
        Payload(base="network", offset=14, length=4, register=14),
        Lookup(set=ARP_GUARD),
    )


def leaver(version: int) -> Words:
    """Link and IP source are those of a pod behind an adopted link that is masqueraded."""
    family, offset, length = {4: (ipv4(), 12, 4), 6: (ipv6(), 8, 16)}[version]
    return (
        *family,
        Meta(key="iifname"),
        Payload(base="network", offset=offset, length=length, register=2),
        Lookup(set=OUT[version]),
    )


def translated() -> Words:
    """The packet is of a connection whose destination was translated."""
    return (
        Conntrack(key="status"),
        Bitwise(mask=_TRANSLATED, xor=bytes(4)),
        Compare(op="!=", value=bytes(4)),
    )


def address(side: str, version: int, name: str, *, inside: bool = True) -> Words:
    """The IP `saddr` or `daddr` is inside (or outside) the set `name` of this family."""
    offset, length = {
        ("saddr", 4): (12, 4),
        ("daddr", 4): (16, 4),
        ("saddr", 6): (8, 16),
        ("daddr", 6): (24, 16),
    }[side, version]
    return (
        Payload(base="network", offset=offset, length=length),
        Lookup(set=f"{name}{version}", invert=not inside),
    )
