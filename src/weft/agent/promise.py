"""Every row of an attachment, computed from its record and the node: what ADD makes, CHECK compares
and a start takes for standing."""

from __future__ import annotations

from weft.agent.node import Node
from weft.fabric.bridging import bridge_rows
from weft.fabric.wiring import adoption, led_from_loopback, link_local, packed, wiring
from weft.model.attachment import Attachment
from weft.model.bridge import Bridged
from weft.render import adopted, bridge_guards, egress, guards, published, sets
from weft.rows.base import Row
from weft.rows.rules import Family


def rows_of(attachment: Attachment, node: Node) -> tuple[Row, ...]:
    """Its guards, its ports, the elements that lead to its egress list, and its wiring."""
    ips = [packed(a.address) for a in attachment.addresses]
    local = link_local(attachment.mac) if any(len(ip) == 16 for ip in ips) else None
    of_link = attachment.host_link, attachment.mac, ips, local, attachment.masquerade
    ports = published.elements(attachment.ports, ips)
    if attachment.egress:
        ports += egress.members(ips, attachment.egress)
    found = attachment.adopted
    if found is None:
        wired = wiring(attachment, node.facts.wiring)
        if attachment.bridged is not None:
            return _on_bridge(attachment, attachment.bridged, ips, local) + ports + wired
        return guards.elements(*of_link) + ports + wired
    if not found.bridge:
        return adopted.elements(*of_link) + ports + adoption(attachment, found)
    behind = adopted.of_port(
        attachment.host_link,
        found.bridge,
        attachment.mac,
        ips,
        local,
        masquerade=attachment.masquerade,
        loopback=led_from_loopback(attachment),
    )
    return behind + ports + adoption(attachment, found)


def _on_bridge(
    attachment: Attachment, bridged: Bridged, ips: list[bytes], local: bytes | None
) -> tuple[Row, ...]:
    """What comes from the pod comes by its bridge; what goes to it goes by its port."""
    link, mac = attachment.host_link, attachment.mac
    from_bridge = adopted.members(bridged.bridge, mac, ips, local, attachment.masquerade)
    to_port = tuple(sets.local(link.encode(), ip) for ip in ips)
    return from_bridge + to_port + bridge_guards.elements(link, mac, ips, local)


def rows_of_bridge(network: str, bridged: Bridged, node: Node) -> tuple[Row, ...]:
    """What the attachments of a network share on its bridge."""
    name = bridged.bridge.encode()
    marks = [sets.adopted(family, name) for family in (Family.INET, Family.ARP)]
    if not bridged.isolated:
        marks.append(sets.segment(name))
    return *marks, *bridge_rows(network, bridged, ipv6_kernel=node.facts.wiring.ipv6_kernel)
