"""Every row of an attachment, computed from its record and the node: what ADD makes, CHECK compares
and a start takes for standing."""

from __future__ import annotations

from weft.agent.node import Node
from weft.fabric.wiring import adoption, led_from_loopback, link_local, packed, wiring
from weft.model.attachment import Attachment
from weft.render import adopted, egress, guards, published
from weft.rows.base import Row


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
        return guards.elements(*of_link) + ports + wiring(attachment, node.facts.wiring)
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
