"""Selectors: the table of operators, and absent, empty and unknown kept apart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from weft.model.names import nearest
from weft.model.selectors import Selector, describe, matches


def selector(**spec: Any) -> Selector:
    return msgspec.convert(spec, Selector)


def expression(operator: str, *values: str) -> Selector:
    return selector(matchExpressions=[{"key": "k", "operator": operator, "values": list(values)}])


@pytest.mark.parametrize(
    ("given", "with_a", "with_b", "without"),
    [
        (None, True, True, True),
        (selector(), True, True, True),
        (selector(matchLabels={"k": "a"}), True, False, False),
        (expression("In", "a", "c"), True, False, False),
        (expression("NotIn", "a", "c"), False, True, True),
        (expression("Exists"), True, True, False),
        (expression("DoesNotExist"), False, False, True),
    ],
)
def test_operators_answer_as_in_kubernetes(
    given: Selector | None, with_a: bool, with_b: bool, without: bool
) -> None:
    assert [matches(given, labels) for labels in ({"k": "a"}, {"k": "b"}, {"x": "a"})] == [
        with_a,
        with_b,
        without,
    ]


def test_requirements_are_joined_by_and() -> None:
    both = selector(
        matchLabels={"a": "1", "b": "2"}, matchExpressions=[{"key": "c", "operator": "Exists"}]
    )
    assert matches(both, {"a": "1", "b": "2", "c": ""})
    for missing in "abc":
        labels = {"a": "1", "b": "2", "c": ""}
        del labels[missing]
        assert matches(both, labels) is False


def test_unknown_labels_are_neither_yes_nor_no() -> None:
    assert matches(expression("DoesNotExist"), None) is None
    assert matches(selector(matchLabels={"a": "1"}), None) is None
    assert matches(None, None) is True
    assert matches(selector(), None) is True


def test_a_selector_is_shown_in_one_line() -> None:
    assert describe(None) == "<any>"
    assert describe(selector()) == "<all>"
    assert describe(expression("NotIn", "a", "b")) == "k notin (a,b)"
    assert describe(expression("DoesNotExist")) == "!k"


def test_the_nearest_word_ignores_case_and_may_be_none() -> None:
    assert nearest("CIDR", ["cidr", "gateway"]) == "cidr"
    assert nearest("zzz", ["cidr", "gateway"]) == ""
