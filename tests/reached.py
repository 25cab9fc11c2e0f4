"""A word and its answer to a port, and under which address the server saw the client."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from weft.lab import entering

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Reached(NamedTuple):
    """`source`: the client as the container sees it; "" where nothing arrived."""

    source: str
    answered: bool


def published(*ports: tuple[Any, ...]) -> dict[str, Any]:
    """`runtimeConfig` for (hostPort, containerPort[, protocol[, hostIP]])."""
    names = ("hostPort", "containerPort", "protocol", "hostIP")
    mappings = [dict(zip(names, port, strict=False)) for port in ports]
    return {"runtimeConfig": {"portMappings": mappings}}


def reach(
    origin: str | Path,
    address: str,
    port: int,
    goal: str | Path,
    inner: int,
    protocol: str = "tcp",
    patience: float = 1.5,
) -> Reached:
    """A word and its answer over (address, port), for a server at `inner` inside `goal`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = KINDS[protocol]
    with (
        closing(entering.socket_in(goal, family, kind)) as server,
        closing(entering.socket_in(origin, family, kind)) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", inner))
        server.settimeout(patience)
        client.settimeout(patience)
        try:
            if protocol == "tcp":
                server.listen(1)
                client.connect((address, port))
                peer, sender = server.accept()
                with closing(peer):
                    peer.settimeout(patience)
                    client.sendall(b"word")
                    peer.sendall(peer.recv(16))
                    return Reached(sender[0], client.recv(16) == b"word")
            client.connect((address, port))
            client.send(b"word")
            said, sender = server.recvfrom(16)
            server.sendto(said, sender)
            return Reached(sender[0], client.recv(16) == b"word")
        except OSError:
            return Reached("", False)
