"""Faults at the agent's ears: its notification sockets made small, or made deaf.

The sockets are the living agent's own, taken by pidfd_getfd(2) (Linux 5.6) and given back; nothing
in the agent knows of it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_PIDFD_GETFD = 438  # the same on all architectures
_SO_ATTACH_FILTER = 26
_STEP = struct.Struct("=HBBI")  # struct sock_filter
_RETURN = 0x06  # BPF_RET|K
_libc = ctypes.CDLL(None, use_errno=True)


class Hearing(NamedTuple):
    """A notification socket as /proc/PID/net/netlink shows it: octets that wait, and how many
    messages were lost."""

    protocol: int
    inode: int
    waiting: int
    lost: int


def hearings(pid: int) -> list[Hearing]:
    """The agent's sockets that are in multicast groups."""
    mine = {os.readlink(each) for each in _descriptors(pid)}
    found = []
    for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]:
        _, protocol, _, groups, waiting, _, _, _, lost, inode = line.split()
        if int(groups, 16) and f"socket:[{inode}]" in mine:
            found.append(Hearing(int(protocol), int(inode), int(waiting), int(lost)))
    return found


def shrink(pid: int) -> None:
    """Room for some notifications only."""
    for sock in _taken(pid):
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least


def deafen(pid: int) -> None:
    """Nothing is heard any more: a filter that drops everything."""
    program = ctypes.create_string_buffer(_STEP.pack(_RETURN, 0, 0, 0))
    described = struct.pack("@HP", 1, ctypes.addressof(program))
    for sock in _taken(pid):
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def _taken(pid: int) -> Iterator[socket.socket]:
    wanted = {f"socket:[{each.inode}]" for each in hearings(pid)}
    assert wanted, "the agent listens to nothing"
    process = os.pidfd_open(pid)
    try:
        for path in _descriptors(pid):
            if os.readlink(path) in wanted:
                descriptor = _libc.syscall(_PIDFD_GETFD, process, int(path.name), 0)
                if descriptor < 0:
                    code = ctypes.get_errno()
                    raise OSError(code, f"pidfd_getfd: {os.strerror(code)}")
                yield socket.socket(fileno=descriptor)
    finally:
        os.close(process)


def _descriptors(pid: int) -> Sequence[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())
