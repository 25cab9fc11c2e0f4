"""What every node holds, with or without pods: tables, sets, chains.

`node_rows` is the ruleset of a working node; `closed_rows` is what stands from boot until the
agent has programmed the node, when pod ranges are not forwarded at all. Both hold a chain
`forward` under one key, so that opening and closing is the replacement of one chain's rules.

Every drop has a chain of its own per reason, `drop-REASON`, with one counter: `weft status` reads
the figures there, and they survive any change of the rules that lead to them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from weft.model.addresses import Prefix
from weft.render import bridge_guards, ingress, published
from weft.render import phrases as p
from weft.render.sets import (
    ROUTED,
    TABLE,
    arp_sets,
    attachment_sets,
    range_elements,
    range_sets,
    strangers,
)
from weft.rows.base import Row
from weft.rows.rules import (
    Chain,
    Counter,
    Family,
    Hook,
    Lookup,
    Masquerade,
    Meta,
    Rule,
    Table,
    Verdict,
)

DROPS: Mapping[str, str] = {
    "spoofed": "a source address or hardware address that is not the pod's",
    "unspecified": "no source address yet (0.0.0.0, ::); a starting kernel sends such by itself",
    "martian": "sent to loopback, to no address, or to an IPv4-mapped address",
    "options": "IPv4 options or an IPv6 routing header",
    "redirects": "ICMP redirects",
    "advertisements": "router advertisements and solicitations",
    "neighbours": "neighbour advertisements; on a bridge those for what is not the pod's",
    "icmp6": "ICMPv6 of a kind that only routers send",
    "dhcp": "answers of a DHCP server",
    "fragments": "IPv6 fragments that hide what they carry",
    "malformed": "IPv6 headers that cannot be followed to their end",
    "link-local": "from a link-local address, other than ICMPv6",
    "tunnels": "tunnelled packets for the node itself",
    "arp": "ARP: pods have a permanent neighbour and need none; elsewhere by another's name",
    "frames": "frames that are neither IP nor ARP, or bear a VLAN tag, from a container's port",
    "bridged": "from a container's own link, which somebody has made a port of a bridge",
    "unknown": "forwarded to a pod's link, but not for its address",
    "gone": "for an address of this node's blocks that has no pod",
    "invalid": "to be masqueraded, but of no connection that could be tracked",
    "closed": "for or from a pod before the agent has programmed the node",
}
"""Why a packet is dropped, in a sentence. Each is the name of a chain, after `drop-`."""

_ELSEWHERE = frozenset(("arp", "frames", "bridged"))  # not in the inet family

_FAMILIES = ((4, p.ipv4()), (6, p.ipv6()))
_NF_ARP_IN = 0
_NF_INET_FORWARD = 2
_NF_INET_POST_ROUTING = 4
_SRCNAT = 100
_INVALID_FROM_PODS = (
    *p.named("iifname"),
    *p.invalid(),
    *p.strange("iifname", inside=False),
    p.goto("untranslated"),
)
_FORWARD = -150  # NF_IP_PRI_MANGLE: after destination translation, before other people's filters


class NodeRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the ruleset depends on.

    `pools` are the ranges of all pods, `blocks` the parts of them that this node hands out,
    `cluster` further ranges that pods reach under their own address (services, and what a setting
    exempts). `masquerade` False: no source translation at all. `strangers` are foreign links whose
    names begin like ours (`sets.strangers_among`). `owner` is the netlink port of the socket that
    alone may change the tables; None: anybody may. `relayed`: protocol, published port, and the
    port on ::1 of the relay that leads there.
    """

    pools: tuple[Prefix, ...] = ()
    blocks: tuple[Prefix, ...] = ()
    cluster: tuple[Prefix, ...] = ()
    masquerade: bool = True
    strangers: tuple[str, ...] = ()
    owner: int | None = None
    bridges: bool = True  # the kernel has rules for bridges
    relayed: tuple[tuple[int, int, int], ...] = ()


