"""The sets of the node's ruleset, and their elements.

One set for each question that a rule asks, so that an attachment comes and goes by elements alone
and no rule is ever touched. Sets are asked by hash except the few of address ranges, so the cost
of a packet does not grow with the number of pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from weft.model.addresses import Prefix
from weft.model.attachment import LINK_PREFIX
from weft.rows.rules import Element, Family, Set

TABLE = "weft"

_GUARDS = {4: "guard4", 6: "guard6"}
_LOCALS = {4: "local4", 6: "local6"}
ROUTED = "routed"
"""Host links whose pods leave the node under their own address (ip_masq false)."""

PORTS = {4: "ports4", 6: "ports6"}
"""Maps of ports that are published on every address of the node."""

HOST_PORTS = {4: "hostports4", 6: "hostports6"}
"""Maps of ports that are published on one address of the node."""

ADOPTED = "adopted"
"""Links of other plugins' pairs that are guarded as ours are. In the table of ARP, too."""

SEGMENTS = "segments"
"""Bridges whose ports reach each other without the node."""

OUT = {4: "out4", 6: "out6"}
"""Pods behind adopted links that are masqueraded: the link, as the IP layer sees it, and source."""

LOCALNET = "localnet"
"""Bridges of others that let answers for 127/8 in, for the sake of a pod behind them."""

ARP_GUARD = "guard"
"""In the table of ARP: what pods behind adopted links may say of themselves."""

LOOPBACK = "loopback6"
"""Map of ports that a relay leads by ::1."""

STRANGERS = "strangers"
"""Links whose names begin like ours and that are not ours."""

_OUR_NAME = re.compile(re.escape(LINK_PREFIX) + "[a-z2-7]{13}")


def _version(ip: bytes) -> int:
    return 4 if len(ip) == 4 else 6


def _set(
    name: str,
    *key_types: str,
    interval: bool = False,
    data_type: str | None = None,
    comment: str,
) -> Set:
    return Set(
        family=Family.INET,
        table=TABLE,
        name=name,
        key_types=key_types,
        data_type=data_type,
        interval=interval,
        comment=comment,
    )


def strangers_among(names: Iterable[str]) -> tuple[str, ...]:
    """Of the links of a node, those that begin like ours and are not."""
    return tuple(
        sorted(
            name
            for name in set(names)
            if name.startswith(LINK_PREFIX) and not _OUR_NAME.fullmatch(name)
        )
    )


def strangers(family: Family, names: Iterable[str]) -> tuple[Set | Element, ...]:
    """The set of foreign links in the table of this family, with its elements."""
    return (
        Set(
            family=family,
            table=TABLE,
            name=STRANGERS,
            key_types=("ifname",),
            comment="foreign links with our prefix",
        ),
        *(
            Element(family=family, table=TABLE, set=STRANGERS, parts=(name.encode(),))
            for name in names
        ),
    )


def range_sets(*names: str) -> tuple[Set, ...]:
    """Interval sets of both families."""
    comments = {
        "pools": "addresses of pods, here and elsewhere",
        "blocks": "addresses of this node's pods",
        "cluster": "reached without masquerade",
    }
    return tuple(
        _set(f"{name}{version}", f"ipv{version}_addr", interval=True, comment=comments[name])
        for name in names
        for version in (4, 6)
    )


