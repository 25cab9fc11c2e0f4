"""Asking Docker: rules in its chain DOCKER-USER, which it keeps for others and never changes.

Older releases (20.10, say) have it for IPv4 only: where such a Docker drops IPv6 there is no place
to ask for, and none is made in its name. Ours go behind those of the administrator, who may have
reasons to drop, and before the final RETURN that older releases put there. In nftables they are
written as iptables-nft writes them, or it would refuse to show the table; in legacy iptables by
that program.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from weft.firewalls.admission import MARK, Admission, Direction
from weft.rows.firewalls import Extension, ForeignChain, Line, RuleChange, Ruleset
from weft.rows.rules import Bitwise, Compare, Counter, Expression, Family, Payload, Rule, Verdict

CHAIN = "DOCKER-USER"
PRESENT = "DOCKER"
"""A chain that it has in every family that it filters, whether anything leads to it or not."""
VERSIONS = {Family.IPV4: 4, Family.IPV6: 6}
_COMMENT_SIZE = 256  # XT_MAX_COMMENT_LEN
_OFFSETS: dict[tuple[int, Direction], int] = {
    (4, "from"): 12,
    (4, "to"): 16,
    (6, "from"): 8,
    (6, "to"): 24,
}
_SIDES = {"from": "-s", "to": "-d"}


def chains(ruleset: Ruleset) -> tuple[ForeignChain, ...]:
    """The chains to ask, of both families."""
    return tuple(
        chain
        for chain in ruleset.chains
        if chain.name == CHAIN and chain.table == "filter" and chain.family in VERSIONS
    )


def standing(chain: ForeignChain) -> list[tuple[int, Admission | None]]:
    """Places of our rules in a chain, and what they admit; None for one that bears our mark and
    says something else."""
    return [
        (at, _admission(line.words)) for at, line in enumerate(chain.lines) if line.comment == MARK
    ]


def changes(chain: ForeignChain, wanted: Collection[Admission]) -> tuple[RuleChange, ...]:
    """What makes a chain of nftables hold just the wanted ones, removals first."""
    missing, stale = _difference(chain, wanted)
    removals = [
        RuleChange(
            family=chain.family,
            table=chain.table,
            chain=chain.name,
            handle=chain.lines[at].handle,
        )
        for at in stale
    ]
    last = chain.lines[-1] if chain.lines else None
    before = last.handle if last is not None and _only_returns(last) else 0
    additions = [
        RuleChange(
            family=chain.family,
            table=chain.table,
            chain=chain.name,
            words=rule(each),
            before=before,
        )
        for each in missing
    ]
    return (*removals, *additions)


def commands(chain: ForeignChain, wanted: Collection[Admission]) -> Iterator[list[str]]:
    """The same for a chain of legacy iptables, as commands."""
    missing, stale = _difference(chain, wanted)
    program = "iptables-legacy" if chain.family is Family.IPV4 else "ip6tables-legacy"
    for at in reversed(stale):
        yield [program, "-w", "5", "-D", CHAIN, str(at + 1)]
    left = [line for at, line in enumerate(chain.lines) if at not in stale]
    end = len(left) if left and _only_returns(left[-1]) else len(left) + 1
    for at, each in enumerate(missing, end):
        side = _SIDES[each.direction]
        yield [
            *(program, "-w", "5", "-I", CHAIN, str(at), side, str(each.prefix)),
            *("-m", "comment", "--comment", MARK, "-j", "ACCEPT"),
        ]


def rule(admission: Admission) -> Rule:
    """The rule as iptables-nft makes it: addresses under a mask of whole octets are loaded as
    those octets; a match `comment`; a counter."""
    offset = _OFFSETS[admission.prefix.version, admission.direction]
    note = MARK.encode().ljust(_COMMENT_SIZE, b"\0")
    return (
        *_address(admission, offset),
        Extension(kind="match", name="comment", revision=0, data=note),
        Counter(),
        Verdict(verdict="accept"),
    )


def _address(admission: Admission, offset: int) -> Rule:
    prefix = admission.prefix
    packed = prefix.network_address.packed
    octets, odd = divmod(prefix.prefixlen, 8)
    if not odd and octets:
        load = Payload(base="network", offset=offset, length=octets)
        return load, Compare(op="==", value=packed[:octets])
    load = Payload(base="network", offset=offset, length=len(packed))
    mask = Bitwise(mask=prefix.netmask.packed, xor=bytes(len(packed)))
    return load, mask, Compare(op="==", value=packed)


def _difference(
    chain: ForeignChain, wanted: Collection[Admission]
) -> tuple[list[Admission], list[int]]:
    """Admissions that are missing; places of rules of ours that are not wanted, or twice there."""
    version = VERSIONS[chain.family]
    missing = {each: None for each in wanted if each.prefix.version == version}
    stale: list[int] = []
    for at, admission in standing(chain):
        if admission in missing:
            del missing[admission]
        else:
            stale.append(at)
    return list(missing), stale


def _admission(words: Rule) -> Admission | None:
    rest = [word for word in words if not isinstance(word, Counter | Extension)]
    match rest:
        case [
            Payload() as load,
            Bitwise() as mask,
            Compare(op="==") as compared,
            Verdict(verdict="accept"),
        ]:
            return _of_address(load, mask.mask, compared.value)
        case [Payload() as load, Compare(op="==") as compared, Verdict(verdict="accept")]:
            return _of_address(load, None, compared.value)
    return None


def _of_address(load: Payload, mask: bytes | None, value: bytes) -> Admission | None:
    for (version, direction), offset in _OFFSETS.items():
        size = 4 if version == 4 else 16
        if load.base != "network" or load.offset != offset or len(value) > size:
            continue
        length = 8 * len(value) if mask is None else int.from_bytes(mask).bit_count()
        try:
            prefix = ipaddress.ip_network((value.ljust(size, b"\0"), length))
        except ValueError:
            continue
        return Admission(prefix=prefix, direction=direction)
    return None


def _only_returns(line: Line) -> bool:
    words: list[Expression] = [word for word in line.words if not isinstance(word, Counter)]
    return words == [Verdict(verdict="return")]
