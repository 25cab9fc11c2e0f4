"""Ports of the node that lead to pods: chains of every node, elements of one attachment.

    prerouting, output -- destination is an address of this node -- published
    published          -- ::1: (protocol, port) in loopback6, and no further
                          (address, protocol, port) in hostports4/6, (protocol, port) in ports4/6
                          -> new destination from the map's data
    postrouting        -- back: from 127.0.0.1, or from the pod to itself: masqueraded

One look-up whatever is published, and an attachment comes and goes by elements: no rule is
touched. Only packets for addresses that the node has (fib type local) are looked at, so traffic to
others is never taken (CVE-2025-67499). Clients keep their address: the answer comes back through
the node's connection tracking anyway. Two senders cannot: 127.0.0.1, which no other host may
answer to, and the pod itself, which would answer to itself without the node. ::1 is not translated
to a pod, because the answer would have no route; where a relay leads it, to a port of the relay's.
Sources: nftables' nat and fib expressions; IANA protocol numbers; `net/ipv4/conf/*/route_localnet`.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping, Sequence

from weft.model.ports import PROTOCOLS, PortMapping, Protocol
from weft.render import phrases as p
from weft.render.sets import HOST_PORTS, LOOPBACK, PORTS, TABLE
from weft.rows.rules import (
    Chain,
    Compare,
    DestinationNat,
    Element,
    Family,
    Fib,
    Hook,
    Lookup,
    Masquerade,
    Meta,
    Payload,
    Rule,
)

_PRE_ROUTING, _OUTPUT, _POST_ROUTING = 0, 3, 4  # NF_INET_*
_DSTNAT = -100  # NF_IP_PRI_NAT_DST
_SRCNAT = 99  # before `outbound`, at NF_IP_PRI_NAT_SRC: the first translation of a hook stands
_LOCAL = struct.pack("=I", 2)  # RTN_LOCAL, in the host's order
_LOOPBACK4 = b"\x7f"
_LOOPBACK6 = bytes(15) + b"\x01"
_NFPROTO = {4: 2, 6: 10}
_DADDR = {4: (16, 4), 6: (24, 16)}
# registers: 1 is octets 0..15; 9 and 10 its second and third word; 2 and 13 the words after it
_DATA_PORT = {4: 9, 6: 2}
_NAMES: Mapping[int, Protocol] = {number: name for name, number in PROTOCOLS.items()}


def chains() -> tuple[Chain, ...]:
    """The chains of a node, each after those that it refers to."""
    return (
        _chain("published", (*_lookups(4), *_by_loopback(), *_lookups(6))),
        _chain("back-adopted", _back_adopted()),
        _base("to-published", _PRE_ROUTING, _DSTNAT, (_published(),)),
        _base("own-to-published", _OUTPUT, _DSTNAT, (_published(),)),
        _base("back", _POST_ROUTING, _SRCNAT, _back()),
    )


def _chain(name: str, rules: tuple[Rule, ...], hook: Hook | None = None) -> Chain:
    return Chain(family=Family.INET, table=TABLE, name=name, hook=hook, rules=rules)


def _base(name: str, number: int, priority: int, rules: tuple[Rule, ...]) -> Chain:
    return _chain(name, rules, Hook(type="nat", number=number, priority=priority))


def _published() -> Rule:
    return (
        Fib(result="type", flags=("daddr",)),
        Compare(op="==", value=_LOCAL),
        p.jump("published"),
    )


def _lookups(version: int) -> tuple[Rule, ...]:
    family = p.ipv4() if version == 4 else p.ipv6()
    offset, length = _DADDR[version]
    nat = _to_data(version)
    after = (9, 10) if version == 4 else (2, 13)
    return (
        (
            *family,
            Payload(base="network", offset=offset, length=length),
            Meta(key="l4proto", register=after[0]),
            Payload(base="transport", offset=2, length=2, register=after[1]),
            Lookup(set=HOST_PORTS[version], data_register=1),
            nat,
        ),
        (
            *family,
            Meta(key="l4proto"),
            Payload(base="transport", offset=2, length=2, register=9),
            Lookup(set=PORTS[version], data_register=1),
            nat,
        ),
    )


def _by_loopback() -> tuple[Rule, ...]:
    here = (*p.ipv6(), *p.network(_DADDR[6][0], _LOOPBACK6))
    return (
        (
            *here,
            Meta(key="l4proto"),
            Payload(base="transport", offset=2, length=2, register=9),
            Lookup(set=LOOPBACK, data_register=1),
            _to_data(6),
        ),
        (*here, p.RETURN),
    )


def _to_data(version: int) -> DestinationNat:
    """Address and port from a map's data in register 1."""
    return DestinationNat(
        family=_NFPROTO[version],
        address_low_register=1,
        address_high_register=1,
        port_low_register=_DATA_PORT[version],
        port_high_register=_DATA_PORT[version],
    )


