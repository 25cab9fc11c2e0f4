"""Allow-lists of where containers may connect to: rules that all containers with one list share.

    forward (priority -151)  egress          established -- pass
                                             source in `egress4/6` -- out-DIGEST
    input (priority -150)    egress-to-node  established, neighbour discovery -- pass
                                             source in `egress-node4/6` -- node-DIGEST

    out-DIGEST   a container's address -- refuse; (address) or (protocol, address, port) in the
                 list's sets -- pass, of which those to be told of by way of `egress-logged`;
                 refuse
    node-DIGEST  (protocol, address, port) in the list's sets -- pass; refuse

An address of a container comes and goes by one element in each of two maps, a list by its chains
and sets; the frame around them stands while there is any list, so a node without one pays nothing.
A container is known by its source address, which `ingress` has proven, so it does not matter how
it is wired. What is refused is answered, so that a program fails at once: with a reset, or with
port unreachable, of which the kernel sends one receiver about one a second. `drop-egress` counts.
Destinations are judged after translation. Why it is so: docs/adr/0013-egress-lists.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from weft.model.egress import ALL, ICMP, ICMP6, EgressList, Flow, in_order
from weft.render import phrases as p
from weft.render.sets import TABLE
from weft.rows.base import Row
from weft.rows.rules import (
    Bitwise,
    Chain,
    Compare,
    Conntrack,
    Counter,
    Element,
    Family,
    Hook,
    Limit,
    Log,
    Lookup,
    Meta,
    Payload,
    Reject,
    Rule,
    Set,
)

OUT, NODE = "egress", "egress-node"
"""Maps, with the family after the name, of containers' addresses to the chains of their lists: for
what is forwarded, and for what is for the node itself."""
LOGGED = "egress-logged"
PREFIX = "weft-egress "
"""How lines in the kernel's log begin."""
LOG_RATE, LOG_BURST = 10, 50
"""Connections told of: a second, and at once; of the whole node."""

REFUSED: Mapping[str, str] = {"egress": "to where the container's egress list does not allow"}
"""As `ruleset.DROPS`; the chain is there while there are lists."""

_FORWARD_HOOK, _INPUT_HOOK = 2, 1  # NF_INET_FORWARD, NF_INET_LOCAL_IN
_FORWARD_PRIORITY, _INPUT_PRIORITY = -151, -150  # before `forward`; NF_IP_PRI_MANGLE
_RESET = 1  # NFT_REJECT_TCP_RST
_ICMPX, _PORT_UNREACHABLE = 2, 1  # NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH
_SADDR, _DADDR = {4: (12, 4), 6: (8, 16)}, {4: (16, 4), 6: (24, 16)}
_PORT_REGISTER = {4: 10, 6: 13}
_NEIGHBOURS = (b"\x87", b"\x8f")
_OUT_CHAIN, _NODE_CHAIN = "out-", "node-"
_MAPS = frozenset(f"{name}{version}" for name in (OUT, NODE) for version in (4, 6))
_SET = re.compile(r"(all|port|icmp)[46](l?)(n?)-([0-9a-f]{32})")


def frame(*, logs: bool) -> tuple[Row, ...]:
    """What every list needs; `logs`: some list has connections to be told of."""
    told = (
        _chain(
            LOGGED,
            (Limit(rate=LOG_RATE, burst=LOG_BURST), Log(prefix=PREFIX)),
            (Counter(), p.ACCEPT),
        ),
    )
    return (
        *(_map(name, version) for name in (OUT, NODE) for version in (4, 6)),
        _chain(
            "drop-egress",
            (Counter(),),
            (*p.protocol(p.TCP), Reject(type=_RESET)),
            (Reject(type=_ICMPX, code=_PORT_UNREACHABLE),),
        ),
        *(told if logs else ()),
        _base("egress", _FORWARD_HOOK, _FORWARD_PRIORITY, _passing(), *_lookups(OUT)),
        _base(
            "egress-to-node",
            _INPUT_HOOK,
            _INPUT_PRIORITY,
            _passing(),
            # what `ingress` let through of it: solicitations, and reports of multicast listeners
            *((*p.protocol(p.ICMP6), *p.transport(0, kind), p.ACCEPT) for kind in _NEIGHBOURS),
            (*p.protocol(p.ICMP6), *p.between(131, 132), p.ACCEPT),
            *_lookups(NODE),
        ),
    )


def _map(name: str, version: int) -> Set:
    return Set(
        family=Family.INET,
        table=TABLE,
        name=f"{name}{version}",
        key_types=(f"ipv{version}_addr",),
        data_type="verdict",
        comment="containers that have an egress list",
    )


def _chain(name: str, *rules: Rule, hook: Hook | None = None) -> Chain:
    return Chain(family=Family.INET, table=TABLE, name=name, hook=hook, rules=rules)


def _base(name: str, number: int, priority: int, *rules: Rule) -> Chain:
    return _chain(name, *rules, hook=Hook(type="filter", number=number, priority=priority))


def _passing() -> Rule:
    """Answers, and what goes on: a list is about new connections."""
    return (
        Conntrack(key="state"),
        Bitwise(mask=p.ESTABLISHED, xor=bytes(4)),
        Compare(op="!=", value=bytes(4)),
        p.ACCEPT,
    )


def _lookups(name: str) -> tuple[Rule, ...]:
    return tuple(
        (
            *_family(version),
            Payload(base="network", offset=_SADDR[version][0], length=_SADDR[version][1]),
            Lookup(set=f"{name}{version}", data_register=0),
        )
        for version in (4, 6)
    )


# -- one list


