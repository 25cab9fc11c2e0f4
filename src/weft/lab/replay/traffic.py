"""Whether traffic comes through: a line said at one end and said back by the other.

Sockets are opened in their namespaces by this process, so no program is needed inside.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from pathlib import Path

from weft.lab import entering

PATIENCE = 3.0


def family_of(address: str) -> socket.AddressFamily:
    """Of an address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def refusal(
    origin: str | Path, goal: str | Path, address: str, port: int, inner: int | None = None
) -> str:
    """Why a connection from `origin` to `address`:`port` does not reach a server in `goal` that
    listens on `inner` (the same port); "" when it does."""
    kind = family_of(address)
    with (
        closing(entering.socket_in(goal, kind, socket.SOCK_STREAM)) as server,
        closing(entering.socket_in(origin, kind, socket.SOCK_STREAM)) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port if inner is None else inner))
        server.listen(1)
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        said = os.urandom(16)
        try:
            client.connect((address, port or server.getsockname()[1]))
            client.sendall(said)
            peer, _ = server.accept()
            with closing(peer):
                peer.settimeout(PATIENCE)
                peer.sendall(peer.recv(16))
            if client.recv(16) != said:
                return "another line came back"
        except OSError as error:
            return error.strerror or str(error)
    return ""


def datagram_refusal(
    origin: str | Path, goal: str | Path, address: str, port: int, inner: int
) -> str:
    """The same for a datagram and its answer; it is sent again until `PATIENCE` is over."""
    kind = family_of(address)
    with (
        closing(entering.socket_in(goal, kind, socket.SOCK_DGRAM)) as server,
        closing(entering.socket_in(origin, kind, socket.SOCK_DGRAM)) as client,
    ):
        server.bind(("", inner))
        server.settimeout(PATIENCE / 10)
        client.settimeout(PATIENCE / 10)
        said = os.urandom(16)
        deadline = time.monotonic() + PATIENCE
        why = "nothing arrived"
        while time.monotonic() < deadline:
            try:
                client.sendto(said, (address, port))
                got, sender = server.recvfrom(64)
                server.sendto(got, sender)
                if client.recv(64) == said:
                    return ""
            except OSError as error:
                why = error.strerror or str(error)
        return why
