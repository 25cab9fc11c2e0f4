"""What is asked of every frame that comes into a bridge by a container's port.

A bridge passes frames on before the inet family sees them, so what `render.ingress` asks of a
routed link is asked here of a port, and of ARP and neighbour discovery whose word counts on a
shared segment: nobody speaks for an address or hardware address that is not its own. Before
br_netfilter (NF_BR_PRI_BRNF is 0), so that it makes no difference. Ports are listed by name; on
somebody else's bridge only frames of the listed ports are looked at. Sources: RFC 826, 5227 (ARP
probes), 4861 sections 4.3, 4.4 and 7.1 (neighbour discovery), 4862 (duplicate addresses).

    from-ports -- port is listed -- IPv4 source listed -- listed4 ...   as in `render.ingress`
                                 -- IPv6 source listed -- listed6 ...   ND: solicits, advertises
                                 -- ARP                -- arp4
                                 -- unlisted
               -- a container's own link, which is a port of none: dropped
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.render import ingress
from weft.render import phrases as p
from weft.render.sets import TABLE
from weft.rows.rules import (
    Chain,
    Compare,
    Element,
    Expression,
    Family,
    Hook,
    Lookup,
    Meta,
    Payload,
    Rule,
    Set,
)

PORTS = "ports"
"""Ports of bridges whose frames are looked at."""
_GUARDS = {4: "guard4", 6: "guard6"}
_SOLICITORS, _ADVERTISED, _ADVERTISERS = "solicitors", "advertised", "advertisers"
_NF_BR_PRE_ROUTING = 0
_PRIORITY = -300  # NF_BR_PRI_NAT_DST_BRIDGED
_IPV4, _IPV6, _ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
_ETHERNET_IPV4 = (b"\x00\x01", b"\x08\x00", b"\x06", b"\x04")  # of an ARP packet, in its order
_OPTIONS = 24  # octets of a solicitation or advertisement before its first option
_SOURCE_MAC, _TARGET_MAC = b"\x01\x01", b"\x02\x01"  # options of one unit of 8 octets
_TARGET = 8

# a concatenated key, as in `phrases.sender`: the name from register 1 on, the hardware address
# from 2 on, the IP address from 14 on
_NAME = Meta(key="iifname")


def _ethernet(value: bytes) -> p.Words:
    # from the frame, not from the packet's metadata: there a VLAN tag hides its own type
    return (
        Payload(base="link", offset=12, length=2),
        Compare(op="==", value=value),
    )


def _from_frame() -> Expression:
    return Payload(base="link", offset=6, length=6, register=2)


def _listed(name: str, mac: Expression, base: str, offset: int) -> p.Words:
    """Port, a hardware address and the IP address at `offset` are listed together in the set."""
    length = 4 if name == _GUARDS[4] else 16
    ip = Payload(base=base, offset=offset, length=length, register=14)
    return (_NAME, mac, ip, Lookup(set=name))


def _sender(version: int) -> p.Words:
    """Port, the frame's hardware address and the packet's source are listed."""
    return _listed(_GUARDS[version], _from_frame(), "network", 12 if version == 4 else 8)


def _arp() -> tuple[Rule, ...]:
    told = Payload(base="network", offset=8, length=6, register=2)

    def own(offset: int) -> p.Words:
        # of both hardware addresses, the frame's and the one that it tells
        return (
            *_ethernet(_ARP),
            *_listed(_GUARDS[4], _from_frame(), "network", offset),
            *_listed(_GUARDS[4], told, "network", offset),
        )

    shapes = zip((0, 2, 4, 5), _ETHERNET_IPV4, strict=True)
    return (
        *((*p.network(offset, value, "!="), p.refuse("arp")) for offset, value in shapes),
        (*p.network(6, b"\x00\x02", ">"), p.refuse("arp")),  # neither question nor answer
        (*own(14), p.ACCEPT),
        # a probe: who asks about its own address has none yet
        (*p.network(14, bytes(4)), *own(24), p.ACCEPT),
        (p.refuse("arp"),),
    )


def _option() -> Expression:
    """The hardware address in the first option; a second one is not looked at by anybody."""
    return Payload(base="transport", offset=_OPTIONS + 2, length=6, register=2)


def _any_option() -> p.Words:
    # true for any octet: there is one
    return p.transport(_OPTIONS, b"\x00", ">=")


def _solicits() -> tuple[Rule, ...]:
    own = _listed(_SOLICITORS, _option(), "network", 8)
    return (
        (*_ethernet(_IPV6), *p.transport(_OPTIONS, _SOURCE_MAC), *own, p.ACCEPT),
        (*_any_option(), p.refuse("neighbours")),
        (p.ACCEPT,),
    )


def _advertises() -> tuple[Rule, ...]:
    own = _listed(_ADVERTISERS, _option(), "transport", _TARGET)
    return (
        (*p.transport(_OPTIONS, _TARGET_MAC), *own, *_target(), p.ACCEPT),
        (*_any_option(), p.refuse("neighbours")),
        (*_target(), p.ACCEPT),
        (p.refuse("neighbours"),),
    )


def _target() -> p.Words:
    """Port, the frame's hardware address and the target are listed."""
    return _listed(_ADVERTISED, _from_frame(), "transport", _TARGET)


