"""The registers of one rule: values by the octet where they begin.

Numbered as the kernel does: 1..4 of 16 octets, or 8..23 of 4 octets over the same room
(include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

from weft.firewalls.values import Value, anything, cut


class Registers:
    """Empty at the begin of a rule. What was never stored is not known."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, Value] = {}

    def store(self, register: int, value: Value) -> None:
        """Put a value in; what it covers is overwritten."""
        begin = _octet(register)
        for at, held in list(self._held.items()):
            if at < begin + value.size and begin < at + held.size:
                del self._held[at]
        self._held[begin] = value

    def forget(self, register: int | None = None) -> None:
        """One value, or all of them, may be anything now."""
        if register is None:
            self._held.clear()
        else:
            self._held.pop(_octet(register), None)

    def load(self, register: int, size: int) -> Value:
        """The first octets of a register."""
        held = self._held.get(_octet(register))
        return anything(size) if held is None else cut(held, 0, size)

    def parts(self, register: int, size: int) -> list[Value] | None:
        """The values that lie side by side from a register on, each padded to four octets; None
        where they do not make up `size`."""
        at = begin = _octet(register)
        held = self._held.get(at)
        if held is not None and held.size >= size:
            return [cut(held, 0, size)]
        found: list[Value] = []
        while at < begin + size:
            held = self._held.get(at)
            if held is None:
                return None
            found.append(held)
            at += (held.size + 3) & ~3
        return found if at == begin + (size + 3 & ~3) else None


def _octet(register: int) -> int:
    return (register - 1) * 16 if register < 8 else (register - 8) * 4
