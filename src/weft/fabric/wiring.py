"""The routed wiring of one attachment, as rows.

    pod namespace                         node
    eth0  10.244.0.5/32  fd..::5/128  ==  wfXXXXXXXXXXXXX   (no address)
      default via 169.254.1.1               10.244.0.5   dev wf... (permanent neighbour)
      default via fe80::1                   fd..::5      dev wf... (permanent neighbour)
      both gateways permanent at HOST_MAC

There is no shared layer 2: nothing a pod says by ARP or neighbour discovery is ever needed, so the
guards (`render.guards`) can refuse it. Sysctls repeat what the packet rules already enforce;
neither relies on the other. Pure: an attachment and the node's facts in, rows out. Next:
`drivers.engine` makes them true in the order of its stage table.
"""

from __future__ import annotations

import ipaddress

import msgspec

from weft.fabric.bandwidth import limits
from weft.model.attachment import (
    ADOPTED_GROUP,
    HOST_MAC,
    LIVE_GROUP,
    Adopted,
    Attachment,
    link_alias,
    mark_of,
)
from weft.model.bridge import bridge_mac
from weft.model.ports import PortMapping
from weft.rows.base import Place, Row
from weft.rows.links import PORT, Address, Adoption, Peer, Port, Sysctl, Up, Veth
from weft.rows.routes import SCOPE_LINK, Neighbour, Route

GATEWAY4 = bytes((169, 254, 1, 1))
GATEWAY6 = b"\xfe\x80" + bytes(13) + b"\x01"
GATEWAY4_TEXT = "169.254.1.1"
GATEWAY6_TEXT = "fe80::1"
ANY4 = bytes(4)
ANY6 = bytes(16)


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the wiring needs to know of the node."""

    ipv6_kernel: bool  # /proc/sys/net/ipv6 exists


def packed(address: str) -> bytes:
    """An address in network order: 4 or 16 octets."""
    return ipaddress.ip_address(address).packed


def link_local(mac: bytes) -> bytes:
    """The modified EUI-64 link-local address of a hardware address (RFC 4291 appendix A)."""
    head = bytes((mac[0] ^ 2,)) + mac[1:3]
    return b"\xfe\x80" + bytes(6) + head + b"\xff\xfe" + mac[3:6]


def wiring(attachment: Attachment, facts: NodeFacts) -> tuple[Row, ...]:
    """Every row of the attachment but its packet guards, host and pod."""
    addresses = [packed(a.address) for a in attachment.addresses]
    pod_link = attachment.key.ifname
    rows: list[Row] = [
        Veth(
            name=attachment.host_link,
            mac=HOST_MAC,
            mtu=attachment.mtu,
            alias=link_alias(attachment),
            group=LIVE_GROUP,
            peer=Peer(name=pod_link, mac=attachment.mac, mtu=attachment.mtu),
            master=0 if attachment.bridged is None else PORT,
        ),
        Up(place=Place.POD, link="lo"),
        Up(place=Place.POD, link=pod_link),
        Up(place=Place.HOST, link=attachment.host_link),
    ]
    if attachment.bridged is not None:
        bridge, isolated = attachment.bridged.bridge, attachment.bridged.isolated
        rows.append(Port(link=attachment.host_link, bridge=bridge, isolated=isolated))
    if attachment.bandwidth:
        rows += limits(attachment)
    has6 = any(len(ip) == 16 for ip in addresses)
    rows += _sysctls(attachment.host_link, pod_link, facts.ipv6_kernel, has6)
    if led_from_loopback(attachment):
        rows.append(route_localnet(attachment.host_link))
    for ip in addresses:
        rows += _address_rows(attachment, ip)
    if any(len(ip) == 4 for ip in addresses):
        rows += _gateway4(attachment, pod_link)
    if has6:
        rows += _gateway6(attachment, pod_link)
    return tuple(rows)


def adoption(attachment: Attachment, adopted: Adopted) -> tuple[Row, ...]:
    """The same of an attachment whose link another plugin made: the mark, the limits, what
    published ports need, and neighbours, so that the pod is never asked for its addresses. Those
    of a bridge are asked for, as by everybody else on it."""
    link = attachment.host_link
    rows: list[Row] = [
        Adoption(
            link=link,
            index=adopted.index,
            group=ADOPTED_GROUP,
            alias=mark_of(attachment),
            pod_link=attachment.key.ifname,
            pod_mac=attachment.mac,
            group_after=adopted.group,
            master=adopted.master,
        ),
        *limits(attachment),
    ]
    for each in attachment.addresses if not adopted.bridge else ():
        ip = packed(each.address)
        rows.append(Neighbour(place=Place.HOST, link=link, ip=ip, mac=attachment.mac))
    if led_from_loopback(attachment):
        sysctl = route_localnet(adopted.bridge or link)
        rows.append(msgspec.structs.replace(sysctl, after=adopted.localnet))
    return tuple(rows)


def led_from_loopback(attachment: Attachment) -> bool:
    """Whether a port of it is reached by 127.0.0.1."""
    return any(_from_loopback(mapping) for mapping in attachment.ports)


def _sysctls(host: str, pod: str, ipv6_kernel: bool, has6: bool) -> list[Row]:
    rows: list[Row] = []

    def put(place: Place, link: str, family: str, **values: int) -> None:
        rows.extend(
            Sysctl(
                place=place, path=f"net/{family}/conf/{link}/{name}", value=str(value), link=link
            )
            for name, value in values.items()
        )

    # rp_filter 1: the kernel, too, asks where a source would be answered (RFC 3704 section 2.2)
    put(Place.HOST, host, "ipv4", accept_redirects=0, forwarding=1, rp_filter=1)
    put(Place.POD, pod, "ipv4", accept_redirects=0)
    if not ipv6_kernel:
        return rows
    # addr_gen_mode 1: the kernel makes no link-local address of its own (IN6_ADDR_GEN_MODE_NONE)
    quiet = {"addr_gen_mode": 1, "accept_ra": 0, "autoconf": 0, "accept_redirects": 0}
    put(Place.HOST, host, "ipv6", **quiet)
    put(Place.POD, pod, "ipv6", **quiet)
    put(Place.POD, "lo", "ipv6", disable_ipv6=0)
    if has6:
        # some runtimes switch IPv6 off in new namespaces
        put(Place.HOST, host, "ipv6", disable_ipv6=0, forwarding=1)
        put(Place.POD, pod, "ipv6", disable_ipv6=0)
    return rows


def _from_loopback(mapping: PortMapping) -> bool:
    """Whether programs of the node may reach the port by 127.0.0.1."""
    return 4 in mapping.families and (mapping.every or mapping.host_ip.startswith("127."))


def route_localnet(link: str) -> Sysctl:
    """Lets the answers to 127.0.0.1 in, once connection tracking has turned them back; what a pod
    itself sends to or from 127/8 is dropped before (`render.ingress`)."""
    path = f"net/ipv4/conf/{link}/route_localnet"
    return Sysctl(place=Place.HOST, path=path, value="1", link=link)


def _address_rows(attachment: Attachment, ip: bytes) -> list[Row]:
    bits = len(ip) * 8
    host = attachment.host_link
    return [
        Address(
            place=Place.POD,
            link=attachment.key.ifname,
            ip=ip,
            prefix=prefix_length(attachment, len(ip) * 8),
        ),
        Neighbour(place=Place.HOST, link=host, ip=ip, mac=attachment.mac),
        Route(
            place=Place.HOST,
            link=host,
            dst=ip,
            prefix=bits,
            scope=SCOPE_LINK,
            src=_gateway_of(attachment) if len(ip) == 4 else None,
        ),
    ]


def prefix_length(attachment: Attachment, bits: int) -> int:
    """Of the subnet on the pod's link: the address alone, where what is beside it is not on-link.
    Isolated neighbours answer to ARP through the bridge, and to neighbour discovery not at all."""
    bridged = attachment.bridged
    if bridged is None:
        return bits
    if bits == 32:
        return ipaddress.ip_interface(bridged.gateway).network.prefixlen
    return bits if bridged.isolated else bridged.prefix6


def _gateway_of(attachment: Attachment) -> bytes | None:
    """The bridge's own IPv4 address, under which the node speaks to its containers."""
    bridged = attachment.bridged
    return packed(bridged.gateway.partition("/")[0]) if bridged and bridged.gateway else None