def attachment_sets() -> tuple[Set, ...]:
    """The sets whose elements belong to one attachment each."""
    rows = []
    for version in (4, 6):
        rows.append(
            _set(
                _GUARDS[version],
                "ifname",
                "ether_addr",
                f"ipv{version}_addr",
                comment="what may come out of a pod",
            )
        )
        rows.append(
            _set(_LOCALS[version], "ifname", f"ipv{version}_addr", comment="what may go into a pod")
        )
        port = ("inet_proto", "inet_service")
        target = f"ipv{version}_addr . inet_service"
        words = "ports of this node that lead to pods"
        rows.append(_set(PORTS[version], *port, data_type=target, comment=words))
        key = (f"ipv{version}_addr", *port)
        words = "ports of one address of this node that lead to pods"
        rows.append(_set(HOST_PORTS[version], *key, data_type=target, comment=words))
        words = "pods of adopted links that are masqueraded"
        rows.append(_set(OUT[version], "ifname", f"ipv{version}_addr", comment=words))
    rows.append(
        _set(
            LOOPBACK,
            *("inet_proto", "inet_service"),
            data_type="ipv6_addr . inet_service",
            comment="ports that a relay on ::1 leads to pods",
        )
    )
    rows.append(_set(SEGMENTS, "ifname", comment="bridges whose ports are not isolated"))
    rows.append(_set(ROUTED, "ifname", comment="pods that are not masqueraded"))
    rows.append(_adopted_set(Family.INET))
    rows.append(_set(LOCALNET, "ifname", comment="bridges whose pods may not speak to 127/8"))
    return tuple(rows)


def arp_sets() -> tuple[Set, ...]:
    """The same in the table of ARP."""
    guard_set = Set(
        family=Family.ARP,
        table=TABLE,
        name=ARP_GUARD,
        key_types=("ifname", "ether_addr", "ipv4_addr"),
        comment="what pods may say of themselves",
    )
    return (_adopted_set(Family.ARP), guard_set)


def _adopted_set(family: Family) -> Set:
    words = "links of other plugins that are guarded"
    return Set(family=family, table=TABLE, name=ADOPTED, key_types=("ifname",), comment=words)


def range_elements(name: str, prefixes: Iterable[Prefix]) -> tuple[Element, ...]:
    """Elements of the two interval sets called `name`; a prefix inside another is left out.

    Adjacent prefixes stay apart: an element then comes and goes with its pool or block, and a
    change of one never touches its neighbour.
    """
    kept: list[Prefix] = []
    for prefix in sorted(set(prefixes), key=lambda p: (p.version, p)):
        if not (kept and kept[-1].overlaps(prefix)):
            kept.append(prefix)
    return tuple(
        Element(
            family=Family.INET,
            table=TABLE,
            set=f"{name}{prefix.version}",
            parts=(prefix.network_address.packed,),
            # an interval of one address is a plain element, as the kernel tells of it
            upto=None if prefix.num_addresses == 1 else (prefix.broadcast_address.packed,),
        )
        for prefix in kept
    )


def guard(link: bytes, mac: bytes, ip: bytes) -> Element:
    """The pod behind `link` may send with this hardware and this IP source address."""
    name = _GUARDS[_version(ip)]
    return Element(family=Family.INET, table=TABLE, set=name, parts=(link, mac, ip))


def local(link: bytes, ip: bytes) -> Element:
    """Packets for `ip` may be forwarded into `link`."""
    return Element(family=Family.INET, table=TABLE, set=_LOCALS[_version(ip)], parts=(link, ip))


def adopted(family: Family, link: bytes) -> Element:
    """The link is guarded as ours are."""
    return Element(family=family, table=TABLE, set=ADOPTED, parts=(link,))


def localnet(bridge: bytes) -> Element:
    """What comes from the bridge for 127/8 is dropped."""
    return Element(family=Family.INET, table=TABLE, set=LOCALNET, parts=(bridge,))


def segment(bridge: bytes) -> Element:
    """The ports of the bridge reach each other without the node."""
    return Element(family=Family.INET, table=TABLE, set=SEGMENTS, parts=(bridge,))


def arp_guard(link: bytes, mac: bytes, ip: bytes) -> Element:
    """The pod behind `link` may say that it has this hardware and this IPv4 address."""
    return Element(family=Family.ARP, table=TABLE, set=ARP_GUARD, parts=(link, mac, ip))


def out(link: bytes, ip: bytes) -> Element:
    """What comes from `link` with this source is masqueraded."""
    return Element(family=Family.INET, table=TABLE, set=OUT[_version(ip)], parts=(link, ip))


def routed(link: bytes) -> Element:
    """What comes from `link` is not masqueraded."""
    return Element(family=Family.INET, table=TABLE, set=ROUTED, parts=(link,))
