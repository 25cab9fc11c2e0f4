"""Clients and servers of `traffic` inside a node, and two namespaces that are wired by hand.

The wiring is weft's without its rules: addresses of one host, a gateway that is a permanent
neighbour, and routes to the host's ends of the pairs.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench.network import CONTAINER_PORT
from bench.programs import compiled
from weft.lab import entering
from weft.model.errors import WeftError

KINDS = {"connect": 1, "request": 1, "stream": 10**9}
"""What is measured, and how many of the program's counts are one unit."""
HAND = {4: ("10.250.0.1", "10.250.0.2"), 6: ("fd25::1", "fd25::2")}
_PORTS = {kind: CONTAINER_PORT + at for at, kind in enumerate(KINDS)}
_SOURCE = Path(__file__).with_suffix(".c")
_CLIENT = 0
"""The processor of all clients. A server is on the same or on the next."""
_PATIENCE = 10.0
_TRACKING = (
    "table inet tracking { chain forward { type filter hook forward priority filter; "
    "ct state invalid drop; }; }"
)


class Way(NamedTuple):
    """From a namespace to a server that listens on an address of another, by an address and, if it
    is not the server's own, a port."""

    origin: str
    goal: str
    listens: str
    address: str
    port: int = 0


class Load:
    """See above."""

    def __init__(self) -> None:
        self._program = compiled("load", _SOURCE.read_text())
        self._servers: dict[tuple[str, str, str], subprocess.Popen[str]] = {}

    def wire(self, tracking: bool) -> list[str]:
        """Make the two namespaces, `tracking`: with one rule that needs connection tracking."""
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        if tracking:
            subprocess.run(["nft", _TRACKING], check=True, capture_output=True, timeout=20)
        return [_wired(number) for number in range(2)]

    def sample(self, kind: str, apart: bool, seconds: float, way: list[str | int]) -> float:
        """Seconds for one unit of this kind, of a client that goes on for `seconds`; `apart`:
        client and server have a processor each."""
        to = Way(*way)  # type: ignore[arg-type]  # as it came through the pipe
        self._serve(kind, apart, to)
        port = to.port or _PORTS[kind]
        with entering.network(to.origin):
            done = subprocess.run(
                [self._program, "ask", kind, to.address, str(port), str(_CLIENT), str(seconds)],
                capture_output=True,
                text=True,
                timeout=seconds + _PATIENCE,
            )
        if done.returncode != 0:
            raise WeftError(f"{kind} to {to.address} port {port}: {done.stderr.strip()}")
        count, nanoseconds = map(int, done.stdout.split())
        return nanoseconds / 1e9 / count * KINDS[kind]

    def _serve(self, kind: str, apart: bool, to: Way) -> None:
        """Have a server there; it stays until `end`."""
        processor = _CLIENT + apart
        place = (kind, to.goal, to.listens)
        if place in self._servers:
            os.sched_setaffinity(self._servers[place].pid, {processor})
            return
        with entering.network(to.goal):
            server = subprocess.Popen(
                [self._program, "serve", kind, to.listens, str(_PORTS[kind]), str(processor)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._servers[place] = server
        said = server.stdout.readline().strip() if server.stdout else ""
        if said != "ready":
            raise WeftError(f"the server of {kind} on {to.listens} says {said!r}")

    def end(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.kill()
            server.communicate()
        self._servers.clear()


def _wired(number: int) -> str:
    """One of the two; it ends with the node."""
    path = entering.create(Path(f"/run/netns/hand{number}"))
    host, four, six = f"hand{number}", HAND[4][number], HAND[6][number]
    mac, gateway = f"02:00:00:00:00:1{number}", "02:00:00:00:00:01"
    with entering.network(path):
        # as with weft, no address waits for duplicates to speak up
        for name in ("accept_dad", "accept_ra"):
            Path(f"/proc/sys/net/ipv6/conf/default/{name}").write_text("0")
    entering.ip_batch(
        entering.OWN,
        f"link add {host} address {gateway} type veth "
        f"peer name eth0 address {mac} netns {path}\n"
        f"link set {host} up\n"
        f"neigh add {four} lladdr {mac} dev {host} nud permanent\n"
        f"neigh add {six} lladdr {mac} dev {host} nud permanent\n"
        f"route add {four}/32 dev {host}\n"
        f"route add {six}/128 dev {host}\n",
    )
    entering.ip_batch(
        path,
        "link set lo up\nlink set eth0 up\n"
        f"addr add {four}/32 dev eth0\naddr add {six}/128 dev eth0 nodad\n"
        f"neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud permanent\n"
        f"neigh add fe80::1 lladdr {gateway} dev eth0 nud permanent\n"
        "route add 169.254.1.1/32 dev eth0\nroute add default via 169.254.1.1 dev eth0\n"
        "route add default via fe80::1 dev eth0\n",
    )
    return str(path)