def _gateway_mac(attachment: Attachment) -> bytes:
    return HOST_MAC if attachment.bridged is None else bridge_mac(attachment.key.network)


def _gateway4(attachment: Attachment, link: str) -> list[Row]:
    if (gateway := _gateway_of(attachment)) is not None:
        mac = _gateway_mac(attachment)
        rows: list[Row] = [Neighbour(place=Place.POD, link=link, ip=gateway, mac=mac)]
        if attachment.via4:
            rows.append(Route(place=Place.POD, link=link, dst=ANY4, prefix=0, via=gateway))
        return rows
    if not attachment.via4:
        return []
    return [
        Neighbour(place=Place.POD, link=link, ip=GATEWAY4, mac=HOST_MAC),
        Route(place=Place.POD, link=link, dst=GATEWAY4, prefix=32, scope=SCOPE_LINK),
        Route(place=Place.POD, link=link, dst=ANY4, prefix=0, via=GATEWAY4),
    ]


def _gateway6(attachment: Attachment, link: str) -> list[Row]:
    local = link_local(attachment.mac)
    rows: list[Row] = [
        Address(place=Place.POD, link=link, ip=local, prefix=64, scope=SCOPE_LINK),
        Neighbour(place=Place.POD, link=link, ip=GATEWAY6, mac=_gateway_mac(attachment)),
    ]
    if attachment.via6:
        rows.append(Route(place=Place.POD, link=link, dst=ANY6, prefix=0, via=GATEWAY6))
        return rows
    for text in attachment.ranges6:
        network = ipaddress.ip_network(text)
        rows.append(
            Route(
                place=Place.POD,
                link=link,
                dst=network.network_address.packed,
                prefix=network.prefixlen,
                via=GATEWAY6,
            )
        )
    return rows
