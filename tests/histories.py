"""Whether concurrent calls for one attachment can have happened one after the other.

The rules are those of CNI and of weft: ADD makes an attachment where there is none and is refused
where there is one; DEL always succeeds; CHECK succeeds only for the attachment it is asked about;
an ADD or CHECK that a DEL overtakes is refused (`busy`) and changes nothing. A history is right if
its calls have an order that respects which ended before which began, keeps these rules, and ends
in the state that was found (linearizability; Wing and Gong, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

BUSY = 11
State = tuple[str, ...] | None
"""The addresses of the attachment; None: there is none."""


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `addresses`: what ADD answered, or what CHECK was asked about."""

    verb: str
    begin: float
    end: float
    code: int = 0  # 0: it succeeded
    addresses: tuple[str, ...] = ()


def after(op: Op, state: State) -> tuple[bool, State]:
    """Whether the call can have happened in this state, and the state that it leaves."""
    match op.verb, op.code:
        case "ADD", 0:
            return state is None, op.addresses
        case (("ADD" | "CHECK"), 11):
            return True, state
        case "ADD", _:
            return state is not None, state
        case "DEL", 0:
            return True, None
        case "CHECK", 0:
            return state == op.addresses, state
        case "CHECK", _:
            return state != op.addresses, state
    return False, state


def overtaken(op: Op, history: Sequence[Op]) -> bool:
    """Whether a DEL was under way during the call: without one nothing may be refused as busy."""
    return any(
        other.verb == "DEL" and other.begin < op.end and op.begin < other.end for other in history
    )


def endings(history: Sequence[Op], state: State) -> set[State]:
    """Every state that a right order of the calls can end in; empty: there is none."""
    everything = (1 << len(history)) - 1
    seen: set[tuple[int, State]] = set()
    found: set[State] = set()
    pending: list[tuple[int, State]] = [(0, state)]
    while pending:
        done, now = pending.pop()
        if (done, now) in seen:
            continue
        seen.add((done, now))
        if done == everything:
            found.add(now)
            continue
        left = [at for at in range(len(history)) if not done >> at & 1]
        first_end = min(history[at].end for at in left)
        for at in left:
            if history[at].begin <= first_end:  # nothing that is left ended before it began
                possible, then = after(history[at], now)
                if possible:
                    pending.append((done | 1 << at, then))
    return found


def problems(history: Sequence[Op], before: State, found: State) -> list[str]:
    """What is wrong with a history that began in one state and ended in another."""
    wrong = [
        f"{op.verb} was refused as busy, and no DEL was under way"
        for op in history
        if op.code == BUSY and not overtaken(op, history)
    ]
    possible = endings(history, before)
    if not possible:
        wrong.append("no order of these calls keeps the rules")
    elif found not in possible:
        wrong.append(f"it ended with {found}, and every right order ends with one of {possible}")
    return wrong
