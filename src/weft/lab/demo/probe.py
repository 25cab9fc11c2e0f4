"""One exchange between two network namespaces, and whom the far side saw.

Sockets are opened inside the namespaces and used from here, so that a probe needs no process and
no `ping`. Both sides live in this thread: TCP's handshake is the kernel's, and one datagram waits
in a buffer until it is read.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from weft.lab.entering import socket_in
from weft.model.errors import NotReady

PATIENCE = 3.0  # seconds an exchange may take before it counts as failed
WORDS = b"weft " * 300  # 1,500 octets: more than one packet


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A finished exchange. `seen`: the client's address as the server saw it."""

    seen: str
    seconds: float


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(client: Path, server: Path, address: str) -> Exchange:
    """Connect from `client` to `address` in `server`, send words there and back.

    Raises NotReady where they do not arrive within PATIENCE.
    """
    family = _family(address)
    with (
        socket_in(server, family, socket.SOCK_STREAM) as listener,
        socket_in(client, family, socket.SOCK_STREAM) as caller,
    ):
        try:
            listener.bind((address, 0))
            listener.listen(1)
            for each in (listener, caller):
                each.settimeout(PATIENCE)
            began = time.monotonic()
            caller.connect(listener.getsockname())
            answerer, peer = listener.accept()
            with answerer:
                answerer.settimeout(PATIENCE)
                caller.sendall(WORDS)
                answerer.sendall(_receive(answerer, len(WORDS)))
                back = _receive(caller, len(WORDS))
        except OSError as error:
            raise NotReady(f"TCP to {address} failed: {error}") from error
    if back != WORDS:
        raise NotReady(f"TCP to {address}: {len(back)} of {len(WORDS)} octets came back")
    return Exchange(seen=str(peer[0]), seconds=time.monotonic() - began)


def udp(client: Path, server: Path, address: str) -> Exchange:
    """Send one datagram from `client` to `address` in `server` and one back."""
    family = _family(address)
    with (
        socket_in(server, family, socket.SOCK_DGRAM) as listener,
        socket_in(client, family, socket.SOCK_DGRAM) as caller,
    ):
        try:
            listener.bind((address, 0))
            for each in (listener, caller):
                each.settimeout(PATIENCE)
            began = time.monotonic()
            caller.connect(listener.getsockname())
            caller.send(b"weft")
            words, peer = listener.recvfrom(64)
            listener.sendto(words, peer)
            back = caller.recv(64)
        except OSError as error:
            raise NotReady(f"UDP to {address} failed: {error}") from error
    if back != b"weft":
        raise NotReady(f"UDP to {address}: {back!r} came back")
    return Exchange(seen=str(peer[0]), seconds=time.monotonic() - began)


def _receive(connection: socket.socket, size: int) -> bytes:
    pieces = b""
    while len(pieces) < size:
        piece = connection.recv(size - len(pieces))
        if not piece:
            break
        pieces += piece
    return pieces
