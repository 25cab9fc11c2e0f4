"""Whether a container can talk: the functional check beside every figure.

A time of something that does not work is no figure, so a container that was attached opens a TCP
connection to its node, over each family, from the very address that ADD promised; and the node
reaches the first and the last of its published ports by its own addresses.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from bench.network import CONTAINER_PORT, Container
from weft.lab import entering
from weft.model.errors import WeftError

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PATIENCE = 3.0


class Listener:
    """Listens on the node's own addresses, one for each family."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._sockets = {6 if ":" in text else 4: _listening(text) for text in addresses}

    def hear(self, container: Container) -> None:
        """Raise WeftError unless the container reaches the node over each family."""
        for version, listening in self._sockets.items():
            promised = container.ip(version)
            if promised is None:
                raise WeftError(f"ADD of {container.id} gave no IPv{version} address")
            via = entering.socket_in(container.path, _FAMILY[version], socket.SOCK_STREAM)
            with via:
                via.settimeout(_PATIENCE)
                try:
                    via.connect(listening.getsockname())
                    accepted, seen = listening.accept()
                except OSError as error:
                    raise WeftError(
                        f"{container.id} cannot reach its node over IPv{version}: {error}"
                    ) from error
                accepted.close()
                if seen[0] != promised:
                    raise WeftError(f"{container.id} speaks from {seen[0]}, not from {promised}")

    def reach(self, container: Container) -> None:
        """Raise WeftError unless the container's ports are reached over each family."""
        for version, own in self._sockets.items():
            address = own.getsockname()[0]
            listening = entering.socket_in(container.path, _FAMILY[version], socket.SOCK_STREAM)
            with listening:
                _listen(listening, container.ip(version) or "", CONTAINER_PORT)
                for port in {container.ports[0], container.ports[-1]}:
                    try:
                        with socket.create_connection((address, port), _PATIENCE):
                            listening.accept()[0].close()
                    except OSError as error:
                        raise WeftError(
                            f"port {port} of {container.id} is not reached by {address}: {error}"
                        ) from error


def _listening(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    _listen(made, address, 0)
    return made


def _listen(made: socket.socket, address: str, port: int) -> None:
    made.settimeout(_PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # others listen here after us
    made.bind((address, port))
    made.listen(16)
