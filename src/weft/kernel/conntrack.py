"""Connection tracking of a namespace: what it holds, by a filter of the kernel's, and its removal.

ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h). A dump of 120,000 entries takes
0.4 s and must not run on the loop; the kernel filters by parts of the tuple from Linux 5.8 on, so
that only what is asked for is copied. `Socket` is the caller's, of the namespace that is meant.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from weft.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    Socket,
    attribute,
    attributes,
    message,
    nest,
    refused,
)

NETLINK_NETFILTER = 12
_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_ORIG, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTERS_ORIG, _COUNTERS_REPLY, _ID, _ZONE, _FILTER = 9, 10, 12, 18, 25
_IP, _PROTO = 1, 2
_SOURCE, _TARGET = {4: 1, 6: 3}, {4: 2, 6: 4}
_SOURCES = frozenset(_SOURCE.values())
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_ICMP = range(4, 10)  # CTA_PROTO_ICMP_ID to CTA_PROTO_ICMPV6_CODE
_PACKETS, _OCTETS = 1, 2
_BY_SOURCE, _BY_TARGET, _BY_PROTOCOL, _BY_TARGET_PORT = 1, 2, 8, 32  # CTA_FILTER_FLAG_*
_ORIG_FLAGS, _REPLY_FLAGS = 1, 2  # CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS
_FAMILY = {4: 2, 6: 10}
_BE32, _BE64 = struct.Struct("!I"), struct.Struct("!Q")
_TCP_STATE = 1
SEEN_REPLY, DESTINATION_NAT = 1 << 1, 1 << 5  # IPS_SEEN_REPLY, IPS_DST_NAT
TCP_STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK"),
    *("TIME_WAIT", "CLOSE", "SYN_SENT2"),
)


class Tuple(NamedTuple):
    """One direction: addresses of 4 or 16 octets; ports are 0 where the protocol has none. `icmp`:
    the kernel's attributes of type, code and identifier."""

    source: bytes
    target: bytes
    protocol: int
    source_port: int
    target_port: int
    icmp: bytes = b""


class Flow(NamedTuple):
    """One connection. `octets` and `packets` are (original, reply), 0 where nobody counts
    (`net.netfilter.nf_conntrack_acct`); `timeout` in seconds; `state` is TCP's, "" for others."""

    original: Tuple
    reply: Tuple
    status: int
    timeout: int
    state: str
    mark: int
    packets: tuple[int, int]
    octets: tuple[int, int]
    number: int  # CTA_ID: tells this entry from a later one of the same tuple
    zone: int


class Wanted(NamedTuple):
    """Parts of the original tuple to ask for, and who answers; None: any."""

    version: int
    source: bytes | None = None
    target: bytes | None = None
    protocol: int | None = None
    target_port: int | None = None
    answering: bytes | None = None  # source of the reply, behind all translation


def read(via: Socket, wanted: Wanted) -> list[Flow]:
    """The connections of one family with these parts. Raises KernelRefused through `Socket`."""
    body = _head(wanted.version) + _filter(wanted)
    return [_flow(each) for _, each in via.dump(message(_GET, NLM_F_DUMP, body))]


def each(via: Socket, wanted: Wanted, of: Container[bytes]) -> Iterator[Flow]:
    """The connections with these parts whose client or server is one of `of`, as the table is read:
    none is kept here, and
    of the others only the addresses are looked at. Raises Failure."""
    for _, body in via.passing(message(_GET, NLM_F_DUMP, _head(wanted.version) + _filter(wanted))):
        found = dict(attributes(body, 4))
        if _source(found[_ORIG]) in of or _source(found[_REPLY]) in of:
            yield _flow(body)


def _source(data: memoryview) -> bytes:
    """Who sends in this direction."""
    for kind, value in attributes(data):
        if kind == _IP:
            for number, address in attributes(value):
                if number in _SOURCES:
                    return bytes(address)
    return b""


def _head(version: int) -> bytes:
    return bytes((_FAMILY[version], 0, 0, 0))  # struct nfgenmsg


