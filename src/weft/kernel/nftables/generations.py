"""A socket that hears that somebody changed packet rules, and nothing else.

After each transaction the kernel announces a new generation, whatever the transaction held (one
NFT_MSG_NEWGEN in a datagram of its own). A classic BPF program lets only those through, and not
those of our own sockets, so a service proxy that writes a thousand rules wakes us once.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection

from weft.kernel.netlink import Socket
from weft.kernel.nftables.messages import NFNL_SUBSYS_NFTABLES, Kind
from weft.kernel.nftables.transport import NETLINK_NETFILTER, NFNLGRP_NFTABLES

_SO_ATTACH_FILTER = 26
_LOAD_WORD, _LOAD_HALF = 0x20, 0x28  # BPF_LD|W|ABS, BPF_LD|H|ABS
_JUMP_EQUAL, _RETURN = 0x15, 0x06  # BPF_JMP|JEQ|K, BPF_RET|K
_TYPE_AT, _PORT_AT = 4, 12
_STEP = struct.Struct("=HBBI")  # struct sock_filter


def listen_for_generations(ignore: Collection[int]) -> Socket:
    """Non-blocking; `ignore` are the ports of sockets whose transactions are no news."""
    found = Socket(NETLINK_NETFILTER, groups=(NFNLGRP_NFTABLES,))
    try:
        program = _program(sorted(ignore))
        buffer = ctypes.create_string_buffer(program, len(program))
        described = struct.pack("@HP", len(program) // _STEP.size, ctypes.addressof(buffer))
        found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


def _program(ports: list[int]) -> bytes:
    # a load reads in network order, the headers are in the host's
    wanted = socket.htons(NFNL_SUBSYS_NFTABLES << 8 | Kind.NEWGEN)
    steps = [
        _STEP.pack(_LOAD_HALF, 0, 0, _TYPE_AT),
        _STEP.pack(_JUMP_EQUAL, 0, len(ports) + 2, wanted),
        _STEP.pack(_LOAD_WORD, 0, 0, _PORT_AT),
    ]
    for number, port in enumerate(ports):
        steps.append(_STEP.pack(_JUMP_EQUAL, len(ports) - number, 0, socket.htonl(port)))
    steps.append(_STEP.pack(_RETURN, 0, 0, 0xFFFFFFFF))
    steps.append(_STEP.pack(_RETURN, 0, 0, 0))
    return b"".join(steps)
