"""What a kernel holds, as the octets of its own dumps, to tell quickly that nothing has changed.

A snapshot (`lab.snapshot`) asks iproute2 in two dozen processes; a sweep looks after each of some
thousand trials. Here the same objects are dumped through one socket a namespace and compared as
they come. Only equality means something: a difference is shown and judged by a snapshot. What
changes by itself - counters, ages, the state of a cable - is left out as there.
Source: rtnetlink(7), include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from weft.lab import entering
from weft.lab.crash.scope import Scope
from weft.model.errors import KernelRefused, PeerFault

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the tables changed meanwhile
_ERROR, _DONE = 2, 3
_AF_BRIDGE = 7
_KIND = 0x3FFF  # of an attribute, without the flag of nested ones
_AF_SPEC, _ADDR_GEN_MODE = 26, 8
_FLAGS, _TENTATIVE = 8, 0x40  # IFA_FLAGS, which repeats the flags of the fixed part
_NUD_PERMANENT = 0x80
_LINK_LAYER = 2  # NDA_LLADDR
_MULTICAST = (b"\x01\x00\x5e", b"\x33\x33")
_LIMIT = 10.0  # seconds


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One dump: its request, its family, the width of its entries' fixed part, the bits of that
    to leave out (by the offset of a word of 32 bits), and the attributes to leave out."""

    request: int
    family: int = 0
    fixed: int
    fickle: dict[int, int] = {}
    without: frozenset[int] = frozenset()


_IP = (socket.AF_INET, socket.AF_INET6)
# IFF_RUNNING and IFF_LOWER_UP; the mask of changes. Statistics, carrier, operational state.
_LINKS = Table(
    request=18,
    fixed=16,
    fickle={8: 0x10040, 12: 0xFFFFFFFF},
    without=frozenset((7, 16, 23, 33, 35, 47, 48)),
)
# IFA_F_TENTATIVE; IFA_CACHEINFO
_ADDRESSES = Table(request=22, fixed=8, fickle={0: 0x400000}, without=frozenset((6,)))
# RTNH_F_DEAD, RTNH_F_LINKDOWN; RTA_CACHEINFO, RTA_EXPIRES
_ROUTES = tuple(
    Table(request=26, family=each, fixed=12, fickle={8: 0x11}, without=frozenset((12, 23)))
    for each in _IP
)
_RULES = tuple(Table(request=34, family=each, fixed=12) for each in _IP)
# NDA_CACHEINFO, NDA_PROBES
_NEIGHBOURS = tuple(
    Table(request=30, family=each, fixed=12, without=frozenset((3, 4))) for each in (0, _AF_BRIDGE)
)
# TCA_STATS, TCA_XSTATS, TCA_STATS2
_DISCIPLINES = Table(request=38, fixed=20, without=frozenset((3, 4, 7)))

OF_A_NODE = (_LINKS, _ADDRESSES, *_ROUTES, *_RULES, *_NEIGHBOURS, _DISCIPLINES)
OF_A_POD = (_LINKS, _ADDRESSES, *_ROUTES)


class Dumper(Scope):
    """Dumps some tables of one network namespace, again and again."""

    def __init__(self, network: Path, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._socket = entering.socket_in(network, socket.AF_NETLINK, socket.SOCK_RAW)
        self._socket.settimeout(_LIMIT)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def take(self) -> Counter[bytes]:
        """Every entry of every table, without what changes by itself."""
        found: Counter[bytes] = Counter()
        for number, table in enumerate(self._tables):
            mark = bytes((number,))
            found.update(
                mark + entry
                for each in self._dump(table)
                if (entry := _settled(table, each)) is not None
            )
        return found

    def _dump(self, table: Table) -> list[bytes]:
        while (found := self._once(table)) is None:
            pass  # as often as the tables change beneath it; each time is a full answer
        return found

    def _once(self, table: Table) -> list[bytes] | None:
        body = bytes((table.family,)).ljust(table.fixed, b"\0")
        header = _HEADER.pack(_HEADER.size + len(body), table.request, _DUMP, 1, 0)
        self._socket.send(header + body)
        found: list[bytes] = []
        whole = True
        while True:
            for kind, flags, payload in _messages(self._socket.recv(1 << 16)):
                whole = whole and not flags & _INTERRUPTED
                if kind == _ERROR:
                    refused = -int.from_bytes(payload[:4], "little", signed=True)
                    raise KernelRefused(refused, f"dump {table.request} of family {table.family}")
                if kind == _DONE:
                    return found if whole else None
                found.append(payload)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of each message in a datagram of netlink."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            raise PeerFault("a dump of the kernel cannot be read")
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            raise PeerFault("an attribute of a dump of the kernel cannot be read")
        yield kind & _KIND, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _settled(table: Table, entry: bytes) -> bytes | None:
    """An entry without what changes by itself; None for one that is there or not by itself."""
    fixed = bytearray(entry[: table.fixed])
    for at, bits in table.fickle.items():
        word = int.from_bytes(fixed[at : at + 4], "little") & ~bits
        fixed[at : at + 4] = word.to_bytes(4, "little")
    found = dict(_attributes(entry[table.fixed :]))
    if table in _NEIGHBOURS and _comes_and_goes(table, entry, found):
        return None
    if table is _LINKS and _AF_SPEC in found:
        found[_AF_SPEC] = _way_of_addresses(found[_AF_SPEC])
    if table is _ADDRESSES and _FLAGS in found:
        flags = int.from_bytes(found[_FLAGS], "little") & ~_TENTATIVE
        found[_FLAGS] = flags.to_bytes(4, "little")
    kept = [
        _ATTRIBUTE.pack(len(value), kind) + value
        for kind, value in sorted(found.items())
        if kind not in table.without
    ]
    return bytes(fixed) + b"".join(kept)


def _comes_and_goes(table: Table, entry: bytes, found: dict[int, bytes]) -> bool:
    """Neighbours that were learned, and groups that the kernel joins in a bridge's table."""
    if table.family == _AF_BRIDGE:
        return found.get(_LINK_LAYER, b"").startswith(_MULTICAST)
    return not entry[8] & _NUD_PERMANENT


def _way_of_addresses(families: bytes) -> bytes:
    """How a link makes its IPv6 address: the rest are counters, and sysctls, which are read as
    such."""
    inet6 = dict(_attributes(families)).get(socket.AF_INET6, b"")
    return dict(_attributes(inet6)).get(_ADDR_GEN_MODE, b"")
