"""What a person is told of a firewall that drops pods' packets: whose, where, what, and the
commands that would mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from weft.firewalls.admission import Direction
from weft.firewalls.docker import CHAIN as DOCKER
from weft.firewalls.flows import FORWARD, HOOKS, Flow
from weft.firewalls.judge import Judgement
from weft.firewalls.legacy import BUILTIN, TABLES
from weft.firewalls.owners import NAMES, owners_of
from weft.model.addresses import Prefix
from weft.model.attachment import LINK_PREFIX
from weft.rows.rules import Family

WORDS = {Family.INET: "inet", Family.IPV4: "ip", Family.IPV6: "ip6", Family.BRIDGE: "bridge"}
_VERSIONS = {Family.INET: (4, 6), Family.IPV4: (4,), Family.IPV6: (6,)}
_PROTOCOLS = {4: ("{ arp, ip }", ("ARP", "IPv4")), 6: ("ip6", ("IPv6",))}
_SIDES = {"from": ("-s", "saddr"), "to": ("-d", "daddr")}


def place(judgement: Judgement) -> str:
    """`chain ip filter FORWARD`."""
    chain = judgement.chain
    legacy = " of legacy iptables" if chain.source == "legacy" else ""
    return f"chain {WORDS[chain.family]} {chain.table} {chain.name}{legacy}"


def hook_word(judgement: Judgement) -> str:
    """The name of its hook."""
    hook = judgement.chain.hook
    return HOOKS[hook.number] if hook is not None else ""


def sentence(judgement: Judgement, flows: Sequence[Flow]) -> str:
    """That it drops these flows, and by what."""
    names = {flow.name for flow in flows}
    places = {each.place for each in judgement.answers if each.dropped and each.flow.name in names}
    inner = sorted(places - {"", judgement.chain.name})
    how = f" in {', '.join(inner)}" if inner else " by its policy" if places == {""} else ""
    who = " and ".join(NAMES[word] for word in owners_of(judgement))
    versions = {each.version for each in judgement.answers if each.dropped}
    family = " of IPv4" if versions == {4} else " of IPv6" if versions == {6} else ""
    return f"{place(judgement)} ({who}) drops {listed(flow.words for flow in flows)}{family}{how}"


def doubt(judgement: Judgement) -> str:
    """That nobody can tell."""
    flows = listed(flow.words for flow in judgement.unclear)
    return f"cannot tell whether {place(judgement)} drops {flows}: it has rules not understood here"


def mend(judgement: Judgement, flows: Sequence[Flow], pools: Iterable[Prefix]) -> tuple[str, ...]:
    """The commands that let these flows pass, for the pools of the chain's families. Without a
    place that its owner offers they hold until the owner writes the chain anew."""
    if judgement.chain.family is Family.BRIDGE:
        return tuple(_on_bridge(judgement, flows))
    owner = owners_of(judgement)[0]
    known = tuple(pools)
    versions = _VERSIONS[judgement.chain.family]
    ranges = [pool for pool in known if pool.version in versions]
    sides = _directions(flows)
    if not known:
        return tuple(_by_link(judgement, sides)) if owner not in ("firewalld", "ufw") else ()
    if owner == "firewalld":
        return tuple(_firewalld(ranges))
    if owner == "ufw":
        return tuple(_ufw(judgement, ranges, sides))
    return tuple(_inserted(judgement, ranges, sides))


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _directions(flows: Iterable[Flow]) -> list[Direction]:
    found: dict[Direction, None] = {}
    for flow in flows:
        if flow.sender == "pod":
            found["from"] = None
        if flow.receiver == "pod":
            found["to"] = None
    return list(found)


def _firewalld(ranges: Iterable[Prefix]) -> Iterator[str]:
    for each in ranges:
        yield f"firewall-cmd --permanent --zone=trusted --add-source={each}"
    yield "firewall-cmd --reload"


def _ufw(judgement: Judgement, ranges: list[Prefix], sides: list[Direction]) -> Iterator[str]:
    hook = judgement.chain.hook
    verb = "route allow" if hook is not None and hook.number == FORWARD else "allow"
    for each in ranges:
        for side in sides:
            yield f"ufw {verb} {side} {each}"


def _by_link(judgement: Judgement, sides: list[Direction]) -> Iterator[str]:
    """For pods of whatever range."""
    chain = judgement.chain
    for side in sides:
        letter = "i" if side == "from" else "o"
        if _by_iptables(judgement):
            version = 4 if chain.family is Family.IPV4 else 6
            yield f"{_iptables(judgement, version)} -{letter} {LINK_PREFIX}+ -j ACCEPT"
        else:
            yield f"nft insert rule {_where(judgement)} {letter}ifname {LINK_PREFIX}* accept"


def _inserted(judgement: Judgement, ranges: list[Prefix], sides: list[Direction]) -> Iterator[str]:
    for each in ranges:
        for side in sides:
            option, word = _SIDES[side]
            if _by_iptables(judgement):
                yield f"{_iptables(judgement, each.version)} {option} {each} -j ACCEPT"
            else:
                family = "ip" if each.version == 4 else "ip6"
                yield f"nft insert rule {_where(judgement)} {family} {word} {each} accept"


def _on_bridge(judgement: Judgement, flows: Sequence[Flow]) -> Iterator[str]:
    """For all frames of a protocol, and what finds neighbours for it: on the bridge, those of pods
    bear the node's address as a rule."""
    chain = judgement.chain
    dropped = {each.version for each in judgement.answers if each.dropped and each.flow in flows}
    for version in sorted(dropped):
        types, names = _PROTOCOLS[version]
        if chain.table in TABLES and chain.name in BUILTIN:
            for name in names:
                yield f"ebtables -t {chain.table} -I {chain.name} -p {name} -j ACCEPT"
        else:
            yield f"nft insert rule {_where(judgement)} ether type {types} accept"


def _by_iptables(judgement: Judgement) -> bool:
    chain = judgement.chain
    return chain.source == "legacy" or (
        chain.family is not Family.INET and chain.table in TABLES and chain.name in BUILTIN
    )


def _iptables(judgement: Judgement, version: int) -> str:
    chain = judgement.chain
    program = "iptables" if version == 4 else "ip6tables"
    program += "-legacy" if chain.source == "legacy" else ""
    name = DOCKER if chain.name == "FORWARD" and DOCKER in judgement.leads_to else chain.name
    table = "" if chain.table == "filter" else f" -t {chain.table}"
    return f"{program}{table} -I {name}"


def _where(judgement: Judgement) -> str:
    chain = judgement.chain
    return f"{WORDS[chain.family]} {chain.table} {chain.name}"
