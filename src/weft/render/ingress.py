"""What is asked of every packet that comes out of a pod, before anything else sees it.

Hooked before defragmentation, so each fragment is asked for its source. Written as lists of what
may pass: a packet whose headers cannot be followed to their end meets no `accept` and is dropped.
Nothing here relies on a sysctl, on connection tracking, or on how a receiver reassembles.
Sources: RFC 4861 (who may say what in neighbour discovery), 6980 (never in fragments), 8200
section 4.5 (the first fragment holds all headers), 7126 (IPv4 options), CVE-2020-10749 (router
advertisements), CVE-2020-8558 (127/8 from a neighbour).

    from-pods -- listed4 -- options4, icmp4
              -- listed6 -- martian6, fragments6, link-local6, icmp6
              -- unlisted
"""

from __future__ import annotations

from weft.render import phrases as p
from weft.render.sets import TABLE
from weft.rows.rules import Chain, Family, Hook, Rule

_NF_INET_PRE_ROUTING = 0
_NF_INET_LOCAL_IN = 1
PRIORITY = -450  # NF_IP_PRI_CONNTRACK_DEFRAG is -400, NF_IP_PRI_RAW_BEFORE_DEFRAG -450

_LINK_LOCAL = b"\xfe\x80", b"\xff\xc0"  # fe80::/10, value and mask of the first two octets
_LOOPBACK6 = bytes(15) + b"\x01"
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96
_ROUTER_ALERT = b"\x94"  # RFC 2113
_DHCP_REPLY = b"\x00\x43\x00\x44"  # from port 67 to port 68
SOLICITATION, ADVERTISEMENT = b"\x87", b"\x88"  # of neighbours
_DHCP6_SERVER = b"\x02\x23"  # from port 547

# headers that may not follow a fragment header: nobody between here and the receiver could tell
# what the later fragments of such a packet belong to
_EXTENSIONS = (b"\x00", b"\x2b", b"\x2c", b"\x33", b"\x3c")  # hop-by-hop, routing, fragment, AH,
#                                                              destination options

# protocols that carry a whole packet, whose inner source nobody has asked
_TUNNELS = (b"\x04", b"\x29", b"\x2f")  # IPv4, IPv6, GRE


def chains() -> tuple[Chain, ...]:
    """Chains in an order in which each one finds the chains it refers to."""
    return (
        _chain(Family.INET, "elsewhere", _elsewhere()),
        _chain(Family.INET, "unlisted", _unlisted()),
        *listed(Family.INET, _NEIGHBOURS),
        Chain(
            family=Family.INET,
            table=TABLE,
            name="from-pods",
            hook=Hook(type="filter", number=_NF_INET_PRE_ROUTING, priority=PRIORITY),
            rules=(
                (*p.from_elsewhere(), p.goto("elsewhere")),
                (*p.sender(4), p.goto("listed4")),
                (*p.sender(6), p.goto("listed6")),
                (p.goto("unlisted"),),
            ),
        ),
        Chain(
            family=Family.INET,
            table=TABLE,
            name="to-node",
            hook=Hook(type="filter", number=_NF_INET_LOCAL_IN, priority=PRIORITY),
            rules=_to_node(),
        ),
    )


def listed(family: Family, neighbours: tuple[Rule, ...]) -> tuple[Chain, ...]:
    """The chains `listed4` and `listed6` of a family, and those that they lead to: what a packet
    may be whose source is its sender's. `neighbours` judge solicitations and advertisements."""
    return (
        _chain(family, "options4", _options4()),
        _chain(family, "icmp4", _icmp4()),
        _chain(family, "listed4", _listed4()),
        _chain(family, "icmp6", _icmp6(neighbours)),
        _chain(family, "link-local6", _link_local6()),
        _chain(family, "fragments6", _fragments6()),
        _chain(family, "martian6", _martian6()),
        _chain(family, "listed6", _listed6()),
    )


def _chain(family: Family, name: str, rules: tuple[Rule, ...]) -> Chain:
    return Chain(family=family, table=TABLE, name=name, rules=rules)


def _elsewhere() -> tuple[Rule, ...]:
    # CVE-2020-8558: the kernel itself would drop it, but for the sake of published ports it is let
    # in from these bridges
    return ((*p.ipv4(), *p.network(16, b"\x7f"), *p.led_in(), p.refuse("martian")),)


def _unlisted() -> tuple[Rule, ...]:
    # 0.0.0.0 and :: are what a kernel sends by itself before it has an address: no attack, but
    # nothing that is needed either
    return (
        (*p.strange("iifname"), p.ACCEPT),
        (*p.ipv4(), *p.network(12, bytes(4)), p.refuse("unspecified")),
        (*p.ipv6(), *p.network(8, bytes(16)), p.refuse("unspecified")),
        (p.refuse("spoofed"),),
    )


