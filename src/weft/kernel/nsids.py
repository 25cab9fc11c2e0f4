"""Finding a namespace again from the number that a link has for it.

A veth's host end says which namespace its other end is in by a number that the host's namespace
chose (IFLA_LINK_NETNSID); the kernel has no question from number to inode. So every namespace that
can be seen is asked for its number (RTM_GETNSID): those that are mounted somewhere, whatever the
runtime's directory (`/proc/self/mountinfo`), and those of running processes. Blocks for some
10 ms with 1,000 namespaces: for a worker, in the namespace whose numbers are meant.
Source: rtnetlink(7), net/core/net_namespace.c; RTM_GETNSID from Linux 4.0.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Collection, Iterator

import msgspec

from weft.kernel.namespaces import Identity
from weft.kernel.netlink import NLM_F_ACK, Failure, Socket, attribute, attributes, message

RTM_GETNSID = 90
NETLINK_ROUTE = 0
_NETNSA_NSID, _NETNSA_FD = 1, 3
_RTGENMSG = b"\0\0\0\0"  # struct rtgenmsg, padded
_INT = struct.Struct("=i")
MOUNTS = "/proc/self/mountinfo"
LIMIT = 50_000  # namespaces and processes that are looked at


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace: device and inode, and the path by which it was found."""

    identity: Identity
    path: str


def find(numbers: Collection[int], *, seconds: float) -> dict[int, Found]:
    """The namespaces that have these numbers here, as far as they can be seen; gives up after
    `seconds` with those found by then."""
    wanted = set(numbers)
    found: dict[int, Found] = {}
    asked: set[Identity] = set()
    deadline = time.monotonic() + seconds
    with Socket(NETLINK_ROUTE) as via:
        for path in _paths():
            if not wanted or time.monotonic() > deadline:
                break
            answer = _ask(via, path, asked)
            if answer is not None and answer[0] in wanted:
                number, identity = answer
                wanted.discard(number)
                found[number] = Found(identity=identity, path=path)
    return found


def number_of(via: Socket, namespace: int) -> int | None:
    """The number that the socket's namespace has for the one of this descriptor; None: none."""
    body = _RTGENMSG + attribute(_NETNSA_FD, _INT.pack(namespace))
    for _, _, answer in via.transact([message(RTM_GETNSID, NLM_F_ACK, body)]):
        for kind, data in attributes(answer, len(_RTGENMSG)):
            if kind == _NETNSA_NSID and (number := _INT.unpack(data)[0]) >= 0:
                return int(number)
    return None


def _ask(via: Socket, path: str, asked: set[Identity]) -> tuple[int, Identity] | None:
    """The number of the namespace at `path`; None where it has none, or was asked before."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # the process has ended, or the mount is gone
        return None
    try:
        status = os.fstat(fd)
        identity = status.st_dev, status.st_ino
        if identity in asked:
            return None
        asked.add(identity)
        number = number_of(via, fd)
    except (OSError, Failure):  # not a namespace of a network
        return None
    finally:
        os.close(fd)
    return None if number is None else (number, identity)


def _paths() -> Iterator[str]:
    yield from _mounted()
    seen: set[tuple[int, int]] = set()
    for count, name in enumerate(os.listdir("/proc")):
        if not name.isdigit() or count > LIMIT:
            continue
        path = f"/proc/{name}/ns/net"
        try:
            status = os.stat(path)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield path


def _mounted() -> Iterator[str]:
    """Paths at which network namespaces are mounted, those of this mount namespace."""
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            # 36 35 0:4 net:[4026532000] /run/netns/a rw shared:1 - nsfs nsfs rw
            if len(fields) > 4 and fields[3].startswith("net:["):
                yield fields[4].replace("\\040", " ").replace("\\134", "\\")