def node_rows(plan: NodeRules) -> tuple[Row, ...]:
    """Rows of a working node, each after the rows it refers to."""
    outbound = (_untranslated(), _leaving(), _adopted_out(), _outbound()) if plan.masquerade else ()
    inet, arp, bridge = tables(plan.owner)
    return (
        inet,
        *range_sets("pools", "blocks", "cluster"),
        *attachment_sets(),
        *strangers(Family.INET, plan.strangers),
        *range_elements("pools", plan.pools),
        *range_elements("blocks", plan.blocks),
        *published.relayed(plan.relayed),
        *range_elements("cluster", (*plan.pools, *plan.cluster)),
        *(_drop(Family.INET, reason) for reason in DROPS if reason not in _ELSEWHERE),
        *ingress.chains(),
        *_into_pods(),
        *published.chains(),
        *outbound,
        _forward(_open(plan.masquerade)),
        arp,
        *_arp(plan.strangers),
        *((bridge, *_bridge()) if plan.bridges else ()),
    )


def tables(owner: int | None) -> tuple[Table, Table, Table]:
    """Our tables, of which one who owns them must have all."""
    inet, arp, bridge = (
        Table(family=family, name=TABLE, persist=owner is not None, owner=owner)
        for family in (Family.INET, Family.ARP, Family.BRIDGE)
    )
    return inet, arp, bridge


def closed_rows(pools: tuple[Prefix, ...], *, persist: bool = False) -> tuple[Row, ...]:
    """Rows that keep a booting node from forwarding anything from or to a pod. `persist`: in a
    table that an agent can adopt."""
    rules = tuple(
        (*family, *p.address(side, version, "pools"), p.refuse("closed"))
        for version, family in _FAMILIES
        for side in ("saddr", "daddr")
    )
    return (
        Table(family=Family.INET, name=TABLE, persist=persist),
        *range_sets("pools"),
        *range_elements("pools", pools),
        _drop(Family.INET, "closed"),
        _forward(rules),
    )


def _drop(family: Family, reason: str) -> Chain:
    return Chain(family=family, table=TABLE, name=f"drop-{reason}", rules=((Counter(), p.DROP),))


def _forward(rules: tuple[Rule, ...]) -> Chain:
    return Chain(
        family=Family.INET,
        table=TABLE,
        name="forward",
        hook=Hook(type="filter", number=_NF_INET_FORWARD, priority=_FORWARD),
        rules=rules,
    )


def _into_pods() -> tuple[Chain, ...]:
    def chain(name: str, *rules: Rule) -> Chain:
        return Chain(family=Family.INET, table=TABLE, name=name, rules=rules)

    return (
        chain(
            "to-pods",
            (*p.receiver(4), p.ACCEPT),
            (*p.receiver(6), p.ACCEPT),
            (*p.strange("oifname"), p.ACCEPT),
            (*p.in_segment("oifname"), p.ACCEPT),
            (p.refuse("unknown"),),
        ),
        # a pod behind a bridge of others may have an address of ours
        chain(
            "vacant", (*p.receiver(4), p.ACCEPT), (*p.receiver(6), p.ACCEPT), (p.refuse("gone"),)
        ),
    )


def _open(masquerade: bool) -> tuple[Rule, ...]:
    # A default route would take packets for a pod that is gone out of the node. Only for this
    # node's own blocks: the rest of a pool is rightly reached through other links.
    return (
        (*p.named("oifname"), p.goto("to-pods")),
        (*p.adopted("oifname"), p.goto("to-pods")),
        *(
            (*family, *p.address("daddr", version, "blocks"), p.goto("vacant"))
            for version, family in _FAMILIES
        ),
        *((_INVALID_FROM_PODS, *map(_invalid_from_adopted, (4, 6))) if masquerade else ()),
    )


def _invalid_from_adopted(version: int) -> Rule:
    outside = p.address("daddr", version, "cluster", inside=False)
    return (*p.invalid(), *p.leaver(version), *outside, p.refuse("invalid"))


