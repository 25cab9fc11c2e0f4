"""rtnetlink messages of traffic control: token buckets, and the redirection of what comes in.

A token bucket is a tbf at the root of a device, its rate computed by the kernel (linklayer
Ethernet needs no rate table). Redirection is one u32 filter that matches everything, with mirred
as its action, at the ingress of a clsact: u32 and not matchall, which some kernels lack. Such a
filter cannot be changed in place; it is taken away and made again.
Source: include/uapi/linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h; net/sched/sch_tbf.c,
cls_u32.c, act_mirred.c.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from weft.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes,
    chosen,
    message,
    nest,
)

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTNLGRP_TC = 4

_ROOT = 0xFFFFFFFF  # TC_H_ROOT
_CLSACT = 0xFFFFFFF1  # TC_H_CLSACT, which is also TC_H_INGRESS
_CLSACT_HANDLE = 0xFFFF0000
_INGRESS = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
_FIRST = 1 << 16  # the filter's priority: nobody can be before it
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_KIND, _OPTIONS = 1, 2
_PARMS, _RATE64, _BURST = 1, 4, 6  # TCA_TBF_*
_SEL, _ACT = 5, 7  # TCA_U32_*
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS = 2
_TERMINAL = 1  # TC_U32_TERMINAL
_STOLEN, _EGRESS_REDIRECT = 4, 1  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_MOST_RATE = 0xFFFFFFFF
_TICK = 64
"""Nanoseconds in which the kernel tells how long a full bucket lasts (PSCHED_SHIFT 6)."""

_TCM = struct.Struct("=BxxxiIII")  # tcmsg: family, index, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec: -, linklayer, overhead, -, mpu, rate
_QUEUE = struct.Struct("=III")  # the rest of tc_tbf_qopt: limit, buffer, mtu
_NUMBER = struct.Struct("=I")
_LARGE = struct.Struct("=Q")
_SELECTOR = struct.Struct("=BBBxHHhhI")  # tc_u32_sel: flags, -, keys, -, -, -, -, -
_SEL_KEY = struct.Struct("=IIii")  # tc_u32_key: mask, value, offset, -
_MIRRED = struct.Struct("=IIiiiiI")  # tc_mirred: tc_gen (index, capab, action, -, -), eaction, to
_QDISC_PARTS = frozenset((_KIND, _OPTIONS))


class Queue(NamedTuple):
    """A queueing discipline. Of a tbf: `rate` in octets a second, `lasts` the nanoseconds in which
    a full bucket is filled, `limit` in octets; of others 0."""

    ifindex: int
    kind: str
    is_root: bool
    rate: int = 0
    lasts: int = 0
    limit: int = 0


class Filter(NamedTuple):
    """A filter at the ingress. `to`: number of the link that it sends everything to; 0: it does
    something else, or that link is gone."""

    ifindex: int
    priority: int
    to: int


def set_bucket(index: int, rate: int, burst: int, limit: int) -> bytes:
    """A token bucket at the root of a link: made, changed, or put in the place of another kind.

    `rate` in octets a second, `burst` and `limit` in octets (below 2**32). ENOENT: the kernel has
    no tbf."""
    small = min(rate, _MOST_RATE)
    parameters = _RATE.pack(0, _ETHERNET, 0, 0, 0, small) + bytes(_RATE.size)
    options = attribute(_PARMS, parameters + _QUEUE.pack(limit, 0, 0))
    options += attribute(_BURST, _NUMBER.pack(burst))
    if rate >= _MOST_RATE:
        options += attribute(_RATE64, _LARGE.pack(rate))
    body = (
        _TCM.pack(0, index, 0, _ROOT, 0) + attribute(_KIND, b"tbf\0") + attribute(_OPTIONS, options)
    )
    return message(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_bucket(index: int) -> bytes:
    """Take away what is at the root of a link; EINVAL or ENOENT where nothing is."""
    return message(RTM_DELQDISC, NLM_F_ACK, _TCM.pack(0, index, 0, _ROOT, 0))


def add_hooks(index: int) -> bytes:
    """A clsact, to which filters are attached. ENOENT: the kernel has none."""
    body = _TCM.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + attribute(_KIND, b"clsact\0")
    return message(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE, body)


def delete_hooks(index: int) -> bytes:
    """Take a clsact (or an ingress) away with all of its filters."""
    return message(RTM_DELQDISC, NLM_F_ACK, _TCM.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0))


def add_redirect(index: int, to: int) -> bytes:
    """Send everything that comes in by link `index` out by link `to`; the clsact is there.

    ENOENT: the kernel has no u32 or no mirred."""
    mirred = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, to)
    action = nest(
        1, attribute(_ACT_KIND, b"mirred\0"), nest(_ACT_OPTIONS, attribute(_MIRRED_PARMS, mirred))
    )
    selector = _SELECTOR.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _SEL_KEY.pack(0, 0, 0, 0)
    body = (
        _TCM.pack(0, index, 0, _INGRESS, _FIRST | _ALL_PROTOCOLS)
        + attribute(_KIND, b"u32\0")
        + nest(_OPTIONS, attribute(_SEL, selector), nest(_ACT, action))
    )
    return message(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)


def get_queues() -> bytes:
    """A dump of all queueing disciplines but those that every link has. Never asked for one by
    one: before Linux 6.10 the answer to that goes to everybody who listens."""
    return message(RTM_GETQDISC, NLM_F_DUMP, _TCM.pack(0, 0, 0, 0, 0))


def get_filters(index: int) -> bytes:
    """A dump of the filters at a link's ingress, in the order in which packets meet them."""
    return message(RTM_GETTFILTER, NLM_F_DUMP, _TCM.pack(0, index, 0, _INGRESS, 0))


