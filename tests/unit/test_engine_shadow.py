"""The engine over transports and drivers of a pretended kernel: order, shadow, failures.

The pretended kernel holds rows; a message is one JSON list (verb, row's name, value). It refuses
what it is told to refuse, and its rules are all-or-nothing as nftables' are.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.drivers.contract import (
    MEDIUM,
    Medium,
    Names,
    Outcome,
    Position,
    Refusal,
    Scope,
    Stage,
)
from weft.drivers.engine import Engine
from weft.drivers.surroundings import Host
from weft.model.errors import KernelRefused
from weft.rows.base import Place, Row, RowKey

RULE, TUNE, LATE = Stage.GUARD, Stage.TUNE_HOST, Stage.HOST


class Thing(Row, frozen=True, kw_only=True):
    """A row of the pretended kernel."""

    stage: Stage
    name: str
    value: int = 0
    rank: int = 0

    @property
    def key(self) -> RowKey:
        return ("Thing", self.stage, self.name)


class Transport:
    def __init__(self, kernel: Kernel, medium: Medium) -> None:
        self.kernel, self.medium = kernel, medium
        self.atomic = medium is Medium.RULES

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        kernel = self.kernel
        kernel.batches.append((self.medium, [json.loads(item) for item in messages]))
        before = dict(kernel.held)
        refusals = []
        for at, item in enumerate(messages):
            verb, name, value = json.loads(item)
            code = kernel.refuse.get((verb, name))
            if code is None and verb == "del" and name not in kernel.held:
                code = errno.ENOENT
            if code is not None:
                refusals.append(Refusal(at, code, "pretended"))
            elif verb == "set":
                kernel.held[name] = value
            else:
                del kernel.held[name]
        if self.atomic and refusals:
            kernel.held = before
        return Outcome((), refusals)


class Kernel:
    """What is held, what is refused, and all batches in order."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.refuse: dict[tuple[str, str], int] = {}
        self.batches: list[tuple[Medium, list[Any]]] = []
        self.rules = Transport(self, Medium.RULES)
        self.links = Transport(self, Medium.HOST_LINKS)
        self.files = Transport(self, Medium.HOST_FILES)


class Things:
    """Driver of `Thing`."""

    kinds = (Thing,)
    gone = frozenset((errno.ENOENT,))
    watch = None

    def position(self, row: Thing) -> Position:
        return row.stage, row.rank

    def encode(self, old: Thing | None, new: Thing | None, names: Names) -> Sequence[bytes]:
        if new is not None:
            return (json.dumps(["set", new.name, new.value]).encode(),)
        assert old is not None
        return (json.dumps(["del", old.name, 0]).encode(),)

    def read(self, rows: Sequence[Thing], scope: Scope) -> Mapping[RowKey, Row]:
        held = scope.transport(MEDIUM[rows[0].stage]).kernel.held
        return {
            row.key: Thing(stage=row.stage, name=row.name, value=held[row.name], rank=row.rank)
            for row in rows
            if row.name in held
        }

    def words(self, row: Thing, found: Row | None) -> str:
        return f"{row.name} is {'missing' if found is None else 'different'}"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        return ()


def made() -> tuple[Engine, Kernel]:
    kernel = Kernel()
    return Engine(cast(Host, kernel), [Things()]), kernel


def thing(stage: Stage, name: str, value: int = 0, rank: int = 0) -> Thing:
    return Thing(stage=stage, name=name, value=value, rank=rank)


def names_of(kernel: Kernel) -> list[list[str]]:
    return [[name for _, name, _ in batch] for _, batch in kernel.batches]


def test_one_batch_a_stage_in_the_order_of_stages_and_ranks() -> None:
    engine, kernel = made()
    rows = [
        thing(LATE, "route", rank=3),
        thing(TUNE, "file"),
        thing(LATE, "up", rank=0),
        thing(RULE, "element", rank=3),
        thing(RULE, "table", rank=0),
    ]
    engine.apply("a", rows)
    assert names_of(kernel) == [["table", "element"], ["file"], ["up", "route"]]


def test_rules_that_come_and_go_are_one_transaction_and_the_rest_goes_backwards() -> None:
    engine, kernel = made()
    engine.apply(
        "a",
        [
            thing(RULE, "old table", rank=0),
            thing(RULE, "old element", rank=3),
            thing(TUNE, "old file"),
            thing(LATE, "old up", rank=0),
            thing(LATE, "old route", rank=3),
        ],
    )
    kernel.batches.clear()
    engine.apply("a", [thing(RULE, "new table", rank=0), thing(LATE, "new up", rank=0)])
    assert names_of(kernel) == [
        ["new table", "old element", "old table"],
        ["new up"],
        ["old route", "old up"],
        ["old file"],
    ]


def test_nothing_is_sent_where_nothing_changes() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "x")])
    kernel.batches.clear()
    engine.apply("a", [thing(RULE, "x")])
    assert kernel.batches == []


def test_owners_do_not_touch_each_other() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "x")])
    engine.apply("b", [thing(RULE, "y")])
    assert engine.withdraw("a") == []
    assert kernel.held == {"y": 0}
    assert engine.owners == ("b",)


def test_a_refused_row_of_a_plain_batch_leaves_the_others_in_the_shadow() -> None:
    engine, kernel = made()
    kernel.refuse["set", "two"] = errno.EPERM
    rows = [thing(LATE, name) for name in ("one", "two", "three")]
    with pytest.raises(KernelRefused, match="EPERM"):
        engine.apply("a", [thing(TUNE, "file"), *rows])
    assert set(kernel.held) == {"file", "one", "three"}
    assert {str(row.key[2]) for row in engine.rows("a")} == {"file", "one", "three"}
    engine.withdraw("a")
    assert kernel.held == {}


