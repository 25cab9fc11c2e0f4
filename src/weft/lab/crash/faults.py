"""What is done to a program at a system call.

A word names a fault: `kill`; an errno, which one call answers; an errno with `+`, which that call
answers from then on, until the verb is over. An interrupted call is tried again by every program,
for ever if it must, so `EINTR+` is three interruptions in a row.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from weft.lab.crash.tracing import Injection
from weft.model.errors import Invalid

ERRNOS = ("ENOSPC", "EIO", "ENOMEM", "EMFILE", "EINTR", "ENOBUFS")
KILL = "kill"
WORDS = (KILL, *(f"{name}{again}" for name in ERRNOS for again in ("", "+")))
_INTERRUPTIONS = 2
_NOT_FOR_GOOD = frozenset(("accept4",))
"""An agent that accepts nobody is one that hangs, which is another test's subject."""


class Fault(msgspec.Struct, frozen=True):
    """One fault by its word."""

    word: str

    @property
    def is_kill(self) -> bool:
        return self.word == KILL

    @property
    def lasts(self) -> bool:
        """Whether it is more than one call's."""
        return self.word.endswith("+")

    def strikes(self, call: str) -> bool:
        """Whether the fault makes sense at this system call."""
        return not (self.lasts and call in _NOT_FOR_GOOD)

    def injection(self, call: str, number: int) -> Injection:
        """What does it to the `number`-th such call."""
        if self.is_kill:
            return Injection(call, f"inject={call}:signal=SIGKILL:when={number}")
        errno = self.word.removesuffix("+")
        when = str(number)
        if self.lasts:
            when = f"{number}..{number + _INTERRUPTIONS}" if errno == "EINTR" else f"{number}+"
        return Injection(call, f"inject={call}:error={errno}:when={when}")


def faults(words: Iterable[str]) -> tuple[Fault, ...]:
    """Faults by their words; `errno` is all errnos, both ways. Raises Invalid."""
    found: dict[str, Fault] = {}
    for word in words:
        if word != "errno" and word not in WORDS:
            raise Invalid(
                f"--fault {word}: must be one of kill, errno (all of them), "
                f"{', '.join(ERRNOS)}, or one of these with + for a call that keeps failing",
                field="fault",
            )
        for each in WORDS[1:] if word == "errno" else (word,):
            found[each] = Fault(each)
    return tuple(found.values())