def _untranslated() -> Chain:
    # No translation for what connection tracking calls invalid (RFC 793's forbidden flags, a wrong
    # checksum, an answer that nobody asked for): it would leave under the pod's own address.
    return Chain(
        family=Family.INET,
        table=TABLE,
        name="untranslated",
        rules=tuple(
            (
                Meta(key="iifname"),
                Lookup(set=ROUTED, invert=True),
                *family,
                *p.address("saddr", version, "pools"),
                *p.address("daddr", version, "cluster", inside=False),
                p.refuse("invalid"),
            )
            for version, family in _FAMILIES
        ),
    )


def _outbound() -> Chain:
    # iifname is known at this hook from Linux 5.7 on; what the node itself sends has none
    return Chain(
        family=Family.INET,
        table=TABLE,
        name="outbound",
        hook=Hook(type="nat", number=_NF_INET_POST_ROUTING, priority=_SRCNAT),
        rules=(
            (*p.not_named("iifname"), p.goto("adopted-out")),
            (*p.ours("oifname"), p.RETURN),
            *((*p.receiver(version), p.RETURN) for version, _ in _FAMILIES),
            (Meta(key="iifname"), Lookup(set=ROUTED), p.RETURN),
            *(
                (
                    *family,
                    *p.address("saddr", version, "pools"),
                    *p.address("daddr", version, "cluster", inside=False),
                    Masquerade(),
                )
                for version, family in _FAMILIES
            ),
        ),
    )


def _adopted_out() -> Chain:
    # whatever is no pod's ends here, after two look-ups a connection
    return Chain(
        family=Family.INET,
        table=TABLE,
        name="adopted-out",
        rules=tuple(
            (
                *p.leaver(version),
                *p.address("daddr", version, "cluster", inside=False),
                p.goto("leaving"),
            )
            for version, _ in _FAMILIES
        ),
    )


def _leaving() -> Chain:
    rules: tuple[Rule, ...] = (
        (*p.ours("oifname"), p.RETURN),
        *((*p.receiver(version), p.RETURN) for version, _ in _FAMILIES),
        # br_netfilter shows what a bridge passes on
        *((*p.to_own_side(version), p.RETURN) for version, _ in _FAMILIES),
        (Masquerade(),),
    )
    return Chain(family=Family.INET, table=TABLE, name="leaving", rules=rules)


def _arp(names: tuple[str, ...]) -> tuple[Row, ...]:
    """A table of its own: the inet family does not see ARP.

    A pod's gateway is a permanent neighbour, and the node's end has no address to ask for, so no
    question of a pod would be answered anyway. Dropped all the same, because the node would learn
    from a question's sender. The node's end of an adopted link has the address that its maker gave
    it, so its pod may ask, and say who it is itself.
    """
    return (
        *arp_sets(),
        *strangers(Family.ARP, names),
        _drop(Family.ARP, "arp"),
        Chain(
            family=Family.ARP,
            table=TABLE,
            name="from-pods",
            hook=Hook(type="filter", number=_NF_ARP_IN, priority=0),
            rules=(
                (*p.from_elsewhere(), p.ACCEPT),
                (*p.strange("iifname"), p.ACCEPT),
                (*p.arp_sender(), p.ACCEPT),
                (p.refuse("arp"),),
            ),
        ),
    )


def _bridge() -> tuple[Row, ...]:
    """A table of its own: what passes from one port to another is not seen elsewhere."""
    chains = bridge_guards.chains()
    lead = {
        word.chain
        for chain in chains
        for rule in chain.rules
        for word in rule
        if isinstance(word, Verdict) and word.chain is not None
    }
    reasons = [reason for reason in DROPS if f"drop-{reason}" in lead]
    return (
        *bridge_guards.sets(),
        *(_drop(Family.BRIDGE, reason) for reason in reasons),
        *chains,
    )