def _listed4() -> tuple[Rule, ...]:
    return (
        (*p.network(0, b"\x45", "!="), p.jump("options4")),
        (*p.network(16, b"\x7f"), p.refuse("martian")),
        (*p.network(16, b"\x00"), p.refuse("martian")),
        (*p.network(9, p.TCP), p.ACCEPT),
        # the first fragment holds the 8 octets that are asked for below: the kernel takes no
        # other, and drops what overlaps
        (*p.masked(6, b"\x1f\xff", b"\x00\x00", "!="), p.ACCEPT),
        (*p.network(9, p.ICMP), p.goto("icmp4")),
        (*p.network(9, p.UDP), *p.transport(0, _DHCP_REPLY), p.refuse("dhcp")),
    )


def _options4() -> tuple[Rule, ...]:
    # source routes would send a packet where no rule looks; only the option that IGMP needs
    return (
        (*p.network(0, b"\x46"), *p.network(20, _ROUTER_ALERT), p.RETURN),
        (p.refuse("options"),),
    )


def _icmp4() -> tuple[Rule, ...]:
    return (
        (*p.transport(0, b"\x05"), p.refuse("redirects")),
        (*p.between(9, 10), p.refuse("advertisements")),
    )


def _listed6() -> tuple[Rule, ...]:
    return (
        (*p.network(24, bytes(2)), p.jump("martian6")),
        # nearly every packet: no extension header that had to be looked for. Only what the kernel
        # has found to be whole has a protocol, which a bridge has not seen to
        (*p.network(6, p.TCP), *_link_local(8, "!="), *p.protocol(p.TCP), p.ACCEPT),
        (*p.has_header(p.ROUTING), p.refuse("options")),
        (*p.has_header(p.FRAGMENT), p.jump("fragments6")),
        (*_link_local(8), p.goto("link-local6")),
        (*p.protocol(p.ICMP6), p.goto("icmp6")),
        (*p.protocol(p.UDP), *p.transport(0, _DHCP6_SERVER), p.refuse("dhcp")),
        # true whenever the upper protocol was found
        (*p.protocol_other_than(p.ICMP6), p.ACCEPT),
        (p.refuse("malformed"),),
    )


def _martian6() -> tuple[Rule, ...]:
    return (
        (*p.network(24, _LOOPBACK6), p.refuse("martian")),
        (*p.network(24, _MAPPED), p.refuse("martian")),
        (*p.network(24, bytes(16)), p.refuse("martian")),
    )


def _link_local(offset: int, op: str = "==") -> p.Words:
    value, mask = _LINK_LOCAL
    return p.masked(offset, mask, value, op)


def _fragments6() -> tuple[Rule, ...]:
    return (
        *((*p.fragment_next(kind), p.refuse("fragments")) for kind in _EXTENSIONS),
        (*_link_local(8), p.refuse("fragments")),
        (*_link_local(24), p.refuse("fragments")),
        (*p.network(24, b"\xff"), p.refuse("fragments")),
        (*p.later_fragment(), p.ACCEPT),
        # of ICMPv6 only echo is ever large; neighbour discovery in pieces is never honest
        (*p.protocol(p.ICMP6), *p.transport(0, b"\x80", "<"), p.refuse("fragments")),
        (*p.protocol(p.ICMP6), *p.transport(0, b"\x81", ">"), p.refuse("fragments")),
        # true for any 8 octets: they are there
        (*p.transport(0, bytes(8), ">="), p.RETURN),
        (p.refuse("fragments"),),
    )


def _link_local6() -> tuple[Rule, ...]:
    return (
        (*p.protocol(p.ICMP6), p.goto("icmp6")),
        (p.refuse("link-local"),),
    )


_NEIGHBOURS: tuple[Rule, ...] = (
    (*p.transport(0, SOLICITATION), p.ACCEPT),
    # A pod's addresses are permanent neighbours of the node: it is never asked, so whatever
    # it advertises is unasked for. Its own addresses too; only other people's would matter.
    (*p.transport(0, ADVERTISEMENT), *p.in_segment("iifname"), p.ACCEPT),
    (*p.transport(0, ADVERTISEMENT), p.refuse("neighbours")),
)


def _icmp6(neighbours: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return (
        (*p.between(128, 129), p.ACCEPT),  # echo
        (*p.between(1, 4), p.ACCEPT),  # errors
        *neighbours,
        (*p.between(131, 132), p.ACCEPT),  # multicast listener report, done
        (*p.transport(0, b"\x8f"), p.ACCEPT),  # multicast listener report, version 2
        (*p.between(133, 134), p.refuse("advertisements")),
        (*p.transport(0, b"\x89"), p.refuse("redirects")),
        # queries, renumbering, certification paths, router discovery, node information ...
        (p.refuse("icmp6"),),
    )


def _to_node() -> tuple[Rule, ...]:
    # a tunnel of the node's would unpack these and take the inner packet for a neighbour's
    return (
        (*p.from_elsewhere(), p.ACCEPT),
        (*p.strange("iifname"), p.ACCEPT),
        *((*p.protocol(number), p.refuse("tunnels")) for number in _TUNNELS),
    )
