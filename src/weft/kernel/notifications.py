"""A socket that hears what others change, and not what we change ourselves.

Every change is announced with the port of the socket that asked for it (0: the kernel by itself).
Our own are the great majority on a busy node, so the kernel drops them before they are queued: a
classic BPF program compares the port in the first message's header (`nlmsg_pid`, octet 12). Two
kinds of the kernel's own are dropped there too. What it says of neighbours: it never changes a
permanent one. And what it says of a link of ours that is as it should be (`Well`): a container
that sets its end down and up as fast as it can makes it announce the node's end each time. The
kernel says in its own name also what `ip link set` has changed, so the content decides.
Source: netlink(7); socket(7) SO_ATTACH_FILTER; linux/filter.h; SKF_AD_NLATTR from Linux 2.6.26.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

from weft.kernel.netlink import Socket

_SO_ATTACH_FILTER = 26
_STEP = struct.Struct("=HBBI")  # struct sock_filter
_LOAD_WORD, _LOAD_HALF, _LOAD_OCTET = 0x20, 0x28, 0x30  # BPF_LD|{W,H,B}|ABS
_AT_WORD, _AT_HALF = 0x40, 0x48  # BPF_LD|{W,H}|IND: at X and so many octets more
_SET_A, _SET_X, _A_TO_X = 0x00, 0x01, 0x07  # BPF_LD|IMM, BPF_LDX|IMM, BPF_MISC|TAX
_EQUAL, _ANY_BIT, _RETURN = 0x15, 0x45, 0x06  # BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_FIND_ATTRIBUTE = 0xFFFFF000 + 12  # SKF_AD_OFF + SKF_AD_NLATTR: type X from A on; 0: none
_ALL = 0xFFFFFFFF

_TYPE_AT, _PORT_AT, _FLAGS_AT, _ATTRIBUTES_AT = 4, 12, 24, 32  # of a message about a link
_NEWLINK, _NEWNEIGH, _DELNEIGH = 16, 28, 29
_IFF_UP = 1
_ADDRESS, _IFNAME, _MTU, _MASTER, _IFALIAS, _GROUP = 1, 3, 4, 10, 20, 27


class Well(NamedTuple):
    """A link of ours that is up, bears a name of our length and prefix, and is a port of nothing.

    `mark` is how its alias begins: four octets. A link with an MTU of its own is never `Well`.
    """

    prefix: bytes
    length: int
    group: int
    mac: bytes
    mtu: int
    mark: bytes


def listen(
    protocol: int, groups: Sequence[int], *, ignore: Collection[int], well: Well | None = None
) -> Socket:
    """A non-blocking socket in multicast `groups` that never hears changes by ports `ignore`.

    `well` (rtnetlink only): nor what the kernel by itself says of such links and of neighbours.
    """
    found = Socket(protocol, groups=groups)
    try:
        ignoring(found, ignore=ignore, well=well)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


def ignoring(target: Socket, *, ignore: Collection[int], well: Well | None = None) -> None:
    """Replace what a listening socket does not hear; nothing is lost meanwhile."""
    program = _program(sorted(ignore), well)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // _STEP.size, ctypes.addressof(buffer))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


class _Line(NamedTuple):
    """A step with names for the places it leads to; "" is the next step."""

    code: int
    value: int
    then: str = ""
    otherwise: str = ""


def _program(ports: Sequence[int], well: Well | None) -> bytes:
    lines = [_Line(_LOAD_WORD, _PORT_AT)]
    lines += [_Line(_EQUAL, socket.htonl(port), then="drop") for port in ports]
    if well is not None:
        lines.append(_Line(_EQUAL, 0, otherwise="keep"))
        lines.append(_Line(_LOAD_HALF, _TYPE_AT))
        lines += [_Line(_EQUAL, socket.htons(kind), then="drop") for kind in (_NEWNEIGH, _DELNEIGH)]
        lines += _well(well)
        lines.append(_Line(_RETURN, 0))
    places = {"keep": len(lines), "drop": len(lines) + 1}
    lines += [_Line(_RETURN, _ALL), _Line(_RETURN, 0)]
    steps = []
    for at, line in enumerate(lines):
        then, otherwise = (
            places[name] - at - 1 if name else 0 for name in (line.then, line.otherwise)
        )
        steps.append(_STEP.pack(line.code, then, otherwise, line.value))
    return b"".join(steps)


def _well(link: Well) -> list[_Line]:
    """Loads and comparisons that all hold for such a link; where one does not, it is heard.

    Loads read in network order, while headers and numbers are in the host's."""

    def same(load: int, at: int, value: int) -> tuple[_Line, _Line]:
        return _Line(load, at), _Line(_EQUAL, value, otherwise="keep")

    lines = [
        *same(_LOAD_HALF, _TYPE_AT, socket.htons(_NEWLINK)),
        _Line(_LOAD_WORD, _FLAGS_AT),
        _Line(_ANY_BIT, socket.htonl(_IFF_UP), otherwise="keep"),
        # the name is the first attribute always
        *same(_LOAD_HALF, _ATTRIBUTES_AT, socket.htons(4 + link.length + 1)),
        *same(_LOAD_HALF, _ATTRIBUTES_AT + 2, socket.htons(_IFNAME)),
    ]
    for at, octet in enumerate(link.prefix):
        lines += same(_LOAD_OCTET, _ATTRIBUTES_AT + 4 + at, octet)
    for kind, pieces in (
        (_GROUP, [(_AT_WORD, 4, socket.htonl(link.group))]),
        (_MTU, [(_AT_WORD, 4, socket.htonl(link.mtu))]),
        (_IFALIAS, [(_AT_WORD, 4, int.from_bytes(link.mark[:4], "big"))]),
        (
            _ADDRESS,
            [
                (_AT_WORD, 4, int.from_bytes(link.mac[:4], "big")),
                (_AT_HALF, 8, int.from_bytes(link.mac[4:], "big")),
            ],
        ),
    ):
        lines += [*_find(kind), _Line(_EQUAL, 0, then="keep"), _Line(_A_TO_X, 0)]
        for piece in pieces:
            lines += same(*piece)
    return [*lines, *_find(_MASTER), _Line(_EQUAL, 0, otherwise="keep")]


def _find(kind: int) -> tuple[_Line, ...]:
    """Where the attribute of this type is, into A; 0 where there is none."""
    return (
        _Line(_SET_X, kind),
        _Line(_SET_A, _ATTRIBUTES_AT),
        _Line(_LOAD_WORD, _FIND_ATTRIBUTE),
    )
