"""Legacy iptables, from the text of `iptables-save`: its chains in the form of `rows.firewalls`.

Only the tables that drop are read (filter, mangle, raw, security). An option that is not in the
tables below makes its rule one of which nobody can tell whether it matches; it never makes the
whole text unreadable.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Iterator

from weft.firewalls import extensions
from weft.rows.firewalls import ForeignChain, Line, Opaque, Ruleset
from weft.rows.rules import (
    Bitwise,
    Compare,
    Expression,
    Family,
    Hook,
    Meta,
    Payload,
    Verdict,
)

TABLES = ("filter", "mangle", "raw", "security")
BUILTIN = {"PREROUTING": 0, "INPUT": 1, "FORWARD": 2, "OUTPUT": 3, "POSTROUTING": 4}
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
_TYPES = {"UNICAST": 1, "LOCAL": 2, "BROADCAST": 3, "ANYCAST": 4, "MULTICAST": 5, "BLACKHOLE": 6}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return"}

Words = tuple[Expression, ...]


class _Unreadable(Exception):
    """An option that is not understood."""


def read_saved(text: str, family: Family) -> Ruleset:
    """All chains of an `iptables-save` (or `ip6tables-save`)."""
    chains: list[ForeignChain] = []
    unread: list[str] = []
    for table, names, rules in _tables(text):
        if table not in TABLES:
            continue
        for name, policy in names.items():
            lines = tuple(_line(words, family, names) for words in rules.get(name, ()))
            chains.append(
                ForeignChain(
                    source="legacy",
                    family=family,
                    table=table,
                    name=name,
                    hook=_hook(table, name, policy),
                    lines=lines,
                )
            )
    return Ruleset(chains=tuple(chains), unread=tuple(unread))


def _hook(table: str, name: str, policy: str) -> Hook | None:
    if name not in BUILTIN:
        return None
    word = "drop" if policy == "DROP" else "accept"
    return Hook(type="filter", number=BUILTIN[name], priority=_PRIORITIES[table], policy=word)


def _tables(text: str) -> Iterator[tuple[str, dict[str, str], dict[str, list[list[str]]]]]:
    """(table, chains with their policies, rules by chain)."""
    table, names, rules = "", dict[str, str](), dict[str, list[list[str]]]()
    for line in text.splitlines():
        if line.startswith("*"):
            table, names, rules = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy = (*line[1:].split(), "", "")[:2]
            names[name] = policy
        elif line == "COMMIT" and table:
            yield table, names, rules
            table = ""
        elif line.lstrip().startswith(("-A ", "[")):
            words = _split(line)
            if len(words) > 1 and words[0] == "-A":
                rules.setdefault(words[1], []).append(words[2:])


def _split(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed: what can be told without
        words = line.split()
    return words[1:] if words and words[0].startswith("[") else words  # counters, with -c


def _line(words: list[str], family: Family, chains: dict[str, str]) -> Line:
    reader = _Reader(words, family, chains)
    found: list[Expression] = []
    ending: Words = ()
    while reader.more:
        try:
            one, ends = reader.option()
        except (_Unreadable, ValueError, IndexError):
            reader.skip()
            one, ends = (Opaque(name="option"),), False
        if ends:
            ending = one
        else:
            found += one
    return Line(words=(*found, *ending), comment=reader.comment)


class _Reader:
    """Walks over the options of one rule."""

    def __init__(self, words: list[str], family: Family, chains: dict[str, str]) -> None:
        self._words = words
        self._at = 0
        self._v6 = family is Family.IPV6
        self._chains = chains
        self.comment = ""

    @property
    def more(self) -> bool:
        return self._at < len(self._words)

    def skip(self) -> None:
        """Over an option that was not understood, to the next one that begins something."""
        while self.more and self._words[self._at] not in ("-m", "-j", "-g"):
            self._at += 1

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def option(self) -> tuple[Words, bool]:
        """Expressions of the next option, and whether it says what becomes of the packet."""
        invert = self._words[self._at] == "!"
        if invert:
            self._at += 1
        name = self._next()
        if name == "-m":
            return self._module(self._next()), False
        if name == "-g":
            return (Verdict(verdict="goto", chain=self._next()),), True
        if name == "-j":
            return self._target(self._next()), True
        reader = _OPTIONS.get(name)
        if reader is None:
            raise _Unreadable(name)
        if name == "--comment":
            self.comment = self._words[self._at]
        return reader(self._next(), invert, self._v6), False

    def _module(self, name: str) -> Words:
        return () if name in _MODULES else (Opaque(name=name),)

    def _target(self, name: str) -> Words:
        self._at = len(self._words)  # what follows are the target's own options
        if name in _VERDICTS:
            return (Verdict(verdict=_VERDICTS[name]),)
        if name in self._chains:
            return (Verdict(verdict="jump", chain=name),)
        return extensions.target_words(name)


def _operator(invert: bool) -> str:
    return "!=" if invert else "=="


def _address(offset4: int, offset6: int) -> Callable[[str, bool, bool], Words]:
    def read(text: str, invert: bool, v6: bool) -> Words:
        prefix = ipaddress.ip_network(text, strict=False)
        value = prefix.network_address.packed
        load = Payload(base="network", offset=offset6 if v6 else offset4, length=len(value))
        mask = Bitwise(mask=prefix.netmask.packed, xor=bytes(len(value)))
        return (load, mask, Compare(op=_operator(invert), value=value))

    return read


def _link(key: str) -> Callable[[str, bool, bool], Words]:
    def read(text: str, invert: bool, _: bool) -> Words:
        name = text[:-1].encode() if text.endswith("+") else text.encode() + b"\0"
        if not name:
            return ()
        return (Meta(key=key), Compare(op=_operator(invert), value=name))

    return read


def _protocol(text: str, invert: bool, _: bool) -> Words:
    if text == "all":
        return ()
    number = _PROTOCOLS.get(text) or int(text)
    return (Meta(key="l4proto"), Compare(op=_operator(invert), value=bytes((number,))))


def _port(offset: int) -> Callable[[str, bool, bool], Words]:
    def read(text: str, invert: bool, _: bool) -> Words:
        low, colon, high = text.partition(":")
        last = int(high or 65535) if colon else int(low)
        return extensions.port_words(offset, int(low or 0), last, invert=invert)

    return read


def _ports(text: str, invert: bool, _: bool) -> Words:
    if ":" in text:
        return (Opaque(name="multiport"),)
    return () if invert else extensions.NEVER


def _states(text: str, invert: bool, _: bool) -> Words:
    words = text.split(",")
    if not set(words) <= _STATES.keys():
        return (Opaque(name="conntrack"),)
    return extensions.state_words(sum(_STATES[word] for word in words), invert=invert)


def _type(side: str) -> Callable[[str, bool, bool], Words]:
    def read(text: str, invert: bool, _: bool) -> Words:
        if text not in _TYPES:
            return (Opaque(name="addrtype"),)
        return extensions.type_words(side, 1 << _TYPES[text], invert=invert)

    return read


def _mark(text: str, invert: bool, _: bool) -> Words:
    value, slash, mask = text.partition("/")
    return extensions.mark_words(
        int(value, 0), int(mask, 0) if slash else 0xFFFFFFFF, invert=invert
    )


_OPTIONS: dict[str, Callable[[str, bool, bool], Words]] = {
    "-s": _address(12, 8),
    "-d": _address(16, 24),
    "-i": _link("iifname"),
    "-o": _link("oifname"),
    "-p": _protocol,
    "--sport": _port(0),
    "--dport": _port(2),
    "--sports": _ports,
    "--dports": _ports,
    "--ports": _ports,
    "--ctstate": _states,
    "--state": _states,
    "--comment": lambda text, invert, v6: (),
    "--src-type": _type("saddr"),
    "--dst-type": _type("daddr"),
    "--mark": _mark,
    **dict.fromkeys(
        ("--icmp-type", "--icmpv6-type", "--rt-type", "--ahspi", "--espspi"),
        lambda text, invert, v6: extensions.NEVER,
    ),
}
"""Option: its value, whether it is inverted, whether it is IPv6's; what it means."""
_MODULES = frozenset(
    (
        *("tcp", "udp", "conntrack", "state", "comment", "addrtype", "mark", "multiport"),
        *("icmp", "icmp6", "rt", "ah", "esp"),
    )
)
"""Modules that mean nothing without options, all of which are above."""
