"""How much the agent mends in one turn of its loop."""

from __future__ import annotations

from weft.agent.mending import IN_A_TURN, parcels


def test_owners_are_mended_together_as_long_as_they_have_few_differences() -> None:
    found = {"a": [0] * 300, "b": [0] * 200, "c": [0], "d": [0] * 9000}
    assert list(parcels([*"abcde"], found)) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_owners_without_differences_are_parted_by_their_number() -> None:
    many = [str(number) for number in range(IN_A_TURN + 1)]
    assert [len(part) for part in parcels(many, {})] == [IN_A_TURN, 1]
    assert list(parcels([], {})) == []