def test_a_refused_transaction_leaves_nothing_of_it_and_no_later_stage_starts() -> None:
    engine, kernel = made()
    kernel.refuse["set", "two"] = errno.EPERM
    with pytest.raises(KernelRefused):
        engine.apply("a", [thing(RULE, "one"), thing(RULE, "two"), thing(LATE, "up")])
    assert kernel.held == {}
    assert engine.rows("a") == ()


def test_a_transaction_is_repeated_without_what_is_gone_already() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "one"), thing(RULE, "two"), thing(RULE, "three")])
    del kernel.held["two"]
    assert engine.withdraw("a") == []
    assert kernel.held == {}


def test_a_failed_withdrawal_can_be_tried_again() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "one"), thing(LATE, "up")])
    kernel.refuse["del", "one"] = errno.ENOMEM
    with pytest.raises(KernelRefused):
        engine.withdraw("a")
    assert {str(row.key[2]) for row in engine.rows("a")} == {"one", "up"}
    kernel.refuse.clear()
    engine.withdraw("a")
    assert kernel.held == {}


def test_rows_to_keep_stay_until_the_next_withdrawal() -> None:
    engine, kernel = made()
    rows = [thing(RULE, "guard"), thing(RULE, "way"), thing(LATE, "up")]
    engine.apply("a", rows)
    engine.withdraw("a", [rows[1].key])
    assert set(kernel.held) == {"way"}
    assert engine.rows("a") == (rows[1],)
    engine.withdraw("a")
    assert kernel.held == {}
    assert engine.owners == ()


def test_rules_whose_answer_was_lost_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction came true, and the kernel's word of it did not arrive (ENOBUFS)."""
    engine, kernel = made()
    honest = kernel.rules.commit

    def unheard(messages: Sequence[bytes]) -> Outcome:
        honest(messages)
        return Outcome((), [Refusal(0, errno.ENOBUFS, "receive")])

    monkeypatch.setattr(kernel.rules, "commit", unheard)
    with pytest.raises(KernelRefused):
        engine.apply("a", [thing(RULE, "r1"), thing(RULE, "r2")])
    monkeypatch.undo()
    assert kernel.held
    engine.withdraw("a")
    assert kernel.held == {}


def test_adopted_rows_are_not_made_again_and_forgotten_ones_stay() -> None:
    engine, kernel = made()
    engine.adopt("a", [thing(RULE, "one")])
    engine.apply("a", [thing(RULE, "one")])
    assert kernel.batches == []
    kernel.held["one"] = 0
    engine.forget("a")
    engine.withdraw("a")
    assert kernel.held == {"one": 0}


def test_rules_without_a_transport_for_them_are_refused() -> None:
    kernel = Kernel()
    kernel.rules = None  # type: ignore[assignment]
    with pytest.raises(KernelRefused, match="change packet rules"):
        Engine(cast(Host, kernel), [Things()]).apply("a", [thing(RULE, "x")])


def test_what_differs_is_found_and_mended() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "one", 1), thing(RULE, "two", 2), thing(RULE, "three", 3)])
    kernel.held.update(one=7)
    del kernel.held["two"]
    found = engine.repair("a")
    assert [(d.words, d.mended) for d in found] == [
        ("one is different", True),
        ("two is missing", True),
    ]
    assert kernel.held == {"one": 1, "two": 2, "three": 3}
    assert engine.repair("a") == []


STAGES = st.sampled_from([RULE, TUNE, LATE])
STATES = st.dictionaries(
    st.tuples(STAGES, st.sampled_from("abcdef")), st.integers(0, 2), max_size=8
).map(lambda state: [thing(stage, f"{stage.name} {name}", v) for (stage, name), v in state.items()])


@given(st.lists(STATES, max_size=5), st.sets(st.tuples(st.sampled_from("ab"), STAGES)))
@settings(max_examples=150, deadline=None)
def test_whatever_came_before_apply_reaches_what_is_wanted(
    states: list[list[Thing]], refused: set[tuple[str, Stage]]
) -> None:
    engine, kernel = made()
    for number, state in enumerate(states):
        kernel.refuse = {
            ("set", f"{stage.name} {name}"): errno.EPERM for name, stage in refused
        } if number % 2 else {}  # fmt: skip
        try:
            engine.apply("a", state)
        except KernelRefused:
            assert kernel.refuse
        assert {row.key: row for row in engine.rows("a")}.keys() == {
            ("Thing", Stage[name.split()[0]], name) for name in kernel.held
        }
    kernel.refuse = {}
    last = states[-1] if states else []
    engine.apply("a", last)
    assert kernel.held == {row.name: row.value for row in last}
    engine.withdraw("a")
    assert kernel.held == {}


def test_rows_of_pods_are_not_looked_at_without_a_pod() -> None:
    class Inside(Thing, frozen=True, kw_only=True):
        place: Place = Place.POD

    engine, _ = made()
    assert engine.differences([Inside(stage=LATE, name="x")]) == []


def test_an_owner_whom_the_kernel_refuses_does_not_hinder_the_others() -> None:
    engine, kernel = made()
    engine.apply("a", [thing(RULE, "one"), thing(LATE, "two")])
    engine.apply("b", [thing(RULE, "three"), thing(LATE, "four")])
    for refused, lost in (("one", "a"), ("four", "b")):
        kernel.held.clear()
        kernel.refuse = {("set", refused): errno.EPERM}
        found = engine.drift()
        for owner in ("a", "b"):
            assert {each.mended for each in found[owner]} == {owner != lost}
        assert all("EPERM" in each.words for each in found[lost])
        kernel.refuse = {}
        engine.drift()
        assert len(kernel.held) == 4
