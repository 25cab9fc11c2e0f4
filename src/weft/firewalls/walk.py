"""One packet's way through the chains of one hook.

A rule of which nobody can tell whether it matches is walked both ways, so an outcome is the set of
all that may happen. Nothing here raises: what is not understood is `Opaque`, and a chain that is
not there may do anything.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from weft.firewalls import values as v
from weft.firewalls.asked import asked
from weft.firewalls.extensions import words_of
from weft.firewalls.flows import Packet
from weft.firewalls.registers import Registers
from weft.rows.firewalls import Extension, ForeignChain, ForeignSet, Line, Opaque
from weft.rows.rules import (
    Bitwise,
    Compare,
    Conntrack,
    DestinationNat,
    Expression,
    ExtensionHeader,
    Family,
    Fib,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    Payload,
    Range,
    Reject,
    Verdict,
)

ChainKey = tuple[str, Family, str, str]
SetKey = tuple[Family, str, str]

DEEPEST = 32  # chains in each other; the kernel allows 16 (NFT_JUMP_STACK_SIZE)

HARMLESS = frozenset(("log", "last", "notrack", "dynset", "dup", "flow_offload"))
"""Expressions after which a rule goes on in any case."""
TAKING = frozenset(("queue", "synproxy", "tproxy"))
"""Expressions that give the packet to somebody who decides."""
NATTING = frozenset(("nat", "masq", "redir"))


class Fate(enum.Enum):
    """What may happen to a packet in a chain."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    CONTINUE = "continue"


Fates = frozenset[Fate]
ANYTHING: Fates = frozenset((Fate.ACCEPT, Fate.DROP, Fate.CONTINUE))
_GO_ON: Fates = frozenset((Fate.CONTINUE,))
_BOTH: Fates = frozenset((Fate.ACCEPT, Fate.DROP))


