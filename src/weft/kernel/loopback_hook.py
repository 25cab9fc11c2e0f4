"""Programs of the node that connect to ::1 and a published port reach the container.

Destination translation cannot do it: the answer to ::1 would have no route. A hook at connect(2)
and sendmsg(2) does: the program's own socket is pointed at the container, and getpeername(2) and
recvmsg(2) go on saying ::1. It hangs at the root of the cgroup tree as this process sees it, looks
at sockets of this process's network namespace only (a container has a ::1 of its own), and stays
when the process ends. Needs cgroup v2 and Linux 5.7 (bpf_get_netns_cookie); `Hook` raises OSError
where there is none.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from weft.kernel import bpf

ENTRIES = 1 << 14
_SO_NETNS_COOKIE = 71
_COOKIE_OF_SOCKET, _COOKIE_OF_NETNS, _FIND, _UPDATE = 46, 122, 1, 2  # BPF_FUNC_*
_IP, _PORT, _PROTOCOL = (8, 12, 16, 20), 24, 36  # struct bpf_sock_addr
_ONE = struct.unpack("=i", b"\0\0\0\x01")[0]  # the last word of ::1
_KEY = struct.Struct("=I2s2x")
_CONTEXT, _FOUND, _STACK = 6, 7, 10


class Port(NamedTuple):
    """A published port: protocol number and port."""

    protocol: int
    number: int


class Goal(NamedTuple):
    """Where it leads: 16 octets and a port."""

    ip: bytes
    number: int


class Hook:
    """The hook in its place. One a namespace; a second takes the place of the first at once."""

    def __init__(self, goals: Mapping[Port, Goal]) -> None:
        """Load with these goals, then attach. Raises OSError."""
        self._ports = bpf.make_map(bpf.HASH, 8, 20, ENTRIES, _name())
        flows = -1
        try:
            for port, goal in goals.items():
                self.put(port, goal)
            flows = bpf.make_map(bpf.LRU_HASH, 8, 24, ENTRIES, _name())
            self._attach(flows)
        except BaseException:
            self.close()
            raise
        finally:
            if flows >= 0:
                os.close(flows)  # the programs keep it

    def _attach(self, flows: int) -> None:
        there, back = _there(self._ports, flows), _back(flows)
        with _root() as cgroup:
            for hook, code in (
                (bpf.RECVMSG6, back),
                (bpf.GETPEERNAME6, back),
                (bpf.SENDMSG6, there),
                (bpf.CONNECT6, there),
            ):
                program = bpf.load(bpf.CGROUP_SOCK_ADDR, hook, code, _name())
                before = _ours(cgroup.number, hook)
                try:
                    bpf.attach(cgroup.number, program, hook, before[0] if before else None)
                finally:
                    for each in (program, *before):
                        os.close(each)

    def put(self, port: Port, goal: Goal) -> None:
        """Lead a port there."""
        value = goal.ip + goal.number.to_bytes(2, "big") + b"\0\0"
        bpf.put(self._ports, _key(port), value)

    def drop(self, port: Port) -> None:
        """Lead a port nowhere; an unknown one is fine."""
        try:
            bpf.drop(self._ports, _key(port))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def close(self) -> None:
        """Give the map back; the hook stays where it is."""
        os.close(self._ports)


class _Root:
    """The root of the cgroup tree, open."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> _Root:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def _root() -> _Root:
    found = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            top, place = before.split()[3:5]
            if after.startswith("cgroup2 ") and top == "/":  # others are parts, or not ours to see
                found = place.encode().decode("unicode_escape")
    if not found:
        raise OSError(errno.ENODEV, "no cgroup v2 tree is mounted")
    return _Root(found)


def remove() -> None:
    """Take our programs off, whoever attached them; none, or no cgroups at all, are fine."""
    with suppress(OSError), _root() as cgroup:
        for hook in (bpf.CONNECT6, bpf.SENDMSG6, bpf.GETPEERNAME6, bpf.RECVMSG6):
            for program in _ours(cgroup.number, hook):
                try:
                    bpf.detach(cgroup.number, program, hook)
                finally:
                    os.close(program)