def list_rows(wanted: EgressList) -> tuple[Row, ...]:
    """The rows of one list: chains and sets first, then what they hold."""
    digest = wanted.digest
    rules: list[Rule] = []
    frames: list[Row] = []
    elements: list[Element] = []
    for version in (4, 6):
        rules.append((*_family(version), *p.address("daddr", version, "pools"), _REFUSE))
        rules.append((*p.receiver(version), _REFUSE))  # of no pool, but a container here
    for schema, rule, held in _parts(digest, wanted.flows, ""):
        frames.append(schema)
        rules.append(rule)
        elements += held
    services: list[Rule] = []
    for schema, rule, held in _parts(digest, wanted.services, "n"):
        frames.append(schema)
        services.append(rule)
        elements += held
    frames.append(_chain(_OUT_CHAIN + digest, *rules, (_REFUSE,)))
    frames.append(_chain(_NODE_CHAIN + digest, *services, (_REFUSE,)))
    return (*frames, *elements)


_REFUSE = p.refuse("egress")


def members(addresses: Iterable[bytes], digest: str) -> tuple[Element, ...]:
    """The elements of one container; addresses of 4 or 16 octets."""
    return tuple(
        Element(
            family=Family.INET,
            table=TABLE,
            set=f"{name}{4 if len(ip) == 4 else 6}",
            parts=(ip,),
            data=f"goto {chain}{digest}".encode(),
        )
        for ip in addresses
        for name, chain in ((OUT, _OUT_CHAIN), (NODE, _NODE_CHAIN))
    )


def leads(row: Row) -> bool:
    """Whether a row is one of `members`."""
    return isinstance(row, Element) and row.set in _MAPS


def _family(version: int) -> p.Words:
    return p.ipv4() if version == 4 else p.ipv6()


def _parts(
    digest: str, flows: Iterable[Flow], mark: str
) -> Iterator[tuple[Set, Rule, list[Element]]]:
    """(set, rule that asks it, elements) for flows that are asked for alike."""
    groups: dict[tuple[int, str, bool], list[Flow]] = {}
    for flow in flows:
        groups.setdefault((flow.version, _kind(flow), flow.log), []).append(flow)
    for (version, kind, log), alike in sorted(groups.items()):
        name = f"{kind}{version}{'l' if log else ''}{mark}-{digest}"
        address = f"ipv{version}_addr"
        keys = (address,) if kind == "all" else ("inet_proto", address, "inet_service")
        schema = Set(
            family=Family.INET,
            table=TABLE,
            name=name,
            key_types=keys,
            interval=True,
            comment="types and codes as one number" if kind == "icmp" else "",
        )
        verdict = p.goto(LOGGED) if log else p.ACCEPT
        rule = (*_asked(version, kind), Lookup(set=name), verdict)
        yield schema, rule, [_element(name, kind, flow) for flow in alike]


def _kind(flow: Flow) -> str:
    if flow.protocol == ALL:
        return "all"
    return "icmp" if flow.protocol in (ICMP, ICMP6) else "port"


def _asked(version: int, kind: str) -> p.Words:
    offset, length = _DADDR[version]
    if kind == "all":
        return (*_family(version), Payload(base="network", offset=offset, length=length))
    return (
        *_family(version),
        Meta(key="l4proto"),
        Payload(base="network", offset=offset, length=length, register=9),
        # of ICMP type and code, of TCP and UDP the destination's port
        Payload(
            base="transport",
            offset=0 if kind == "icmp" else 2,
            length=2,
            register=_PORT_REGISTER[version],
        ),
    )


def _element(name: str, kind: str, flow: Flow) -> Element:
    low: tuple[bytes, ...] = (flow.first,)
    high: tuple[bytes, ...] = (flow.last,)
    if kind != "all":
        protocol = bytes((flow.protocol,))
        low = (protocol, flow.first, flow.low.to_bytes(2, "big"))
        high = (protocol, flow.last, flow.high.to_bytes(2, "big"))
    # an interval of one value is a plain element, as the kernel tells of it
    upto = high if high != low else None
    return Element(family=Family.INET, table=TABLE, set=name, parts=low, upto=upto)


# -- the way back from the kernel, for a journal that was lost


def is_ours(name: str) -> bool:
    """Whether a set is a list's, or one of the maps that lead to lists."""
    return _SET.fullmatch(name) is not None or name in (f"{OUT}4", f"{OUT}6")


def digests_of(found: Iterable[Element]) -> dict[bytes, str]:
    """Which list the addresses in the maps have."""
    start = f"goto {_OUT_CHAIN}".encode()
    return {
        element.parts[0]: element.data[len(start) :].decode()
        for element in found
        if element.set in (f"{OUT}4", f"{OUT}6")
        and element.data is not None
        and element.data.startswith(start)
    }


def lists_of(found: Iterable[Element]) -> dict[str, EgressList]:
    """The lists that stand, of the elements of all sets; one that was changed has another digest
    than its name, and is not believed."""
    flows: dict[str, list[Flow]] = {}
    services: dict[str, list[Flow]] = {}
    for element in found:
        if (name := _SET.fullmatch(element.set)) is not None:
            held = services if name[3] else flows
            held.setdefault(name[4], []).append(_flow(element, log=bool(name[2])))
    lists = {}
    for digest in {*flows, *services}:
        whole = EgressList(
            flows=in_order(flows.get(digest, ())), services=in_order(services.get(digest, ()))
        )
        if whole.digest == digest:
            lists[digest] = whole
    return lists


def _flow(element: Element, *, log: bool) -> Flow:
    low, high = element.parts, element.upto or element.parts
    if len(low) == 1:
        return Flow(ALL, low[0], high[0], log=log)
    ports = int.from_bytes(low[2], "big"), int.from_bytes(high[2], "big")
    return Flow(low[0][0], low[1], high[1], *ports, log)
