"""The lab's cables: nodes on one switch, and a host outside of them.

      outside .1 ----+
                     |  switch (a bridge in a namespace of its own)
      node 1 .11 ----+        198.51.100.0/24 and 2001:db8:51::/64,
      node 2 .12 ----+        the ranges kept for documentation

Every node's default route points to the outside host, which answers probes and forwards
nothing. Only addresses of the nodes have a way back: a pod's packet reaches the outside and is
answered only behind the node's address, as it would be on a real network.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from weft.lab import entering, nodes
from weft.lab.entering import ip_batch
from weft.lab.nodes import Node

OUTSIDE_V4 = "198.51.100.1"
OUTSIDE_V6 = "2001:db8:51::1"
FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}


class Wires(msgspec.Struct, frozen=True, kw_only=True):
    """The namespaces around the nodes."""

    switch: Node
    outside: Node


def node_addresses(index: int) -> tuple[str, str]:
    """The uplink's IPv4 and IPv6 address of the node of that index, counted from 0."""
    return f"198.51.100.{11 + index}", f"2001:db8:51::{11 + index:x}"


def lay(prefix: str, *, tied: bool, families: tuple[int, ...] = (4, 6)) -> Wires:
    """Make the switch and the outside host."""
    switch = nodes.start(f"{prefix}-switch", mounts=False, tied=tied)
    outside = nodes.start(f"{prefix}-outside", mounts=False, tied=tied)
    ip_batch(switch.network, "link add br0 type bridge forward_delay 0\nlink set br0 up\n")
    wires = Wires(switch=switch, outside=outside)
    _plug(wires, outside, "outside", (OUTSIDE_V4, OUTSIDE_V6), families)
    return wires


def connect(
    wires: Wires, node: Node, index: int, *, families: tuple[int, ...] = (4, 6), mtu: int = 1500
) -> None:
    """Give the node its uplink `eth0`, addresses and default routes."""
    _plug(wires, node, f"node{index}", node_addresses(index), families, mtu)
    lines = []
    if 4 in families:
        lines.append(f"route add default via {OUTSIDE_V4} dev eth0")
    if 6 in families:
        lines.append(f"route add ::/0 via {OUTSIDE_V6} dev eth0")
    ip_batch(node.network, "\n".join(lines) + "\n")


def _plug(
    wires: Wires,
    node: Node,
    port: str,
    addresses: tuple[str, str],
    families: tuple[int, ...],
    mtu: int = 1500,
) -> None:
    ip_batch(
        wires.switch.network,
        f"link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {node.pid}\n"
        f"link set {port} master br0 up\n",
    )
    with entering.network(node.network):
        # a link-local address that becomes usable a second later would look like a leak
        Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0")
    lines = []
    if 4 in families:
        lines.append(f"addr add {addresses[0]}/24 dev eth0")
    if 6 in families:
        lines.append(f"addr add {addresses[1]}/64 dev eth0 nodad")
    lines.append("link set eth0 up")
    ip_batch(node.network, "\n".join(lines) + "\n")


def remove(wires: Wires) -> None:
    """Give switch and outside back."""
    nodes.stop(wires.outside)
    nodes.stop(wires.switch)
