"""Packet filters of others, as far as they are read: never rows of ours, never written back.

Chains with a hook and all chains that they lead to, from nftables or from legacy iptables, in one
form: rules are the kernel's expressions (`rows.rules`), and what those do not describe is an
`Extension` of xtables or `Opaque`. `kernel.nftables.foreign` and `firewalls.legacy` make these,
`firewalls.judge` asks what becomes of a packet in them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from weft.rows.rules import Expression, Family, Hook, Rule, Verdict

Source = Literal["nftables", "legacy"]
"""Who runs the chain: nftables (also for iptables-nft), or the xtables of legacy iptables."""


class Extension(Expression, frozen=True, kw_only=True):
    """A match or target of xtables inside an nftables rule (`kind` match or target): its name,
    revision and the octets of its own struct."""

    kind: str
    name: str
    revision: int
    data: bytes


class Opaque(Expression, frozen=True, kw_only=True):
    """An expression whose meaning is not known here; `name` is the kernel's or the program's."""

    name: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A rule with its comment; `handle` is nftables' number of it, 0 where there is none."""

    words: Rule
    comment: str = ""
    handle: int = 0


class ForeignChain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of somebody else. `whole` False: it has more rules than were read."""

    source: Source = "nftables"
    family: Family
    table: str
    name: str
    hook: Hook | None = None
    lines: tuple[Line, ...] = ()
    whole: bool = True


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """An element of a set: its key, or the first and last key of a range; every part of a
    concatenated key is padded to four octets. `data` is a map's. `low` empty: everything."""

    low: bytes
    high: bytes | None = None
    data: bytes | Verdict | None = None


class ForeignSet(msgspec.Struct, frozen=True, kw_only=True):
    """A set or map; `members` None: not known, because it is large or changes by itself."""

    family: Family
    table: str
    name: str
    key_size: int
    members: tuple[Member, ...] | None


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """A rule to add to a chain of somebody else's, before the one with handle `before` or at the
    end; or, with `handle`, one to take away."""

    family: Family
    table: str
    chain: str
    words: Rule = ()
    before: int = 0
    handle: int = 0


class Ruleset(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. `unread` says what could not be read, a sentence each."""

    chains: tuple[ForeignChain, ...] = ()
    sets: tuple[ForeignSet, ...] = ()
    unread: tuple[str, ...] = ()

    def with_more(self, other: Ruleset) -> Ruleset:
        """Both together."""
        return Ruleset(
            chains=(*self.chains, *other.chains),
            sets=(*self.sets, *other.sets),
            unread=(*self.unread, *other.unread),
        )
