"""A socket that hears what others change, and not what we change ourselves.

Every change is announced with the port of the socket that asked for it (0: the kernel by itself).
Our own are the great majority on a busy node, so the kernel drops them before they are queued: a
classic BPF program compares the port in the first message's header (`nlmsg_pid`, octet 12). A
container that sets its end of a link down and up as fast as it can makes the kernel announce the
node's end each time; where only links that are down matter, those are dropped there too.
Source: netlink(7); socket(7) SO_ATTACH_FILTER; linux/filter.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Sequence

from weft.kernel.netlink import Socket

_SO_ATTACH_FILTER = 26
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_LOAD_HALF, _LOAD_OCTET, _JUMP_SET = 0x28, 0x30, 0x45  # BPF_LD|H|ABS, BPF_LD|B|ABS, BPF_JMP|JSET|K
_TYPE_AT, _PORT_AT = 4, 12
_FLAGS_AT, _FIRST_AT, _NAME_AT = 24, 34, 36  # ifi_flags, type and payload of the first attribute
_RTM_NEWLINK, _IFF_UP, _IFLA_IFNAME = 16, 1, 3
_STEP = struct.Struct("=HBBI")  # struct sock_filter


def listen(
    protocol: int, groups: Sequence[int], *, ignore: Collection[int], unless_down: str = ""
) -> Socket:
    """A non-blocking socket in multicast `groups` that never hears changes by ports `ignore`.

    `unless_down` (rtnetlink only): nor what the kernel by itself says of a link whose name begins
    so, as long as the link is up.
    """
    found = Socket(protocol, groups=groups)
    try:
        _attach(found, _program(sorted(ignore), unless_down.encode()))
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


def _program(ports: Sequence[int], name: bytes) -> bytes:
    # a load reads in network order, the headers are in the host's
    steps = [_STEP.pack(_LOAD_WORD, 0, 0, _PORT_AT)]
    also = _standing(name) if name else []
    for number, port in enumerate(ports):
        to_drop = len(ports) - number + 2 * len(also)
        steps.append(_STEP.pack(_JUMP_EQUAL, to_drop, 0, socket.htonl(port)))
    for number, (load, at, jump, value) in enumerate(also):
        # all of these hold: dropped; one does not: kept
        to_keep = 2 * (len(also) - number - 1)
        steps.append(_STEP.pack(load, 0, 0, at))
        last = number == len(also) - 1
        steps.append(_STEP.pack(jump, 1 if last else 0, to_keep, value))
    steps.append(_STEP.pack(_RETURN, 0, 0, 0xFFFFFFFF))
    steps.append(_STEP.pack(_RETURN, 0, 0, 0))
    return b"".join(steps)


def _standing(name: bytes) -> list[tuple[int, int, int, int]]:
    """Loads and comparisons: by the kernel, of a link that is up, whose name begins so. The name
    is the first attribute always, so no load is past the end (which would drop the message)."""
    return [
        (_LOAD_WORD, _PORT_AT, _JUMP_EQUAL, 0),
        (_LOAD_HALF, _TYPE_AT, _JUMP_EQUAL, socket.htons(_RTM_NEWLINK)),
        (_LOAD_WORD, _FLAGS_AT, _JUMP_SET, socket.htonl(_IFF_UP)),
        (_LOAD_HALF, _FIRST_AT, _JUMP_EQUAL, socket.htons(_IFLA_IFNAME)),
        *((_LOAD_OCTET, _NAME_AT + at, _JUMP_EQUAL, each) for at, each in enumerate(name)),
    ]


def _attach(target: Socket, program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // _STEP.size, ctypes.addressof(buffer))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
