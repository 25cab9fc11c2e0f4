"""The load of T13, T14 and T40: what must go on between pods while an agent comes and goes.

50 numbered flows at 1,000 datagrams a second together, 20 streams, and one liar whose frames must
reach nobody. `Watch` listens to the kernel's own notifications, so that an agent which rewrites
what is right is found out also where no packet was lost.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from acceptance import Answer, Host
from weft.lab.traffic.wanted import Liar, Listener, Peer, Wanted, flows
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses

FLOWS, STREAMS = 50, 20
RATE = 1000.0
FORGED_RATE = 250.0
OUTSIDE = (OUTSIDE_V4, OUTSIDE_V6)


def load(host: Host, pods: dict[str, Answer], *, limit: float = 3600.0) -> Wanted:
    """The whole load over these pods, which ADD has answered so; the first of them is the liar."""
    peers = [
        Peer(name=name, network=str(host.network(name)), addresses=tuple(said.addresses))
        for name, said in pods.items()
    ]
    outside = Peer(name="outside", network=str(host.wires.outside.network), addresses=OUTSIDE)
    liar, victim, *others = peers
    lying = Liar(
        name=liar.name,
        network=liar.network,
        mac=_mac(pods[liar.name]),
        addresses=liar.addresses,
        victim=victim.addresses,
        outside=OUTSIDE,
        claimed=(*node_addresses(0), *others[0].addresses),
    )
    return Wanted(
        datagrams=flows(peers, outside, FLOWS),
        datagram_rate=RATE,
        streams=flows(peers, outside, STREAMS),
        liars=(lying,),
        forged_rate=FORGED_RATE,
        listeners=(
            Listener(name="victim", network=victim.network),
            Listener(name="outside", network=outside.network),
            Listener(name="uplink", network=str(host.node.network), outgoing=True),
        ),
        limit=limit,
    )


def _mac(said: Answer) -> str:
    inside = [each for each in (said.json or {})["interfaces"] if each.get("sandbox")]
    return str(inside[0]["mac"])


MARKS = ("203.0.113.200", "weft-watch")


class Watch:
    """What the kernel told of changes of links, addresses, routes and packet rules."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._children: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes]] = []
        for argv in (["ip", "-o", "monitor", "link", "address", "route"], ["nft", "monitor"]):
            said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._said.append(said)
            self._children.append(
                host.node.popen(argv, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
            )
        self._mark()  # both listen from here on
        self._began = [len(text) for text in self._read()]

    def changes(self) -> list[str]:
        """What was told until now. Both listeners are seen to hear a change of the test's own."""
        self._mark()
        return [
            line
            for text, began in zip(self._read(), self._began, strict=True)
            for line in text[began:].splitlines()
            if line.strip() and not any(mark in line for mark in MARKS)
        ]

    def _mark(self) -> None:
        counts = [text.count(mark) for text, mark in zip(self._read(), MARKS, strict=True)]
        deadline = time.monotonic() + 20
        while True:
            self._host.shell(
                f"ip route add blackhole {MARKS[0]}; ip route del blackhole {MARKS[0]}; "
                f"nft add table ip {MARKS[1]}; nft delete table ip {MARKS[1]}"
            )
            time.sleep(0.05)
            texts = zip(self._read(), MARKS, counts, strict=True)
            if all(text.count(mark) > count + 1 for text, mark, count in texts):
                return
            assert time.monotonic() < deadline, "changes are not heard"

    def _read(self) -> list[str]:
        found = []
        for said in self._said:
            size = os.fstat(said.fileno()).st_size
            found.append(os.pread(said.fileno(), size, 0).decode(errors="replace"))
        return found

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        for said in self._said:
            said.close()


@contextmanager
def watching(host: Host) -> Iterator[Watch]:
    """A watch that is ended whatever happens."""
    watch = Watch(host)
    try:
        yield watch
    finally:
        watch.close()


def rewritten(changes: Sequence[str]) -> list[str]:
    """Those that concern what weft holds: our tables, links and routes.

    Taking a table over (`add table`) writes nothing into it, and a new generation says only that
    there was a transaction.
    """
    quiet = ("# new generation", "add table ")
    return [line for line in changes if not line.startswith(quiet)]
