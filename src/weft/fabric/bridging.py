"""The bridge of a network, as rows: the node's end of a subnet that its containers share.

    pod namespace                    node
    eth0  10.22.0.5/16      ====  wfXXXXXXXXXXXXX -- port -- wnXXXXXXXXXXXXX  10.22.0.1/16
      default via 10.22.0.1           10.22.0.5 dev wf... (route and permanent neighbour)

What comes out of a pod passes the bridge; what goes to it is routed to its port and passes none, so
that the node's hooks see every packet whatever br_netfilter does: after destination translation
the way out is never the bridge that a packet came in by. Isolated ports cannot reach each other;
the bridge answers ARP for them (proxy_arp: they are reached by other links than it), and in IPv6
nothing but the gateway is on-link. Not isolated, the bridge is one broadcast domain, and answers
for itself alone.
Source: net/ipv4/arp.c (arp_fwd_proxy), net/bridge/br_netfilter_hooks.c. Pure.
"""

from __future__ import annotations

import ipaddress

from weft.model.attachment import LIVE_GROUP
from weft.model.bridge import Bridged, bridge_alias, bridge_mac
from weft.rows.base import Place, Row
from weft.rows.links import Address, Bridge, Sysctl, Up


def bridge_rows(network: str, bridged: Bridged, *, ipv6_kernel: bool) -> tuple[Row, ...]:
    """Everything that the attachments of a network share on its bridge."""
    name = bridged.bridge
    rows: list[Row] = [
        Bridge(
            name=name,
            mac=bridge_mac(network),
            alias=bridge_alias(network, bridged),
            group=LIVE_GROUP,
        ),
        Up(place=Place.HOST, link=name),
    ]
    if bridged.gateway:
        gateway = ipaddress.ip_interface(bridged.gateway)
        prefix = gateway.network.prefixlen
        rows.append(Address(place=Place.HOST, link=name, ip=gateway.ip.packed, prefix=prefix))
    return (*rows, *_sysctls(name, bridged, ipv6_kernel))


def _sysctls(name: str, bridged: Bridged, ipv6_kernel: bool) -> list[Row]:
    rows: list[Row] = []

    def put(family: str, where: str = "conf", **values: int) -> None:
        rows.extend(
            Sysctl(
                place=Place.HOST,
                path=f"net/{family}/{where}/{name}/{key}",
                value=str(value),
                link=name,
            )
            for key, value in values.items()
        )

    # rp_filter 2: the way back to a source is its port, not the bridge; whose it is the guards ask.
    # route_localnet: for answers of published ports; 127/8 from pods is dropped before.
    put(
        "ipv4",
        accept_redirects=0,
        send_redirects=0,
        forwarding=1,
        rp_filter=2,
        proxy_arp=int(bridged.isolated),
        route_localnet=1,
    )
    put("ipv4", "neigh", proxy_delay=0)
    if ipv6_kernel:
        put("ipv6", addr_gen_mode=1, accept_ra=0, autoconf=0, accept_redirects=0)
    if ipv6_kernel and bridged.prefix6:
        put("ipv6", disable_ipv6=0, forwarding=1)
    return rows
