"""Which process has a netlink port, and so the table that the port owns.

The first socket of a protocol that a process opens gets the process's id as its port, so that is
where one looks first; looking everywhere costs milliseconds on a machine with many processes.
Source: netlink_autobind in net/netlink/af_netlink.c.
"""

from __future__ import annotations

import os

_NETFILTER = "12"
_TABLE = "/proc/thread-self/net/netlink"


def process_of(port: int, *, everywhere: bool = False) -> int | None:
    """Id of the process with the netfilter socket of this port in our namespace, or None."""
    socket = _socket_of(port)
    if socket is None:
        return None
    if _has(port, socket):
        return port
    if everywhere:
        for name in os.listdir("/proc"):
            if name.isdecimal() and _has(int(name), socket):
                return int(name)
    return None


def described(port: int) -> str:
    """The holder of a port in words: `process 4711 (nft)`, with the port where that is all."""
    process = process_of(port)
    if process is None:
        return f"the process with netlink port {port} (`ss -f netlink -p` names it)"
    return f"process {process} ({program(process)}), netlink port {port}"


def program(process: int) -> str:
    """Name of what a process executes."""
    try:
        with open(f"/proc/{process}/comm") as file:
            return file.read().strip()
    except OSError:
        return "gone"


def _socket_of(port: int) -> str | None:
    """`socket:[inode]`, as links in /proc/PID/fd say it."""
    try:
        with open(_TABLE) as file:
            for line in file:
                columns = line.split()
                if columns[1:3] == [_NETFILTER, str(port)]:
                    return f"socket:[{columns[-1]}]"
    except OSError:
        return None
    return None


def _has(process: int, socket: str) -> bool:
    directory = f"/proc/{process}/fd"
    try:
        return any(os.readlink(f"{directory}/{each}") == socket for each in os.listdir(directory))
    except OSError:  # it has ended, or closed something meanwhile
        return False