def _name() -> str:
    """What our programs of this network namespace are called, and nobody else's: several nodes may
    share a cgroup tree. 14 octets of 15 (BPF_OBJ_NAME_LEN)."""
    return f"weft6_{_netns_cookie() & 0xFFFFFFFF:08x}"


def _ours(cgroup: int, hook: int) -> list[int]:
    mine, own = [], _name()
    for program in bpf.attached(cgroup, hook):
        if bpf.name_of(program) == own:
            mine.append(program)
        else:
            os.close(program)
    return mine


def _key(port: Port) -> bytes:
    return _KEY.pack(port.protocol, port.number.to_bytes(2, "big"))


def _netns_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        value = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int(struct.unpack("=Q", value)[0])


def _cookie_on_stack() -> list[bytes | bpf.Jump]:
    """The socket's cookie at -16 of the stack."""
    return [
        bpf.move(1, _CONTEXT),
        bpf.call(_COOKIE_OF_SOCKET),
        bpf.store64(_STACK, -16, 0),
    ]


def _there(ports: int, flows: int) -> list[bytes]:
    """A socket that goes to ::1 and a port in the map goes to the port's goal instead, and that is
    remembered under the socket's cookie: port, then goal."""
    body: list[bytes | bpf.Jump] = [
        bpf.move(_CONTEXT, 1),
        bpf.call(_COOKIE_OF_NETNS),
        bpf.wide(1, _netns_cookie()),
        bpf.unless_same(0, 1),
    ]
    for offset, value in zip(_IP, (0, 0, 0, _ONE), strict=True):
        body += [bpf.load32(2, _CONTEXT, offset), bpf.unless(2, value)]
    body += [
        bpf.load32(2, _CONTEXT, _PROTOCOL),
        bpf.store32(_STACK, -8, 2),
        bpf.load32(2, _CONTEXT, _PORT),
        bpf.store32(_STACK, -4, 2),
        bpf.store32(_STACK, -40, 2),
        bpf.map_of(1, ports),
        bpf.move(2, _STACK),
        bpf.add(2, -8),
        bpf.call(_FIND),
        bpf.if_zero(0),
        bpf.move(_FOUND, 0),
    ]
    for word in range(5):  # four of the address, one of the port
        target = _PORT if word == 4 else _IP[word]
        body += [
            bpf.load32(2, _FOUND, 4 * word),
            bpf.store32(_STACK, -36 + 4 * word, 2),
            bpf.store32(_CONTEXT, target, 2),
        ]
    body += _cookie_on_stack()
    body += [
        bpf.map_of(1, flows),
        bpf.move(2, _STACK),
        bpf.add(2, -16),
        bpf.move(3, _STACK),
        bpf.add(3, -40),
        bpf.constant(4, 0),  # BPF_ANY
        bpf.call(_UPDATE),
    ]
    return bpf.finish(body)


def _back(flows: int) -> list[bytes]:
    """A socket that was led elsewhere, and hears from there, hears of ::1."""
    body: list[bytes | bpf.Jump] = [bpf.move(_CONTEXT, 1), *_cookie_on_stack()]
    body += [
        bpf.map_of(1, flows),
        bpf.move(2, _STACK),
        bpf.add(2, -16),
        bpf.call(_FIND),
        bpf.if_zero(0),
        bpf.move(_FOUND, 0),
    ]
    for word in range(5):
        target = _PORT if word == 4 else _IP[word]
        body += [
            bpf.load32(1, _CONTEXT, target),
            bpf.load32(2, _FOUND, 4 + 4 * word),
            bpf.unless_same(1, 2),
        ]
    for word in range(4):
        body += [
            bpf.constant(1, 0 if word < 3 else _ONE),
            bpf.store32(_CONTEXT, _IP[word], 1),
        ]
    body += [bpf.load32(1, _FOUND, 0), bpf.store32(_CONTEXT, _PORT, 1)]
    return bpf.finish(body)