def index_of(body: memoryview) -> int:
    """The number of the link in any message about traffic control."""
    return int(_TCM.unpack_from(body)[1])


def decode_queue(body: memoryview) -> Queue:
    """An RTM_NEWQDISC or RTM_DELQDISC message."""
    _, index, _, parent, _ = _TCM.unpack_from(body)
    found = chosen(body, _TCM.size, _QDISC_PARTS)
    kind = bytes(found.get(_KIND, b"")).rstrip(b"\0").decode(errors="replace")
    rate = lasts = limit = 0
    if kind == "tbf" and _OPTIONS in found:
        options = dict(attributes(found[_OPTIONS]))
        parameters = options.get(_PARMS)
        if parameters is not None and len(parameters) >= 2 * _RATE.size + _QUEUE.size:
            rate = _RATE.unpack_from(parameters)[5]
            peak = _RATE.unpack_from(parameters, _RATE.size)[5]
            limit, ticks, _ = _QUEUE.unpack_from(parameters, 2 * _RATE.size)
            lasts = ticks * _TICK
            if _RATE64 in options:
                rate = _LARGE.unpack(options[_RATE64])[0]
            if peak:  # a second bucket, which ours never have
                rate = 0
    return Queue(index, kind, parent == _ROOT, rate, lasts, limit)


def decode_filter(body: memoryview) -> Filter | None:
    """An RTM_NEWTFILTER message; None for what holds filters but is none."""
    _, index, _, _, info = _TCM.unpack_from(body)
    found = dict(attributes(body, _TCM.size))
    kind = bytes(found.get(_KIND, b"")).rstrip(b"\0")
    options = dict(attributes(found[_OPTIONS])) if _OPTIONS in found else {}
    if kind == b"u32" and _SEL not in options:
        return None
    return Filter(index, info >> 16, _target(options) if kind == b"u32" else 0)


def _target(options: dict[int, memoryview]) -> int:
    """Where a u32 filter sends everything; 0: it does not."""
    keys = _SELECTOR.unpack_from(options[_SEL])[2]
    masks = [
        _SEL_KEY.unpack_from(options[_SEL], _SELECTOR.size + at * _SEL_KEY.size)[0]
        for at in range(keys)
    ]
    for _, action in attributes(options.get(_ACT, memoryview(b""))):
        said = dict(attributes(action))
        if any(masks) or bytes(said.get(_ACT_KIND, b"")).rstrip(b"\0") != b"mirred":
            return 0
        inner = dict(attributes(said[_ACT_OPTIONS])) if _ACT_OPTIONS in said else {}
        if _MIRRED_PARMS not in inner:
            return 0
        _, _, verdict, _, _, how, to = _MIRRED.unpack_from(inner[_MIRRED_PARMS])
        return to if (verdict, how) == (_STOLEN, _EGRESS_REDIRECT) else 0
    return 0