class Walk:
    """One packet on its way through the chains of one hook."""

    def __init__(
        self,
        chains: Mapping[ChainKey, ForeignChain],
        sets: Mapping[SetKey, ForeignSet],
    ) -> None:
        self._chains = chains
        self._sets = sets
        self._walked: dict[str, Fates] = {}
        self.place = ""

    def begin(self, packet: Packet, hook: int) -> None:
        """Another packet."""
        self._walked.clear()
        self.place = ""
        self._packet = packet
        self._hook = hook

    def chain(self, chain: ForeignChain, depth: int) -> Fates:
        """What may happen in a chain; RETURN where its end may be reached."""
        known = self._walked.get(chain.name)
        if known is not None:
            return known
        fates: set[Fate] = set()
        for line in chain.lines:
            happens = self._line(chain, line, depth)
            fates |= happens - _GO_ON
            if Fate.CONTINUE not in happens:
                break
        else:
            fates |= {Fate.RETURN} if chain.whole else {Fate.RETURN, *_BOTH}
        self._walked[chain.name] = frozenset(fates)
        return self._walked[chain.name]

    def _line(self, chain: ForeignChain, line: Line, depth: int) -> Fates:
        registers = Registers()
        certain = True
        for word in _plain(line.words):
            answer: v.Answer = True
            end: Fates | None = None
            match word:
                case Compare():
                    answer = _compared(registers.load(word.register, len(word.value)), word)
                case Range():
                    found = registers.load(word.register, len(word.low))
                    answer = v.within(found, word.low, word.high)
                    answer = v.contrary(answer) if word.invert else answer
                case Lookup():
                    answer, end = self._looked_up(chain, word, registers, depth)
                case Verdict():
                    end = self._verdict(chain, word, depth)
                case Reject():
                    end = self._dropped(chain)
                case Masquerade() | DestinationNat():
                    end = frozenset((Fate.ACCEPT,))
                case Opaque():
                    answer, end = self._opaque(word, registers)
                case _:
                    answer = self._loaded(word, registers)
            if answer is False:
                return _GO_ON
            certain = certain and answer is True
            if end is not None:
                return end if certain else end | _GO_ON
        return _GO_ON

    def _verdict(self, chain: ForeignChain, verdict: Verdict, depth: int) -> Fates:
        match verdict.verdict:
            case "accept":
                return frozenset((Fate.ACCEPT,))
            case "drop":
                return self._dropped(chain)
            case "return":
                return frozenset((Fate.RETURN,))
            case "continue":
                return _GO_ON
        target = self._chains.get((chain.source, chain.family, chain.table, verdict.chain or ""))
        if target is None or depth > DEEPEST:
            return ANYTHING
        fates = self.chain(target, depth + 1)
        if verdict.verdict == "jump" and Fate.RETURN in fates:
            return fates - {Fate.RETURN} | _GO_ON
        return fates

    def _dropped(self, chain: ForeignChain) -> Fates:
        self.place = chain.name
        return frozenset((Fate.DROP,))

    def _opaque(self, word: Opaque, registers: Registers) -> tuple[v.Answer, Fates | None]:
        if word.name in HARMLESS:
            return True, None
        if word.name in NATTING:
            return True, frozenset((Fate.ACCEPT,))
        if word.name in TAKING:
            return True, _BOTH
        if word.name.startswith("target "):
            return True, ANYTHING
        if word.name == "never":
            return False, None
        registers.forget()
        return None, None

    def _looked_up(
        self, chain: ForeignChain, word: Lookup, registers: Registers, depth: int
    ) -> tuple[v.Answer, Fates | None]:
        held = self._sets.get((chain.family, chain.table, word.set))
        if held is None or held.members is None:
            if word.data_register == 0:
                return True, ANYTHING
            if word.data_register is not None:
                registers.forget()
            return None, None
        parts = registers.parts(word.register, held.key_size)
        answers = [(_is_member(parts, each.low, each.high), each) for each in held.members]
        inside = v.any_of(answer for answer, _ in answers)
        if word.data_register is None:
            return (v.contrary(inside) if word.invert else inside), None
        possible = [each.data for answer, each in answers if answer is not False]
        if word.data_register:
            data = possible[0] if len(possible) == 1 else None
            registers.forget(word.data_register)
            if isinstance(data, bytes) and inside is True:
                registers.store(word.data_register, v.exactly(data))
            return inside, None
        fates: set[Fate] = set()
        for data in possible:
            fates |= self._verdict(chain, data, depth) if isinstance(data, Verdict) else ANYTHING
        return inside, frozenset(fates) if fates else None

    def _loaded(self, word: Expression, registers: Registers) -> v.Answer:
        """Put what the expression asks for into its register; False where the kernel would end the
        rule, because the packet has no such thing."""
        match word:
            case Bitwise():
                found = registers.load(word.register, len(word.mask))
                registers.store(word.register, v.masked(found, word.mask, word.xor))
            case Immediate():
                registers.store(word.register, v.exactly(word.value))
            case Meta() | Payload() | Conntrack() | Fib() | ExtensionHeader():
                value = asked(self._packet, self._hook, word)
                if value is None:
                    return False
                registers.store(word.register, value)
        return True


def _plain(words: Iterable[Expression]) -> Iterable[Expression]:
    for word in words:
        if isinstance(word, Extension):
            yield from words_of(word)
        else:
            yield word


def _compared(found: v.Value, word: Compare) -> v.Answer:
    size = len(word.value)
    match word.op:
        case "==":
            return v.equals(found, word.value)
        case "!=":
            return v.contrary(v.equals(found, word.value))
        case ">=":
            return v.within(found, word.value, b"\xff" * size)
        case "<=":
            return v.within(found, bytes(size), word.value)
        case ">":
            return v.contrary(v.within(found, bytes(size), word.value))
        case "<":
            return v.contrary(v.within(found, word.value, b"\xff" * size))
    return None


def _is_member(parts: list[v.Value] | None, low: bytes, high: bytes | None) -> v.Answer:
    """Whether a key is this element, or in this range. Parts of a key are padded to four octets."""
    if not low:
        return True
    if parts is None:
        return None
    answers = []
    at = 0
    for part in parts:
        first = low[at : at + part.size]
        last = (high or low)[at : at + part.size]
        if len(first) != part.size or len(last) != part.size:
            return None
        answers.append(v.within(part, first, last))
        at += (part.size + 3) & ~3
    return v.all_of(answers)
