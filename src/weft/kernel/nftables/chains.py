"""Chains, their hooks, and their rules.

The rules of a chain are replaced all at once: the chain is made or confirmed, its rules flushed,
the wanted ones added, in one transaction; no packet sees a state between.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from weft.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, attributes, nest
from weft.kernel.nftables.expressions import decode_expressions, encode_expression
from weft.kernel.nftables.messages import (
    I32,
    Kind,
    Rank,
    compose,
    number,
    read_number,
    read_text,
    text,
)
from weft.model.errors import Unsupported
from weft.rows.rules import Chain, Expression, Family, Hook, Rule

_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_POLICIES = {"drop": 0, "accept": 1}
_POLICY_WORDS = {value: word for word, value in _POLICIES.items()}
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2


def put_chain(old: Chain | None, new: Chain) -> list[bytes]:
    """Make the chain and replace all of its rules."""
    messages = []
    if old is not None and not _hooked_alike(old.hook, new.hook):
        messages.append(_delete(old, Rank.REHOOK))
    messages.append(_add(new))
    messages.append(_flush(new))
    messages += [_rule(new, rule) for rule in new.rules]
    return messages


def _hooked_alike(old: Hook | None, new: Hook | None) -> bool:
    """Only the policy of a chain may change while it stands."""
    if old is None or new is None:
        return old is new
    return (old.type, old.number, old.priority, old.device) == (
        new.type,
        new.number,
        new.priority,
        new.device,
    )


def _add(row: Chain) -> bytes:
    parts = [text(_CHAIN_TABLE, row.table), text(_CHAIN_NAME, row.name)]
    hook = row.hook
    if hook is not None:
        if hook.policy not in _POLICIES:
            raise Unsupported(f"chain policy {hook.policy!r}: use accept or drop")
        where = number(_HOOK_NUMBER, hook.number) + _priority(hook.priority)
        if hook.device is not None:
            where += text(_HOOK_DEVICE, hook.device)
        parts += [
            nest(_CHAIN_HOOK, where),
            number(_CHAIN_POLICY, _POLICIES[hook.policy]),
            text(_CHAIN_TYPE, hook.type),
        ]
    return compose(Kind.NEWCHAIN, Rank.CHAIN, NLM_F_CREATE, row.family, b"".join(parts))


def _priority(value: int) -> bytes:
    return number(_HOOK_PRIORITY, struct.unpack(">I", I32.pack(value))[0])


def _flush(row: Chain) -> bytes:
    body = text(_RULE_TABLE, row.table) + text(_RULE_CHAIN, row.name)
    return compose(Kind.DELRULE, Rank.FLUSH, 0, row.family, body)


def _rule(row: Chain, rule: Rule) -> bytes:
    body = (
        text(_RULE_TABLE, row.table)
        + text(_RULE_CHAIN, row.name)
        + nest(_RULE_EXPRESSIONS, *(encode_expression(item) for item in rule))
    )
    return compose(Kind.NEWRULE, Rank.RULE, NLM_F_CREATE | NLM_F_APPEND, row.family, body)


def delete_chain(row: Chain) -> list[bytes]:
    """Remove the chain with its rules; EBUSY while another rule leads to it."""
    # Flushed first: two chains that lead to each other, or one whose leader is removed in the same
    # transaction, could not go in any order of removals otherwise.
    return [_flush(row), _delete(row, Rank.UNCHAIN)]


def _delete(row: Chain, rank: Rank) -> bytes:
    body = text(_CHAIN_TABLE, row.table) + text(_CHAIN_NAME, row.name)
    return compose(Kind.DELCHAIN, rank, 0, row.family, body)


def get_chains(family: Family, flags: int) -> bytes:
    """Ask for all chains of a family; the kernel knows no narrower question."""
    return compose(Kind.GETCHAIN, 0, flags, family, b"")


def get_rules(family: Family, table: str, chain: str | None, flags: int) -> bytes:
    """Ask for the rules of a table, or of one of its chains."""
    body = text(_RULE_TABLE, table)
    if chain is not None:
        body += text(_RULE_CHAIN, chain)
    return compose(Kind.GETRULE, 0, flags, family, body)


def decode_chain(body: memoryview) -> Chain:
    """A chain without its rules."""
    values = dict(attributes(body, 4))
    hook = None
    if _CHAIN_HOOK in values:
        where = dict(attributes(values[_CHAIN_HOOK]))
        policy = read_number(values[_CHAIN_POLICY]) if _CHAIN_POLICY in values else 1
        hook = Hook(
            type=read_text(values[_CHAIN_TYPE]) if _CHAIN_TYPE in values else "",
            number=read_number(where[_HOOK_NUMBER]),
            priority=I32.unpack(where[_HOOK_PRIORITY])[0],
            policy=_POLICY_WORDS.get(policy, f"policy {policy}"),
            device=read_text(where[_HOOK_DEVICE]) if _HOOK_DEVICE in where else None,
        )
    return Chain(
        family=Family(body[0]),
        table=read_text(values[_CHAIN_TABLE]),
        name=read_text(values[_CHAIN_NAME]),
        hook=hook,
    )


def decode_rule(body: memoryview) -> tuple[str, str, Rule]:
    """Table, chain and expressions of a rule."""
    values = dict(attributes(body, 4))
    items: Sequence[Expression] = ()
    if _RULE_EXPRESSIONS in values:
        items = decode_expressions(values[_RULE_EXPRESSIONS])
    return read_text(values[_RULE_TABLE]), read_text(values[_RULE_CHAIN]), tuple(items)


def name_of(body: memoryview) -> str:
    """Name in a message about a chain."""
    found = dict(attributes(body, 4)).get(_CHAIN_NAME)
    return read_text(found) if found is not None else ""


def chain_of(body: memoryview) -> tuple[str, str]:
    """Table and chain of a message about a rule."""
    values = dict(attributes(body, 4))
    return read_text(values[_RULE_TABLE]), read_text(values[_RULE_CHAIN])


def figures(body: memoryview) -> tuple[int, int] | None:
    """Packets and octets of a rule's first counter."""
    values = dict(attributes(body, 4))
    for _, item in attributes(values.get(_RULE_EXPRESSIONS, memoryview(b""))):
        parts = dict(attributes(item))
        if read_text(parts[_EXPRESSION_NAME]) == "counter" and _EXPRESSION_DATA in parts:
            found = dict(attributes(parts[_EXPRESSION_DATA]))
            return (
                int.from_bytes(found.get(_COUNTER_PACKETS, b""), "big"),
                int.from_bytes(found.get(_COUNTER_BYTES, b""), "big"),
            )
    return None
