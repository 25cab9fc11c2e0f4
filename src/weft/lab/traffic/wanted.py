"""What traffic is asked for: who speaks to whom, how often, and for how long at most.

Crosses to the prober's process as JSON. Namespaces are paths as that process sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import msgspec


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who speaks and listens: a pod, or the world outside. Addresses without lengths."""

    name: str
    network: str
    addresses: tuple[str, ...]

    def address(self, family: int) -> str | None:
        """Its address of a family, 4 or 6; None where it has none."""
        return next((a for a in self.addresses if (":" in a) == (family == 6)), None)


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """From one network namespace to an address in another; answers come back the same way."""

    name: str
    origin: str
    goal: str
    address: str


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """An interface at which forged frames would be heard. `outgoing`: those that leave by it."""

    name: str
    network: str
    ifname: str = "eth0"
    outgoing: bool = False


class Liar(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that sends forged frames from its `eth0`, and honest ones between them.

    `victim` is another pod of the node; `claimed` are addresses of others that it takes as its own.
    """

    name: str
    network: str
    mac: str
    addresses: tuple[str, ...]
    victim: tuple[str, ...]
    outside: tuple[str, ...]
    claimed: tuple[str, ...] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic of one process. Rates are of all flows of a kind together, a second."""

    datagrams: tuple[Flow, ...] = ()
    datagram_rate: float = 1000.0
    streams: tuple[Flow, ...] = ()
    chunk_rate: float = 200.0  # of 1 KiB
    liars: tuple[Liar, ...] = ()
    forged_rate: float = 200.0
    listeners: tuple[Listener, ...] = ()
    patience: float = 15.0  # seconds in which every flow must have gone through once
    limit: float = 600.0  # seconds after which it ends by itself
    drain: float = 3.0  # seconds for what is under way when sending has ended


def flows(pods: Sequence[Peer], outside: Peer, count: int) -> tuple[Flow, ...]:
    """`count` flows, two of three between pods and one to the outside; families in turn."""
    made: list[Flow] = []
    families = cycle((4, 6))
    place = 0
    while len(made) < count:
        if place > 4 * count + 8:
            raise ValueError("these peers have no address in common")
        origin = pods[place % len(pods)]
        goal = outside if place % 3 == 2 else pods[(place + 1 + place // len(pods)) % len(pods)]
        place += 1
        family = next(families)
        address = goal.address(family)
        if origin is goal or address is None or origin.address(family) is None:
            continue
        name = f"{origin.name} to {goal.name}, IPv{family}"
        made.append(Flow(name=name, origin=origin.network, goal=goal.network, address=address))
    return tuple(made)
