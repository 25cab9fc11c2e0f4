"""The judge of concurrent calls: right histories pass, and each wrong one is named."""

from __future__ import annotations

import pytest

from histories import Op, problems

A, B = ("10.0.0.1",), ("10.0.0.2",)


def op(verb: str, begin: float, end: float, code: int = 0, addresses: tuple[str, ...] = ()) -> Op:
    return Op(verb=verb, begin=begin, end=end, code=code, addresses=addresses)


@pytest.mark.parametrize("found", [None, A])
def test_an_add_beside_a_deletion_may_come_before_or_after_it(found: tuple[str, ...]) -> None:
    history = [op("ADD", 0, 2, addresses=A), op("DEL", 1, 3)]
    assert problems(history, None, found) == []


@pytest.mark.parametrize(
    ("history", "before", "found", "words"),
    [
        ([op("ADD", 0, 1, addresses=A), op("DEL", 2, 3)], None, A, "it ended with"),
        ([op("DEL", 0, 1), op("ADD", 2, 3, addresses=A)], A, None, "it ended with"),
        ([op("ADD", 0, 2, addresses=A), op("ADD", 1, 3, addresses=B)], None, A, "no order"),
        ([op("ADD", 0, 1, addresses=B)], A, B, "no order"),
        ([op("ADD", 0, 1, code=7)], None, None, "no order"),
        ([op("CHECK", 0, 1, addresses=A)], None, None, "no order"),
        ([op("CHECK", 0, 1, code=999, addresses=A)], A, A, "no order"),
        ([op("DEL", 0, 1, code=11)], A, A, "no order"),
        ([op("ADD", 0, 1, code=11), op("DEL", 2, 3)], None, None, "busy"),
        ([op("ADD", 0, 1, code=999), op("DEL", 0, 3)], None, None, "no order"),
    ],
)
def test_a_wrong_history_is_named(
    history: list[Op], before: tuple[str, ...], found: tuple[str, ...], words: str
) -> None:
    assert words in "; ".join(problems(history, before, found))


def test_eight_calls_at_once_are_judged_in_any_order() -> None:
    history = [
        *(op("DEL", 0, 9) for _ in range(3)),
        op("ADD", 0, 9, addresses=A),
        op("ADD", 0, 9, addresses=B),
        op("ADD", 0, 9, code=11),
        op("CHECK", 0, 9, code=999, addresses=A),
        op("CHECK", 0, 9, addresses=A),
    ]
    for found in (None, A, B):
        assert problems(history, None, found) == []
    assert problems(history, None, ("10.0.0.3",)) != []
