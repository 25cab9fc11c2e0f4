"""Who reaches whom in a lab: what is expected beside what is observed.

Every pair of pods, nodes and the outside host, in every family, by TCP, UDP and ICMP at full
size. Where nothing is expected to pass, an ear at the receiver's interface must stay silent: a
client's time-out proves nothing. Expectations are those of this release: pods reach the pods
of their own node, their node, and the outside from behind the node's address. Pods of other
nodes are not routed yet, so they are expected to be out of reach, and the table says so.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec

from weft.lab import ears, entering, probes, wiring
from weft.lab.cluster import Lab
from weft.lab.probes import Heard

PROTOCOLS = ("tcp", "udp", "icmp")
SILENCE = 0.4
WORKERS = 24  # most of the time is silence that is listened to
FULL = 1400


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a probe. `node`: the index of the node it belongs to; -1 for the outside."""

    name: str
    network: Path
    node: int
    addresses: tuple[str, ...]
    is_pod: bool = False


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One probe. `why` explains an expectation of silence, or what was seen instead."""

    origin: str
    goal: str
    family: int
    protocol: str
    expected: bool
    observed: bool
    why: str = ""

    @property
    def is_right(self) -> bool:
        return self.expected == self.observed


def ends(lab: Lab) -> list[End]:
    """All ends of the lab's probes."""
    on = wiring.FAMILIES[lab.families]
    found = []
    for entry in lab.nodes:
        for pod in entry.pods:
            found.append(
                End(
                    name=f"{entry.name}/{pod.name}",
                    network=entry.node.pod_network(pod.name),
                    node=entry.index,
                    addresses=pod.addresses,
                    is_pod=True,
                )
            )
    for entry in lab.nodes:
        own = [wiring.node_addresses(entry.index)[family == 6] for family in on]
        found.append(
            End(
                name=entry.name,
                network=entry.node.network,
                node=entry.index,
                addresses=tuple(own),
            )
        )
    if lab.wires is not None:
        outside = [wiring.OUTSIDE_V4 if family == 4 else wiring.OUTSIDE_V6 for family in on]
        found.append(
            End(
                name="outside",
                network=lab.wires.outside.network,
                node=-1,
                addresses=tuple(outside),
            )
        )
    return found


def expectation(origin: End, goal: End) -> tuple[bool, str]:
    """Whether the goal should be reached, and why not."""
    if not goal.is_pod:
        return True, ""
    if origin.node == goal.node:
        return True, ""
    if origin.node == -1:
        return False, "pods are not reachable from outside of their node"
    return False, "pods of other nodes are not routed in this release"


def observe(lab: Lab) -> list[Cell]:
    """Probe all pairs, several at a time; a thread may be in a namespace of its own."""
    everyone = ends(lab)
    pairs = [
        (origin, goal, address)
        for origin in everyone
        for goal in everyone
        if origin.name != goal.name
        for address in goal.addresses
        if any((":" in own) == (":" in address) for own in origin.addresses)
    ]
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        return [cell for cells in pool.map(lambda p: list(_cells(*p)), pairs) for cell in cells]


def _cells(origin: End, goal: End, address: str) -> Iterator[Cell]:
    expected, reason = expectation(origin, goal)
    for protocol in PROTOCOLS:
        if expected:
            heard = _reach(protocol, origin, goal, address)
            observed, why = heard.answered, heard.why
        else:
            observed = _arrives(protocol, origin, goal, address)
            why = "arrived at the receiver's interface" if observed else reason
        yield Cell(
            origin=origin.name,
            goal=goal.name,
            family=probes.family_of(address),
            protocol=protocol,
            expected=expected,
            observed=observed,
            why=why,
        )


def _reach(protocol: str, origin: End, goal: End, address: str) -> Heard:
    if protocol == "tcp":
        return probes.tcp(origin.network, goal.network, address)
    if protocol == "udp":
        return probes.udp(origin.network, goal.network, address, size=FULL)
    return probes.icmp(origin.network, address, size=FULL)


def _arrives(protocol: str, origin: End, goal: End, address: str) -> bool:
    """Whether anything of a probe is seen at the goal's interface."""
    with ears.Ear(goal.network) as ear:
        if protocol == "tcp":
            return _syn_arrives(ear, origin, goal, address)
        mark = ears.nonce()
        if protocol == "udp":
            probes.udp(
                origin.network, goal.network, address, size=FULL, patience=SILENCE, mark=mark
            )
        else:
            probes.icmp(origin.network, address, size=FULL, patience=SILENCE, mark=mark)
        return bool(ear.heard([mark]))


def _syn_arrives(ear: ears.Ear, origin: End, goal: End, address: str) -> bool:
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        closing(entering.socket_in(goal.network, kind, socket.SOCK_STREAM)) as server,
        closing(entering.socket_in(origin.network, kind, socket.SOCK_STREAM)) as client,
    ):
        server.bind(("", 0))
        server.listen(1)
        client.bind(("", 0))
        client.setblocking(False)
        port = server.getsockname()[1]
        client.connect_ex((address, port))
        ports = struct.pack("!HH", client.getsockname()[1], port)
        return ear.hears(ports, SILENCE) is not None
