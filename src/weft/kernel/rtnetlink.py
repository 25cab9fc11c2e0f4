"""The rtnetlink socket of one namespace, and looking a link up without the RTNL lock.

Messages are written by `kernel.links` and `kernel.routes`. Every socket asks for strict checking,
so that dump filters are honoured or refused, never ignored (Linux 4.20).
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Sequence

from weft.kernel import links
from weft.kernel.netlink import Failure, Socket

NETLINK_ROUTE = 0
_SIOCGIFNAME = 0x8910
_SIOCGIFFLAGS = 0x8913
_NUMBER = struct.Struct("=16si20x")  # struct ifreq with ifr_ifindex
_FLAGS = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags
_IFF_UP = 1


def open_socket(*, groups: Sequence[int] = ()) -> Socket:
    """A socket of the namespace in which the calling thread is."""
    return Socket(NETLINK_ROUTE, groups=groups, strict=True)


def find_link(via: Socket, name: str) -> links.Link | None:
    """One link by name; None where there is none."""
    return _one(via, links.get_by_name(name))


def find_index(via: Socket, index: int) -> links.Link | None:
    """One link by index; None where there is none."""
    return _one(via, links.get_by_index(index))


def _one(via: Socket, request: bytes) -> links.Link | None:
    try:
        answers = via.transact([request])
    except Failure as failure:
        if failure.errno == errno.ENODEV:
            return None
        raise
    return links.decode(answers[0][2])


class Lookup:
    """Says whether a name can be looked up, in the namespace where it was made.

    Binding a socket to a device takes no RTNL lock, so the answer does not wait for a deletion
    that is under way; and unlike the SIOCGIF* ioctls it does not make the kernel run modprobe for
    a name that is not there.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET, flags)

    def exists(self, name: str) -> bool:
        """True as long as a link of that name can be found."""
        try:
            self._bind(name.encode())
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        self._bind(b"")
        return True

    def is_up(self, name: str) -> bool:
        """Whether the link is administratively up now (SIOCGIFFLAGS); False where it is gone."""
        if not self.exists(name):
            return False
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, _FLAGS.pack(name.encode(), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return bool(_FLAGS.unpack(answer)[1] & _IFF_UP)

    def name_of(self, index: int) -> str | None:
        """The name of a link by its number (SIOCGIFNAME, which takes no lock and loads no module);
        None where it is gone."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFNAME, _NUMBER.pack(b"", index))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        name: bytes = _NUMBER.unpack(answer)[0]
        return name.rstrip(b"\0").decode(errors="replace")

    def _bind(self, name: bytes) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name + b"\0")

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
