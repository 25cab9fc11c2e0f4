"""One look at the packet filters of others, and asking them to let pods pass. For a worker.

Reads all of them, has them judged, and - where the settings say `admit` - makes each firewall that
offers a place hold just our admissions (`agent.asking`); with `report` whatever we once asked for
is taken back. Every step is idempotent: a look that was cut short is made good by the next one.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec

from weft.agent.asking import Deeds, Order, ask_all
from weft.engines import iptables
from weft.firewalls import docker
from weft.firewalls.advice import WORDS
from weft.firewalls.flows import Question, Uplink
from weft.firewalls.judge import Judgement, judge
from weft.firewalls.legacy import read_saved
from weft.firewalls.report import reported
from weft.kernel.host import read_host
from weft.kernel.netlink import Failure, Socket
from weft.kernel.nftables.foreign import ForeignReader
from weft.kernel.routes import PROTOCOL
from weft.kernel.rtnetlink import find_index, find_link, open_socket
from weft.model.attachment import LINK_PREFIXES
from weft.model.errors import WeftError
from weft.model.settings import PathSettings
from weft.render.sets import TABLE
from weft.rows.firewalls import Ruleset
from weft.rows.rules import Family
from weft.wire.status import ForeignFirewall

NETLINK_ROUTE = 0
RECORD = "firewalld-sources"
MOST_VLANS = 8  # one on the other
FAMILIES = {4: Family.IPV4, 6: Family.IPV6}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done. `asked` and `taken_back` are (firewall, words); `troubles` is what
    went wrong, a sentence each; `legacy`: there are filters whose changes nobody announces;
    `cost`: seconds of a processor for reading and judging, those of programs among them."""

    judgements: tuple[Judgement, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    taken_back: tuple[tuple[str, str], ...] = ()
    troubles: tuple[str, ...] = ()
    legacy: bool = False
    cost: float = 0.0


def look(order: Order) -> Seen:
    """Look, act, and look again where something was changed. What fails is among the troubles."""
    began, cost = _spent(), 0.0
    deeds = Deeds()
    judgements: tuple[Judgement, ...] = ()
    ruleset = Ruleset()
    try:
        question = question_of(order)
        ruleset = read_all(deeds.troubles)
        deeds.troubles += _unseen(question)
        judgements = judge(ruleset, question)
        cost = _spent() - began  # asking is seldom, and bounded by agent.insistence
        if order.admit is not None:
            ask_all(order, ruleset, judgements, deeds)
        if deeds.asked or deeds.taken_back:
            ruleset = read_all([])
            judgements = judge(ruleset, question)
    except WeftError as error:
        deeds.troubles.append(error.message)
    except (OSError, Failure) as error:  # no descriptors left, or an answer that nobody foresaw
        deeds.troubles.append(f"the packet filters of others cannot be read: {error}")
    return Seen(
        judgements=judgements,
        asked=tuple(deeds.asked),
        taken_back=tuple(deeds.taken_back),
        troubles=tuple(dict.fromkeys(deeds.troubles)),
        legacy=any(iptables.tables(version) for version in FAMILIES),
        cost=cost,
    )


def _spent() -> float:
    """Processor time of this thread, and of the programs that this process has waited for."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + programs.ru_utime + programs.ru_stime


def record_path(paths: PathSettings) -> Path:
    """Where is written down what firewalld was asked for: beside the socket, gone with the boot."""
    return Path(paths.socket).with_name(RECORD)


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told without an agent: judgements for pods of whatever range, and the names of
    all chains, as (family, table, chain)."""

    entries: tuple[ForeignFirewall, ...] = ()
    chains: tuple[tuple[str, str, str], ...] = ()
    troubles: tuple[str, ...] = ()


def survey() -> Survey:
    """Look from the outside. Needs root; says in `troubles` what could not be seen."""
    troubles: list[str] = []
    try:
        with Socket(NETLINK_ROUTE) as rtnetlink:
            view = read_host(rtnetlink, skip_protocol=PROTOCOL, skip_links=LINK_PREFIXES)
        uplinks = {way.family: way.link for way in reversed(view.ways_out)}
        with ForeignReader() as reader:
            names = [(WORDS[family], table, chain) for family, table, chain in reader.names()]
        ruleset = read_all(troubles)
        question = question_of(Order(uplinks=uplinks))
    except (WeftError, OSError, Failure) as error:
        return Survey(troubles=(str(error),))
    troubles += _unseen(question)
    names += [(WORDS[chain.family], chain.table, chain.name) for chain in ruleset.chains]
    judged = judge(ruleset, question)
    return Survey(
        entries=reported(judged, ()), chains=tuple(dict.fromkeys(names)), troubles=tuple(troubles)
    )


def read_all(troubles: list[str]) -> Ruleset:
    """Everybody's packet filters, of nftables and of legacy iptables."""
    with ForeignReader() as reader:
        found = reader.read(leave_out=TABLE, also=(docker.CHAIN, docker.PRESENT))
    for version, family in FAMILIES.items():
        try:
            text = iptables.saved(version)
        except WeftError as error:
            troubles.append(error.message)
            continue
        if text is None:
            troubles.append(
                f"legacy {iptables.VERSIONS[version]}tables are in use, and no program here can "
                "tell what they hold: install iptables"
            )
        elif text:
            found = found.with_more(read_saved(text, family))
    troubles += found.unread
    return found


def question_of(order: Order) -> Question:
    """What is asked of others' filters: pools and ways out, as they are now."""
    with open_socket() as rtnetlink:
        uplinks = {version: _uplink(rtnetlink, name) for version, name in order.uplinks.items()}
    return Question(pools=order.pools, families=order.families, uplinks=uplinks)


def _uplink(rtnetlink: Socket, name: str) -> Uplink:
    """The link, and the bridge that it is or lies on, as a VLAN does."""
    found = lower = find_link(rtnetlink, name)
    if found is None:  # it is gone already
        return Uplink(name=name)
    steps = 0
    while lower is not None and lower.kind == "vlan" and lower.peer and steps < MOST_VLANS:
        lower = find_index(rtnetlink, lower.peer)
        steps += 1
    bridge = lower.name if lower is not None and lower.kind == "bridge" else ""
    return Uplink(name=name, index=found.ifindex, bridge=bridge, tagged=lower is not found)


def _unseen(question: Question) -> list[str]:
    """Filters of which nothing can be told here: legacy ebtables, where frames pass a bridge."""
    bridges = sorted({each.bridge for each in question.uplinks.values()} - {""})
    loaded = iptables.bridge_tables() if bridges else ()
    if not loaded:
        return []
    return [
        f"the kernel has legacy ebtables ({', '.join(loaded)}), and what they do to frames of "
        f"bridge {' and '.join(bridges)} is not judged: see `ebtables-legacy -L`"
    ]