def _unlisted() -> tuple[Rule, ...]:
    duplicate = (
        *_ethernet(_IPV6),
        *p.network(8, bytes(16)),
        *p.protocol(p.ICMP6),
        *p.transport(0, ingress.SOLICITATION),
        *_target(),
    )
    return (
        # whoever hears a source's hardware address in it has to ignore it (RFC 4861 section 7.1.1)
        (*duplicate, *p.transport(_OPTIONS, _SOURCE_MAC), p.refuse("neighbours")),
        (*duplicate, p.ACCEPT),
        (*_ethernet(_IPV4), *p.network(12, bytes(4)), p.refuse("unspecified")),
        (*_ethernet(_IPV6), *p.network(8, bytes(16)), p.refuse("unspecified")),
        (*_ethernet(_IPV4), p.refuse("spoofed")),
        (*_ethernet(_IPV6), p.refuse("spoofed")),
        (p.refuse("frames"),),
    )


def chains() -> tuple[Chain, ...]:
    """Chains in an order in which each one finds those that it refers to, but for `drop-...`."""

    def chain(name: str, *rules: Rule) -> Chain:
        return Chain(family=Family.BRIDGE, table=TABLE, name=name, rules=rules)

    neighbours: tuple[Rule, ...] = (
        (*p.transport(0, ingress.SOLICITATION), p.goto("solicits")),
        (*p.transport(0, ingress.ADVERTISEMENT), p.goto("advertises")),
    )
    return (
        chain("arp4", *_arp()),
        chain("solicits", *_solicits()),
        chain("advertises", *_advertises()),
        *ingress.listed(Family.BRIDGE, neighbours),
        chain("unlisted", *_unlisted()),
        chain(
            "port",
            (*_ethernet(_IPV4), *_sender(4), p.goto("listed4")),
            (*_ethernet(_IPV6), *_sender(6), p.goto("listed6")),
            (*_ethernet(_ARP), p.goto("arp4")),
            (p.goto("unlisted"),),
        ),
        Chain(
            family=Family.BRIDGE,
            table=TABLE,
            name="from-ports",
            hook=Hook(type="filter", number=_NF_BR_PRE_ROUTING, priority=_PRIORITY),
            rules=(
                (_NAME, Lookup(set=PORTS), p.goto("port")),
                (*p.of_our_group("iifgroup"), p.refuse("bridged")),
                (*p.of_adopted_group("iifgroup"), p.refuse("bridged")),
            ),
        ),
    )


def sets() -> tuple[Set, ...]:
    """The sets whose elements belong to one port each."""

    def of(name: str, *key_types: str, comment: str) -> Set:
        return Set(
            family=Family.BRIDGE, table=TABLE, name=name, key_types=key_types, comment=comment
        )

    mac, target = f"@th,{_OPTIONS * 8 + 16},48", f"@th,{_TARGET * 8},128"
    out = "what may come out of a pod"
    return (
        of(PORTS, "ifname", comment="ports of bridges that lead to pods"),
        of(_GUARDS[4], "ifname", "ether_addr", "ipv4_addr", comment=out),
        of(_GUARDS[6], "ifname", "ether_addr", "ipv6_addr", comment=out),
        of(_SOLICITORS, "ifname", mac, "ipv6_addr", comment="who a pod may say that it is"),
        of(_ADVERTISED, "ifname", "ether_addr", target, comment="what a pod may advertise"),
        of(_ADVERTISERS, "ifname", mac, target, comment="what a pod may advertise, and where"),
    )


def elements(
    port: str, mac: bytes, addresses: Sequence[bytes], link_local: bytes | None
) -> tuple[Element, ...]:
    """The elements of one container behind `port`, whosesoever the bridge is: arguments as those
    of `guards.elements`."""
    link = port.encode()

    def of(name: str, *parts: bytes) -> Element:
        return Element(family=Family.BRIDGE, table=TABLE, set=name, parts=parts)

    rows = [of(PORTS, link)]
    for ip in addresses if link_local is None else (*addresses, link_local):
        if len(ip) == 4:
            rows.append(of(_GUARDS[4], link, mac, ip))
        else:
            names = (_GUARDS[6], _SOLICITORS, _ADVERTISED, _ADVERTISERS)
            rows += [of(name, link, mac, ip) for name in names]
    return tuple(rows)
