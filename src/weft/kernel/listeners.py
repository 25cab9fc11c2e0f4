"""Ports of this namespace's own addresses: holding one, and who listens on it.

A held port is a socket that is bound and never listens: the kernel then refuses it to everybody
else, whether they come before or after us, and forgets it with the process. Who has it is asked of
sock_diag (include/uapi/linux/inet_diag.h), which names a socket's inode; its process is found by
its descriptors. For the node's own namespace, in which the agent runs.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from weft.kernel.netlink import NLM_F_DUMP, Socket, message

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to its inet_diag_sockid
_SOCKID = struct.Struct("=HH16s16sIII")
_ANSWER_PORTS = struct.Struct("!HH")
_ANSWER_INODE = struct.Struct("=I")
_SOCKID_AT, _INODE_AT = 4, 4 + 48 + 16
_LISTEN, _CLOSE = 10, 7  # TCP_LISTEN; TCP_CLOSE: what UDP calls unconnected
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


class Listener(NamedTuple):
    """A socket of another program. `address` is "" for every address of the family or both."""

    protocol: int
    address: str
    port: int
    inode: int


def hold(protocol: int, address: str, port: int) -> socket.socket | None:
    """Bind `port` (TCP or UDP) on `address`; "" is every address of both families, "0.0.0.0" and
    "::" every one of one. None: somebody has it, or a connection uses it as its source. The
    address need not be there yet. Raises OSError for anything else than a port that is taken."""
    six = ":" in address or (not address and socket.has_ipv6 and _has_ipv6())
    family = socket.AF_INET6 if six else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    held = socket.socket(family, kind, protocol)
    try:
        if six:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address else 0)
        if address:
            held.setsockopt(
                *((socket.IPPROTO_IPV6, _IPV6_FREEBIND) if six else (socket.SOL_IP, _IP_FREEBIND)),
                1,
            )
        if protocol == UDP:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # nobody reads here
        held.bind((address, port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    except BaseException:
        held.close()
        raise
    return held


@functools.cache  # each look into /proc/sys costs the more the more namespaces the node has
def _has_ipv6() -> bool:
    return os.path.exists("/proc/sys/net/ipv6")


def listening(protocol: int) -> list[Listener]:
    """Every TCP socket that listens, or every UDP socket without a peer, ours among them."""
    state = _LISTEN if protocol == TCP else _CLOSE
    found: list[Listener] = []
    with Socket(NETLINK_SOCK_DIAG) as via:
        for family in (socket.AF_INET, socket.AF_INET6):
            nobody = _SOCKID.pack(0, 0, b"", b"", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # INET_DIAG_NOCOOKIE
            body = _REQUEST.pack(family, protocol, 0, 0, 1 << state) + nobody
            for _, answer in via.dump(message(_BY_FAMILY, NLM_F_DUMP, body)):
                found.append(_listener(protocol, answer))
    return found


def _listener(protocol: int, answer: memoryview) -> Listener:
    size = 4 if answer[0] == socket.AF_INET else 16
    port, _ = _ANSWER_PORTS.unpack_from(answer, _SOCKID_AT)
    packed = bytes(answer[_SOCKID_AT + 4 : _SOCKID_AT + 4 + size])
    (inode,) = _ANSWER_INODE.unpack_from(answer, _INODE_AT)
    address = str(ipaddress.ip_address(packed)) if any(packed) else ""
    return Listener(protocol, address, port, inode)


def everyone() -> list[tuple[Listener, str]]:
    """Every listener but this process's own sockets, each with who has it. Looks at the
    descriptors of every process: for a worker."""
    found = [*listening(TCP), *listening(UDP)]
    names = _holders({each.inode for each in found})
    own = f" (pid {os.getpid()})"
    pairs = ((each, names.get(each.inode, "")) for each in found)
    return [(each, name) for each, name in pairs if not name.endswith(own)]


def holder(inode: int) -> str:
    """`NAME (pid N)` of a process that has this socket; "" where none is seen from here."""
    return _holders({inode}).get(inode, "")


def is_held_by(inode: int, programs: Collection[str]) -> bool:
    """Whether a process of one of these programs has this socket, whoever else has it too."""
    name = f"socket:[{inode}]"
    for process in _processes():
        try:
            if (process / "comm").read_text(errors="replace").strip() not in programs:
                continue
            if any(os.readlink(each.path) == name for each in os.scandir(process / "fd")):
                return True
        except OSError:
            continue  # it has ended, or is not ours to look at
    return False


def _holders(inodes: set[int]) -> dict[int, str]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for process in _processes():
        if len(found) == len(wanted):
            break
        try:
            for descriptor in os.scandir(process / "fd"):
                inode = wanted.get(os.readlink(descriptor.path))
                if inode is not None and inode not in found:
                    name = (process / "comm").read_text(errors="replace").strip()
                    found[inode] = f"{name} (pid {process.name})"
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


def _processes() -> Iterator[Path]:
    return (Path("/proc") / entry for entry in os.listdir("/proc") if entry.isdigit())


def ephemeral_range() -> tuple[int, int]:
    """First and last port that the kernel gives to connections that ask for none."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        low, high = map(int, text.split())
    except (OSError, ValueError):
        return 32768, 60999  # the kernel's default
    return low, high
