"""One rule more, or less, in a chain of somebody else's, in the form that iptables-nft writes.

iptables-nft reads a table only if it could have written every rule of it, so a rule may hold
matches of xtables here, and bears NFTA_RULE_COMPAT as its own do. Rules are taken away by their
handle; whoever asks has looked at what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, attribute, nest
from weft.kernel.nftables.expressions import encode_expression
from weft.kernel.nftables.messages import U64, Kind, Rank, compose, number, text
from weft.kernel.nftables.transport import Nftables
from weft.model.errors import KernelRefused
from weft.rows.firewalls import Extension, RuleChange
from weft.rows.rules import Expression

_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_RULE_COMPAT, _RULE_POSITION = 5, 6
_COMPAT_PROTOCOL, _COMPAT_FLAGS = 1, 2
_EXTENSION_NAME, _EXTENSION_REVISION, _EXTENSION_INFO = 1, 2, 3


def change_rules(changes: Sequence[RuleChange]) -> None:
    """Make the changes one by one. Taking away what is gone is no error; raises KernelRefused."""
    with Nftables() as nft:
        for change in changes:
            message = _removal(change) if change.handle else _addition(change)
            for failure in nft.commit([message]):
                place = f"chain {change.family.name.lower()} {change.table} {change.chain}"
                raise KernelRefused(failure.errno, "change a rule of", place, failure.words)


def _addition(change: RuleChange) -> bytes:
    body = (
        text(_RULE_TABLE, change.table)
        + text(_RULE_CHAIN, change.chain)
        + nest(_RULE_EXPRESSIONS, *map(_encode, change.words))
        + nest(_RULE_COMPAT, number(_COMPAT_PROTOCOL, 0), number(_COMPAT_FLAGS, 0))
    )
    if change.before:
        body += attribute(_RULE_POSITION, U64.pack(change.before))
    flags = NLM_F_CREATE if change.before else NLM_F_CREATE | NLM_F_APPEND
    return compose(Kind.NEWRULE, Rank.RULE, flags, change.family, body)


def _removal(change: RuleChange) -> bytes:
    body = (
        text(_RULE_TABLE, change.table)
        + text(_RULE_CHAIN, change.chain)
        + attribute(_RULE_HANDLE, U64.pack(change.handle))
    )
    return compose(Kind.DELRULE, Rank.FLUSH, 0, change.family, body)


def _encode(word: Expression) -> bytes:
    if not isinstance(word, Extension):
        return encode_expression(word)
    body = (
        text(_EXTENSION_NAME, word.name)
        + number(_EXTENSION_REVISION, word.revision)
        + attribute(_EXTENSION_INFO, word.data)
    )
    return nest(1, text(1, word.kind), nest(2, body))