def _filter(wanted: Wanted) -> bytes:
    flags = 0
    ip = proto = b""
    for value, kind, flag in (
        (wanted.source, _SOURCE, _BY_SOURCE),
        (wanted.target, _TARGET, _BY_TARGET),
    ):
        if value is not None:
            ip += attribute(kind[wanted.version], value)
            flags |= flag
    if wanted.protocol is not None:
        proto += attribute(_NUMBER, bytes((wanted.protocol,)))
        flags |= _BY_PROTOCOL
        if wanted.target_port is not None:
            proto += attribute(_TARGET_PORT, wanted.target_port.to_bytes(2, "big"))
            flags |= _BY_TARGET_PORT
    tuples = masks = b""
    if flags:
        parts = (nest(kind, value) for kind, value in ((_IP, ip), (_PROTO, proto)) if value)
        tuples, masks = nest(_ORIG, *parts), attribute(_ORIG_FLAGS, struct.pack("=I", flags))
    if wanted.answering is not None:
        source = attribute(_SOURCE[wanted.version], wanted.answering)
        tuples += nest(_REPLY, nest(_IP, source))
        masks += attribute(_REPLY_FLAGS, struct.pack("=I", _BY_SOURCE))
    return tuples + nest(_FILTER, masks) if masks else b""


def delete(via: Socket, flows: Iterable[Flow]) -> int:
    """Remove these entries; how many were still there."""
    batch = [_deletion(flow) for flow in flows]
    _, failures = via.exchange(batch)
    for failure in failures:
        if failure.errno != errno.ENOENT:
            raise refused(failure, "remove", "a tracked connection")
    return len(batch) - len(failures)


def _deletion(flow: Flow) -> bytes:
    one = flow.original
    version = 4 if len(one.source) == 4 else 6
    ip = attribute(_SOURCE[version], one.source) + attribute(_TARGET[version], one.target)
    proto = attribute(_NUMBER, bytes((one.protocol,)))
    proto += attribute(_SOURCE_PORT, one.source_port.to_bytes(2, "big"))
    proto += attribute(_TARGET_PORT, one.target_port.to_bytes(2, "big"))
    proto += one.icmp
    body = nest(_ORIG, nest(_IP, ip), nest(_PROTO, proto)) + attribute(_ID, _BE32.pack(flow.number))
    if flow.zone:
        body += attribute(_ZONE, flow.zone.to_bytes(2, "big"))
    return message(_DELETE, NLM_F_ACK, _head(version) + body)


def _flow(body: memoryview) -> Flow:
    found = dict(attributes(body, 4))
    return Flow(
        original=_tuple(found[_ORIG]),
        reply=_tuple(found[_REPLY]),
        status=_number(found.get(_STATUS)),
        timeout=_number(found.get(_TIMEOUT)),
        state=_state(found.get(_PROTOINFO)),
        mark=_number(found.get(_MARK)),
        packets=_both(found, _PACKETS),
        octets=_both(found, _OCTETS),
        number=_number(found.get(_ID)),
        zone=int.from_bytes(found.get(_ZONE, b""), "big"),
    )


def _tuple(data: memoryview) -> Tuple:
    parts = dict(attributes(data))
    ip, proto = dict(attributes(parts[_IP])), dict(attributes(parts[_PROTO]))
    version = 4 if _SOURCE[4] in ip else 6
    return Tuple(
        source=bytes(ip[_SOURCE[version]]),
        target=bytes(ip[_TARGET[version]]),
        protocol=proto[_NUMBER][0],
        source_port=int.from_bytes(proto.get(_SOURCE_PORT, b""), "big"),
        target_port=int.from_bytes(proto.get(_TARGET_PORT, b""), "big"),
        icmp=b"".join(attribute(kind, bytes(proto[kind])) for kind in _ICMP if kind in proto),
    )


def _number(data: memoryview | None) -> int:
    return int(_BE32.unpack(data)[0]) if data is not None else 0


def _both(found: dict[int, memoryview], kind: int) -> tuple[int, int]:
    values = []
    for side in (_COUNTERS_ORIG, _COUNTERS_REPLY):
        counters = dict(attributes(found[side])) if side in found else {}
        values.append(int(_BE64.unpack(counters[kind])[0]) if kind in counters else 0)
    return values[0], values[1]


def _state(data: memoryview | None) -> str:
    """CTA_PROTOINFO_TCP_STATE of CTA_PROTOINFO_TCP, both number 1."""
    if data is None:
        return ""
    tcp = dict(attributes(data)).get(1)
    value = dict(attributes(tcp)).get(_TCP_STATE) if tcp is not None else None
    return TCP_STATES[value[0]] if value is not None and value[0] < len(TCP_STATES) else ""
