"""What others' chains do to pods' packets: they drop them, they do not, or nobody can tell.

Each chain at a hook is walked (`walk`) with packets of which not all is known (`flows`); only where
nothing but a drop can happen is a drop said to be certain. Not followed: marks (a pod's packet
bears none), and what extensions of xtables remember.
"""

from __future__ import annotations

import msgspec

from weft.firewalls.flows import FLOWS, Flow, Packet, Question, packets
from weft.firewalls.values import any_of
from weft.firewalls.walk import ChainKey, Fate, Walk
from weft.rows.firewalls import ForeignChain, Ruleset
from weft.rows.rules import Verdict


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A chain's answer to a flow. `dropped` None: nobody can tell. `place`: where it is dropped,
    a chain's name, or empty for the policy."""

    flow: Flow
    version: int
    dropped: bool | None
    place: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A chain at a hook, and what it does to each flow that passes it. `beside`: chains of its
    table that were read though nothing leads to them."""

    chain: ForeignChain
    leads_to: frozenset[str]
    beside: frozenset[str] = frozenset()
    answers: tuple[Answered, ...]

    def flows(self, dropped: bool | None) -> tuple[Flow, ...]:
        """Flows with this answer, in the order of the table; one that is dropped in one family is
        dropped."""
        found = {flow.name: self._answer(flow) for flow in FLOWS}
        return tuple(
            flow
            for flow in FLOWS
            if any(each.flow is flow for each in self.answers) and found[flow.name] is dropped
        )

    def _answer(self, flow: Flow) -> bool | None:
        return any_of(each.dropped for each in self.answers if each.flow is flow)

    @property
    def drops(self) -> tuple[Flow, ...]:
        """Flows that certainly end here."""
        return self.flows(True)

    @property
    def unclear(self) -> tuple[Flow, ...]:
        """Flows of which nobody can tell."""
        return self.flows(None)


def judge(ruleset: Ruleset, question: Question) -> tuple[Judgement, ...]:
    """Every chain at a hook that flows of pods pass."""
    chains = {_key(chain): chain for chain in ruleset.chains}
    sets = {(each.family, each.table, each.name): each for each in ruleset.sets}
    asked = [(flow, packet) for flow in FLOWS for packet in packets(flow, question)]
    reached = {_key(chain): _reached(chain, chains) for chain in ruleset.chains if chain.hook}
    found = []
    for chain in ruleset.chains:
        if chain.hook is None:
            continue
        walk = Walk(chains, sets)
        answers = [
            answered
            for flow, packet in asked
            if (answered := _answer(walk, chain, flow, packet)) is not None
        ]
        if answers:
            found.append(
                Judgement(
                    chain=chain,
                    leads_to=reached[_key(chain)],
                    beside=_beside(chain, ruleset, reached),
                    answers=tuple(answers),
                )
            )
    return tuple(found)


def _beside(
    base: ForeignChain, ruleset: Ruleset, reached: dict[ChainKey, frozenset[str]]
) -> frozenset[str]:
    """Names of chains of its table that no chain at a hook leads to."""
    place = _key(base)[:3]
    led_to: set[str] = set()
    for key, names in reached.items():
        led_to |= names if key[:3] == place else frozenset()
    return frozenset(
        chain.name
        for chain in ruleset.chains
        if _key(chain)[:3] == place and chain.hook is None and chain.name not in led_to
    )


def _answer(walk: Walk, chain: ForeignChain, flow: Flow, packet: Packet) -> Answered | None:
    hook = chain.hook
    if hook is None or hook.number not in packet.hooks or chain.family not in packet.families:
        return None
    walk.begin(packet, hook.number)
    fates = walk.chain(chain, 0)
    place = walk.place
    if Fate.RETURN in fates:
        end = Fate.DROP if hook.policy == "drop" else Fate.ACCEPT
        place = "" if end is Fate.DROP else place
        fates = fates - {Fate.RETURN} | {end}
    dropped = {frozenset((Fate.DROP,)): True, frozenset((Fate.ACCEPT,)): False}.get(fates)
    return Answered(
        flow=flow, version=packet.version, dropped=dropped, place=place if dropped else ""
    )


def _key(chain: ForeignChain) -> ChainKey:
    return chain.source, chain.family, chain.table, chain.name


def _reached(first: ForeignChain, chains: dict[ChainKey, ForeignChain]) -> frozenset[str]:
    """Names of all chains that rules of this one lead to."""
    reached: set[str] = set()
    waiting = [first]
    while waiting:
        chain = waiting.pop()
        for line in chain.lines:
            for word in line.words:
                if isinstance(word, Verdict) and word.chain and word.chain not in reached:
                    reached.add(word.chain)
                    found = chains.get((chain.source, chain.family, chain.table, word.chain))
                    if found is not None:
                        waiting.append(found)
    return frozenset(reached)