def relayed(ports: Iterable[tuple[int, int, int]]) -> tuple[Element, ...]:
    """The elements for a relay: protocol, published port, and its own port on ::1."""
    return tuple(
        Element(
            family=Family.INET,
            table=TABLE,
            set=LOOPBACK,
            parts=(bytes((protocol,)), number.to_bytes(2, "big")),
            data=_LOOPBACK6 + own.to_bytes(2, "big") + b"\0\0",
        )
        for protocol, number, own in ports
    )


def _back() -> tuple[Rule, ...]:
    return (
        (*p.not_named("oifname"), p.goto("back-adopted")),
        (*p.ipv4(), *p.network(12, _LOOPBACK4), Masquerade()),
        # of what was translated only: a bridge is the way in of all of its pods
        *((*p.translated(), *_to_itself(version), Masquerade()) for version in (4, 6)),
    )


def _back_adopted() -> tuple[Rule, ...]:
    return (
        (*p.network(12, _LOOPBACK4), *p.receiver(4), Masquerade()),
        *((*p.translated(), *_to_itself(version), Masquerade()) for version in (4, 6)),
        # where br_netfilter is on, what stays on a bridge is passed on by it, and has no incoming
        # link here
        *(
            (*p.translated(), *p.to_own_side(version), *p.receiver(version), Masquerade())
            for version in (4, 6)
        ),
    )


def _to_itself(version: int) -> p.Words:
    """The packet goes to the address of the pod behind the link that it came from."""
    offset, length = _DADDR[version]
    return (
        *(p.ipv4() if version == 4 else p.ipv6()),
        Meta(key="iifname"),
        Payload(base="network", offset=offset, length=length, register=2),
        Lookup(set=f"local{version}"),
    )


def elements(ports: Iterable[PortMapping], addresses: Sequence[bytes]) -> tuple[Element, ...]:
    """The elements of one attachment: each port leads to its first address of each family."""
    first: dict[int, bytes] = {}
    for ip in addresses:
        first.setdefault(4 if len(ip) == 4 else 6, ip)
    return tuple(
        _element(mapping, version, first[version])
        for mapping in ports
        for version in mapping.families
        if version in first
    )


def _element(mapping: PortMapping, version: int, ip: bytes) -> Element:
    key: tuple[bytes, ...] = (
        bytes((PROTOCOLS[mapping.protocol],)),
        mapping.host_port.to_bytes(2, "big"),
    )
    name = PORTS[version]
    if not mapping.every:
        key = (_packed(mapping.host_ip), *key)
        name = HOST_PORTS[version]
    return Element(
        family=Family.INET,
        table=TABLE,
        set=name,
        parts=key,
        data=ip + mapping.container_port.to_bytes(2, "big") + b"\0\0",
    )


def _packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def mappings_of(found: Iterable[Element], addresses: Sequence[bytes]) -> tuple[PortMapping, ...]:
    """What elements of the maps publish for the pod that has `addresses`: the way back from the
    kernel, for a journal that was lost. A port that is in the maps of both families, or of the
    only one that the pod has, was asked for on every address."""
    own = set(addresses)
    families = {4 if len(ip) == 4 else 6 for ip in addresses}
    every: dict[tuple[Protocol, int, int], set[int]] = {}
    mappings: list[PortMapping] = []
    for element in found:
        version = next((v for v in (4, 6) if element.set in (PORTS[v], HOST_PORTS[v])), None)
        if version is None or element.data is None:
            continue
        size = 4 if version == 4 else 16
        ip, inner = element.data[:size], int.from_bytes(element.data[size : size + 2], "big")
        protocol = _NAMES.get(element.parts[-2][0])
        if ip not in own or protocol is None:
            continue
        port = int.from_bytes(element.parts[-1], "big")
        if element.set == PORTS[version]:
            every.setdefault((protocol, port, inner), set()).add(version)
        else:
            mappings.append(_mapping(protocol, port, inner, _text(element.parts[0])))
    for (protocol, port, inner), versions in every.items():
        single = "0.0.0.0" if versions == {4} else "::"  # noqa: S104
        mappings.append(_mapping(protocol, port, inner, "" if versions == families else single))
    return tuple(sorted(mappings))


def _mapping(protocol: Protocol, port: int, inner: int, ip: str) -> PortMapping:
    return PortMapping(protocol=protocol, host_port=port, container_port=inner, host_ip=ip)


def _text(ip: bytes) -> str:
    return str(ipaddress.ip_address(ip))
