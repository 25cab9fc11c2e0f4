"""Asking others' firewalls to let pods pass, and taking back what is not wanted any more.

What is wanted is worked out by `firewalls`, what each program does by `engines`; this is the little
between them, one method a firewall. Every step is idempotent and for a worker. `agent.foreign`
looks, before and after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from weft.engines import firewalld as firewalld_engine
from weft.engines import iptables
from weft.engines import ufw as ufw_engine
from weft.firewalls import docker, firewalld, ufw
from weft.firewalls.admission import Admission, admissions
from weft.firewalls.flows import FORWARD
from weft.firewalls.judge import Judgement
from weft.firewalls.owners import owners_of
from weft.kernel.host import Network
from weft.kernel.nftables.foreign_rules import change_rules
from weft.model.errors import WeftError
from weft.rows.firewalls import ForeignChain, Ruleset


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for. `admit` None: only look. `record`: the file of `engines.firewalld`;
    `spare`: firewalls that are left as they are this time."""

    pools: tuple[Network, ...] = ()
    families: tuple[int, ...] = (4, 6)
    uplinks: dict[int, str] = {}
    admit: bool | None = None
    record: Path = Path("/nonexistent")
    spare: frozenset[str] = frozenset()


@dataclass(slots=True)
class Deeds:
    """What is done in one look: (firewall, words) that were asked for, and taken back; what went
    wrong, a sentence each."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    taken_back: list[tuple[str, str]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def note(self, owner: str, held: Iterable[str], wanted: Iterable[str]) -> None:
        """From what was held to what is wanted."""
        before, after = set(held), set(wanted)
        self.asked += [(owner, words) for words in sorted(after - before)]
        self.taken_back += [(owner, words) for words in sorted(before - after)]


def ask_all(order: Order, ruleset: Ruleset, judgements: Sequence[Judgement], deeds: Deeds) -> None:
    """Make each firewall that offers a place hold just what is wanted. One that fails is among the
    troubles, and the others are asked all the same."""
    hampering = [
        each
        for each in judgements
        if each.chain.hook is not None
        and each.chain.hook.number == FORWARD
        and (each.drops or each.unclear)
    ]
    wanted = admissions(order.pools) if order.admit else ()
    asking = _Asking(order, ruleset, hampering, wanted, deeds)
    for owner, ask in (
        ("docker", asking.docker),
        ("ufw", asking.ufw),
        ("firewalld", asking.firewalld),
    ):
        if owner in order.spare:
            continue
        try:
            ask()
        except WeftError as error:
            deeds.troubles.append(error.message)


@dataclass(slots=True, frozen=True)
class _Asking:
    """`hampering`: chains of others that forward not all, or may not."""

    order: Order
    ruleset: Ruleset
    hampering: Sequence[Judgement]
    wanted: Collection[Admission]
    deeds: Deeds

    def docker(self) -> None:
        for chain in docker.chains(self.ruleset):
            held = {each for _, each in docker.standing(chain)}
            # once asked for it stays, as it is what keeps the chain from dropping
            needed = bool(held) or any(_leads(each, chain) for each in self.hampering)
            mine = [
                each for each in self.wanted if each.prefix.version == docker.VERSIONS[chain.family]
            ]
            due = mine if needed else []
            if chain.source == "legacy":
                iptables.change(list(docker.commands(chain, due)))
            else:
                change_rules(docker.changes(chain, due))
            before = [
                each.words if each is not None else "a rule that was changed" for each in held
            ]
            self.deeds.note("docker", before, [each.words for each in due])

    def ufw(self) -> None:
        kept = ufw_engine.kept()
        held = ufw.standing(kept.rules)
        needed = any("ufw" in owners_of(each) for each in self.hampering)
        due = self.wanted if held or (needed and ufw.is_enabled(kept.configuration)) else ()
        if set(due) != held:
            ufw_engine.change(ufw.commands(held, due))
            self.deeds.note("ufw", (each.words for each in held), (each.words for each in due))

    def firewalld(self) -> None:
        ours = firewalld_engine.recorded(self.order.record)
        needed = bool(ours) or any("firewalld" in owners_of(each) for each in self.hampering)
        if not needed or not firewalld_engine.BUS.exists():
            return
        prefixes = list(dict.fromkeys(each.prefix for each in self.wanted))
        with firewalld_engine.Firewalld() as bus:
            if not bus.is_running():
                return
            zones = bus.zones({*ours, *map(str, prefixes)})
            plan = firewalld.plan(prefixes, ours, zones)
            self.deeds.troubles += (f"firewalld: {each}" for each in plan.refused)
            if plan.bind:
                firewalld_engine.record(self.order.record, [*ours, *plan.bind])
            for source in plan.bind:
                bus.bind(firewalld.ZONE, source)
                self.deeds.asked.append(("firewalld", f"from {source}"))
            for source in plan.take_back:
                bus.release(firewalld.ZONE, source)
                self.deeds.taken_back.append(("firewalld", f"from {source}"))
            gone = {*plan.take_back, *plan.forget}
            if gone:
                firewalld_engine.record(
                    self.order.record, (each for each in (*ours, *plan.bind) if each not in gone)
                )


def _leads(judgement: Judgement, chain: ForeignChain) -> bool:
    base = judgement.chain
    return (base.source, base.family, base.table) == (
        chain.source,
        chain.family,
        chain.table,
    ) and chain.name in judgement.leads_to
