"""Where benchmarks run: nodes of the lab on one switch, each with what it is there for.

A scene makes nodes when they are asked for and gives all of them back when it ends, however it
ends. What happens inside a node is done by its worker; the scene only asks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from bench.floor import Floor
from bench.sides import Side
from bench.worker import Worker
from weft.cni.install import DEFAULT_CONFLIST
from weft.lab import calls, cluster, nodes, wiring
from weft.lab.nodes import Node

CHAIN_BINS = "/usr/lib/cni"
CHAIN_RANGES = {4: "10.88.0.0/16", 6: "fd88::/64"}
SETTLE = 1.0


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds of so many turns, one sample of each side a turn; bursts;
    how many attachments a burst has; seconds after which no further burst begins; seconds of an
    idle window; seconds of a stream, and how many of each kind; processes at a time in a burst; the
    A/A bound; restarts; how often every kind of damage is done; attachments of a churn and how many
    of them live at a time."""

    rounds: int = 25
    turns: int = 4
    bursts: int = 3
    counts: tuple[int, ...] = (110, 500)
    budget: float = 120.0
    window: float = 60.0
    stream: float = 3.0
    streams: int = 2
    width: int = 16
    bound: float = 0.05
    restarts: int = 20
    damages: int = 3
    churn: int = 5000
    living: int = 1000


FULL = Effort()
QUICK = Effort(rounds=10, turns=3, bursts=1, counts=(110,), window=31.0, stream=1.5, streams=1,
               bound=0.10, restarts=4, damages=1, churn=600, living=200)  # fmt: skip


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A node, the addresses of its uplink, and its agent's process id (0: none)."""

    node: Node
    addresses: tuple[str, ...]
    agent: int = 0


class Scene:
    """Nodes of one run; use with `with`."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._stack = ExitStack()
        self._prefix = f"weft-bench-{os.getpid()}"
        self._count = 0

    def __enter__(self) -> Scene:
        self._wires = wiring.lay(self._prefix, tied=True)
        self._stack.callback(wiring.remove, self._wires)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def node(self, families: Sequence[int] = (4, 6), *, keep: Sequence[str] = ()) -> Place:
        """An empty node with an uplink."""
        index, self._count = self._count, self._count + 1
        made = nodes.start(f"{self._prefix}-{index}", tied=True, keep=keep)
        self._stack.callback(nodes.stop, made)
        wiring.connect(self._wires, made, index)
        found = wiring.node_addresses(index)
        addresses = tuple(a for a in found if (6 if ":" in a else 4) in families)
        return Place(node=made, addresses=addresses)

    @property
    def outside(self) -> str:
        """The network namespace of the host outside of all nodes."""
        return str(self._wires.outside.network)

    def with_agent(self, families: Sequence[int], more: str = "") -> Place:
        """A node with an agent of weft's; `more` settings, as the file has them."""
        place = self.node(families)
        names: dict[tuple[int, ...], cluster.Families] = {(4,): "ipv4", (6,): "ipv6"}
        settings = cluster.settings(names.get(tuple(families), "dual")) + more
        agent = cluster.start_agent(place.node, settings)
        return msgspec.structs.replace(place, agent=agent)

    def weft(self, families: Sequence[int]) -> Worker:
        """A worker beside an agent of weft's."""
        return self.beside(self.with_agent(families))

    def beside(self, place: Place, **keys: Any) -> Worker:
        """A worker that drives the launcher on this node; `keys` go into its configuration."""
        conflist = msgspec.json.decode(DEFAULT_CONFLIST)
        conflist["plugins"][0] |= keys
        return self._worker(place, Side, conflist, str(cluster.BINS), place.agent)

    def within(self, place: Place, make: Any, *arguments: Any) -> Worker:
        """A worker of another kind on this node: `make(*arguments)` is called there."""
        worker = Worker(place.node, make, *arguments)
        self._stack.callback(worker.close)
        return worker

    def without_agent(self) -> Worker:
        """A worker on a node with the launcher, where no agent runs."""
        place = self.node()
        calls.call(place.node, cluster._install, "")
        return self.beside(place)

    def chain(self, families: Sequence[int]) -> Worker:
        """A worker beside the reference chain."""
        return self._worker(self.node(families), Side, chain_conflist(families), CHAIN_BINS, 0)

    def floor(self, families: Sequence[int]) -> Worker:
        """A worker that is the floor."""
        return self._worker(self.node(families), Floor, list(families))

    def _worker(self, place: Place, make: Any, *arguments: Any) -> Worker:
        worker = Worker(place.node, make, *arguments, list(place.addresses))
        self._stack.callback(worker.close)
        return worker

    def settle(self) -> None:
        """Let the kernel finish what it does in the background."""
        time.sleep(SETTLE)


def chain_conflist(families: Sequence[int]) -> dict[str, Any]:
    """The reference chain as runtimes ship it: bridge, host-local, portmap, firewall."""
    routes = {4: "0.0.0.0/0", 6: "::/0"}
    return {
        "cniVersion": "1.0.0",
        "name": "chain",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": CHAIN_RANGES[family]}] for family in families],
                    "routes": [{"dst": routes[family]} for family in families],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall", "backend": "iptables"},
        ],
    }


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
