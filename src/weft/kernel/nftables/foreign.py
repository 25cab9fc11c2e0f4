"""Reading everybody's packet filters: chains at a hook, what they lead to, the sets they ask.

Chain by chain from the hooks on, so that the thousands of chains of a service proxy's address
translation are never read; with bounds, and what is beyond them is said to be unread. Decoding
never fails: an expression that `expressions` does not describe becomes `Opaque`. Cold: for a
worker with a socket of its own.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator

from weft.kernel.netlink import NLM_F_ACK, NLM_F_DUMP, Failure, Socket, attributes
from weft.kernel.nftables import chains, elements
from weft.kernel.nftables.datatypes import VERDICT_TYPE
from weft.kernel.nftables.expressions import Foreign, decode_expressions
from weft.kernel.nftables.messages import Kind, compose, read_number, read_text, text
from weft.kernel.nftables.transport import NETLINK_NETFILTER
from weft.model.errors import KernelRefused
from weft.rows.firewalls import (
    Extension,
    ForeignChain,
    ForeignSet,
    Line,
    Member,
    Opaque,
    Ruleset,
)
from weft.rows.rules import Chain, Expression, Family, Lookup, Rule, Verdict

FAMILIES = (Family.INET, Family.IPV4, Family.IPV6, Family.BRIDGE)
HOOKED = range(5)  # prerouting, input, forward, output, postrouting
FILTERING = ("filter", "route")  # types of chains; address translation drops nothing
MOST_RULES = 2000  # of one chain
MOST_CHAINS = 2000
MOST_MEMBERS = 20_000  # of one set
TRIES = 3

_COMMENT = "comment"
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 3, 4, 7
_EXTENSION_NAME, _EXTENSION_REVISION, _EXTENSION_INFO = 1, 2, 3
_TABLE_NAME, _TABLE_FLAGS, _DORMANT = 1, 2, 1
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_LEN, _SET_DATA_TYPE = 1, 2, 3, 5, 6
_INTERVAL, _CONCAT, _CHANGING = 0x04, 0x80, 0x10 | 0x20 | 0x100  # timeout, dynamic, expressions

Name = tuple[Family, str, str]


class ForeignReader:
    """One look at a time; closes its socket at the end of a `with` block."""

    def __init__(self) -> None:
        self._socket = Socket(NETLINK_NETFILTER)

    def __enter__(self) -> ForeignReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def generation(self) -> int:
        """Number of transactions that the namespace has seen."""
        request = compose(Kind.GETGEN, 0, NLM_F_ACK, 0, b"")
        for _, _, body in self._socket.transact([request]):
            for kind, data in attributes(body, 4):
                if kind == 1:  # NFTA_GEN_ID
                    return read_number(data)
        return 0

    def names(self) -> list[Name]:
        """All chains of all tables, as (family, table, chain)."""
        found: list[Name] = []
        for family in FAMILIES:
            for _, body in self._socket.dump(chains.get_chains(family, NLM_F_DUMP)):
                values = dict(attributes(body, 4))
                found.append(
                    (family, read_text(values[_CHAIN_TABLE]), read_text(values[_CHAIN_NAME]))
                )
        return found

    def read(self, *, leave_out: str, also: Collection[str] = ()) -> Ruleset:
        """All filters but those in tables named `leave_out`; chains named in `also` even where
        nothing leads to them. Read again if they change meanwhile, a few times."""
        found = Ruleset()
        for _ in range(TRIES):
            before = self.generation()
            found = _Look(self._socket, leave_out, frozenset(also)).all()
            if self.generation() == before:
                break
        return found


class _Look:
    """One pass over all families."""

    def __init__(self, socket: Socket, leave_out: str, also: frozenset[str]) -> None:
        self._socket = socket
        self._leave_out = leave_out
        self._also = also
        self._unread: list[str] = []

    def all(self) -> Ruleset:
        read: dict[Name, ForeignChain] = {}
        sets: list[ForeignSet] = []
        for family in FAMILIES:
            known = self._chains(family)
            here = self._reached(family, known, sets)
            read |= here
        return Ruleset(
            chains=tuple(read.values()), sets=tuple(sets), unread=tuple(dict.fromkeys(self._unread))
        )

    def _chains(self, family: Family) -> dict[tuple[str, str], Chain]:
        awake = {
            read_text(values[_TABLE_NAME])
            for values in self._dump(compose(Kind.GETTABLE, 0, NLM_F_DUMP, family, b""))
            if not read_number(values.get(_TABLE_FLAGS, memoryview(bytes(4)))) & _DORMANT
        }
        found = {}
        for body in self._bodies(chains.get_chains(family, NLM_F_DUMP)):
            try:
                chain = chains.decode_chain(body)
            except (KeyError, ValueError, struct.error):
                self._unread.append(f"a chain of family {family.name.lower()} is not understood")
                continue
            if chain.table in awake and chain.table != self._leave_out:
                found[chain.table, chain.name] = chain
        return found

    def _reached(
        self, family: Family, known: dict[tuple[str, str], Chain], sets: list[ForeignSet]
    ) -> dict[Name, ForeignChain]:
        waiting = [
            place
            for place, chain in known.items()
            if chain.name in self._also
            or (
                chain.hook is not None
                and chain.hook.type in FILTERING
                and chain.hook.number in HOOKED
            )
        ]
        held: dict[tuple[str, str], ForeignSet] = {}
        found: dict[Name, ForeignChain] = {}
        while waiting:
            table, name = waiting.pop()
            if (family, table, name) in found or (table, name) not in known:
                continue
            if len(found) >= MOST_CHAINS:
                self._unread.append(f"table {family.name.lower()} {table} has too many chains")
                break
            chain = self._rules(family, known[table, name])
            found[family, table, name] = chain
            waiting += self._leads(family, chain, held)
        sets += held.values()
        return found

    def _rules(self, family: Family, chain: Chain) -> ForeignChain:
        lines: list[Line] = []
        whole = True
        for body in self._bodies(chains.get_rules(family, chain.table, chain.name, NLM_F_DUMP)):
            if len(lines) == MOST_RULES:
                whole = False
                break
            lines.append(decode_line(body))
        return ForeignChain(
            family=family,
            table=chain.table,
            name=chain.name,
            hook=chain.hook,
            lines=tuple(lines),
            whole=whole,
        )

    def _leads(
        self, family: Family, chain: ForeignChain, held: dict[tuple[str, str], ForeignSet]
    ) -> Iterator[tuple[str, str]]:
        """The chains that rules lead to; the sets they ask are read on the way."""
        for line in chain.lines:
            for word in line.words:
                if isinstance(word, Verdict) and word.chain:
                    yield chain.table, word.chain
                elif isinstance(word, Lookup):
                    place = chain.table, word.set
                    if place not in held:
                        held[place] = self._set(family, *place)
                    for member in held[place].members or ():
                        if isinstance(member.data, Verdict) and member.data.chain:
                            yield chain.table, member.data.chain

    def _set(self, family: Family, table: str, name: str) -> ForeignSet:
        unknown = ForeignSet(family=family, table=table, name=name, key_size=0, members=None)
        place = text(_SET_TABLE, table) + text(_SET_NAME, name)
        try:
            answers = self._socket.transact(
                [compose(Kind.GETSET, 0, NLM_F_ACK, family, place)], first_only=True
            )
        except Failure:
            return unknown
        for _, _, body in answers:
            values = dict(attributes(body, 4))
            flags = read_number(values[_SET_FLAGS]) if _SET_FLAGS in values else 0
            if flags & _CHANGING or _SET_KEY_LEN not in values:
                return unknown
            verdicts = (
                _SET_DATA_TYPE in values and read_number(values[_SET_DATA_TYPE]) == VERDICT_TYPE
            )
            return ForeignSet(
                family=family,
                table=table,
                name=name,
                key_size=read_number(values[_SET_KEY_LEN]),
                members=self._members(family, place, flags, verdicts),
            )
        return unknown

    def _members(
        self, family: Family, place: bytes, flags: int, verdicts: bool
    ) -> tuple[Member, ...] | None:
        found: list[elements.Bare] = []
        for body in self._bodies(compose(Kind.GETSETELEM, 0, NLM_F_DUMP, family, place)):
            found += elements.bare(body)
            if len(found) > MOST_MEMBERS:
                return None
        if flags & _INTERVAL and not flags & _CONCAT:
            return tuple(_ranges(found, verdicts))
        return tuple(_member(each, each.key, each.upto, verdicts) for each in found)

    def _bodies(self, request: bytes) -> list[memoryview]:
        try:
            return [body for _, body in self._socket.dump(request)]
        except Failure as failure:
            if failure.errno == errno.ENOENT:
                return []
            raise KernelRefused(failure.errno, "read packet rules", hint=failure.words) from failure

    def _dump(self, request: bytes) -> Iterator[dict[int, memoryview]]:
        return (dict(attributes(body, 4)) for body in self._bodies(request))


def decode_line(body: memoryview) -> Line:
    """A message about a rule."""
    values = dict(attributes(body, 4))
    words: Rule = ()
    if _RULE_EXPRESSIONS in values:
        words = tuple(map(_known, decode_expressions(values[_RULE_EXPRESSIONS])))
    comment = _note(bytes(values.get(_RULE_USERDATA, b"")))
    for word in words:
        if isinstance(word, Extension) and word.name == _COMMENT:
            comment = word.data.split(b"\0", 1)[0].decode(errors="replace")
    handle = int.from_bytes(values[_RULE_HANDLE], "big") if _RULE_HANDLE in values else 0
    return Line(words=words, comment=comment, handle=handle)


def _known(word: Expression) -> Expression:
    if not isinstance(word, Foreign):
        return word
    if word.name not in ("match", "target"):
        return Opaque(name=word.name)
    values = dict(attributes(word.data))
    if _EXTENSION_NAME not in values:
        return Opaque(name=word.name)
    revision = values.get(_EXTENSION_REVISION, memoryview(bytes(4)))
    return Extension(
        kind=word.name,
        name=read_text(values[_EXTENSION_NAME]),
        revision=int.from_bytes(revision, "big"),
        data=bytes(values.get(_EXTENSION_INFO, b"")),
    )


def _note(data: bytes) -> str:
    """The comment that nft keeps in a rule's user data (type 0)."""
    while len(data) >= 2:
        kind, size = data[0], data[1]
        if kind == 0:
            return data[2 : 2 + size].rstrip(b"\0").decode(errors="replace")
        data = data[2 + size :]
    return ""


def _member(each: elements.Bare, low: bytes, high: bytes | None, verdicts: bool) -> Member:
    data: bytes | Verdict | None = each.data
    if verdicts and each.data is not None:
        word, _, chain = each.data.decode(errors="replace").partition(" ")
        data = Verdict(verdict=word, chain=chain or None)
    return Member(low=low, high=high, data=data)


def _ranges(found: list[elements.Bare], verdicts: bool) -> Iterator[Member]:
    """A range is two elements for the kernel: its first key, and the one past its last."""
    begun: elements.Bare | None = None
    for each in sorted(found, key=lambda item: (item.key, not item.end)):
        if not each.key:
            yield _member(each, b"", None, verdicts)  # the element that catches all
            continue
        if begun is not None:
            last = (int.from_bytes(each.key, "big") - 1).to_bytes(len(each.key), "big")
            yield _member(begun, begun.key, last, verdicts)
        begun = None if each.end else each
    if begun is not None:
        yield _member(begun, begun.key, b"\xff" * len(begun.key), verdicts)
