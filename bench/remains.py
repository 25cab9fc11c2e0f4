"""What is left of an attachment, as seen without asking whoever made it.

Links are looked up by name in both namespaces; elements are read from our sets; and a deletion
that the kernel has not acknowledged yet shows as a thread of the agent inside a send: netlink
does its work within the sender's call.
"""

from __future__ import annotations

import fcntl
import platform
import socket
import struct
from contextlib import suppress
from pathlib import Path

from bench.network import Container
from weft.kernel.nftables.transport import Nftables
from weft.lab import entering
from weft.render import sets

_SIOCGIFINDEX = 0x8933
_SENDS = {"x86_64": ("44", "46"), "aarch64": ("206", "211")}  # sendto, sendmsg
KEPT = frozenset(("lo", "eth0", "cni0"))
"""Links of a node that belong to no attachment."""


def has_link(via: socket.socket, name: str) -> bool:
    """Whether the namespace of the socket has a link of that name."""
    try:
        fcntl.ioctl(via.fileno(), _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
    except OSError:
        return False
    return True


def host_links() -> list[str]:
    """Links of attachments in the worker's own namespace."""
    return [name for _, name in socket.if_nameindex() if name not in KEPT]


class Elements:
    """The elements of attachments in our sets."""

    def __init__(self) -> None:
        self._nft = Nftables()
        self._sets = sets.attachment_sets()

    def count(self) -> int:
        """How many there are."""
        return sum(len(self._nft.elements(each)) for each in self._sets)


def is_sending(pid: int) -> bool:
    """Whether a thread of the process runs or is inside a send."""
    sends = _SENDS.get(platform.machine(), ())
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            call = (thread / "syscall").read_text().split(" ", 1)[0].strip()
            if call == "running" or call in sends:
                return True
    return False


class Watched:
    """One attached container before its DEL: its links are known, a socket is in its namespace."""

    def __init__(self, container: Container, host: socket.socket) -> None:
        self._host = host
        self._inside = entering.socket_in(container.path, socket.AF_INET, socket.SOCK_DGRAM)
        self._links = [
            str(entry["name"])
            for entry in container.result.get("interfaces", ())
            if not entry.get("sandbox") and entry["name"] not in KEPT
        ]

    def stands(self) -> bool:
        """Whether either end can still be looked up."""
        return has_link(self._inside, "eth0") or any(
            has_link(self._host, name) for name in self._links
        )

    def close(self) -> None:
        """Give the socket back."""
        self._inside.close()


def probe_socket() -> socket.socket:
    """A socket of the worker's own namespace, for look-ups."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
