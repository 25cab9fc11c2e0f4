"""The one JSON object that a failure prints."""

from __future__ import annotations

import json

import pytest

from weft.model.errors import Exhausted, Invalid, KernelRefused, NotReady, WeftError
from weft.model.reasons import REASONS
from weft.wire.cni import encode_error


def encoded(error: BaseException, version: str | None = "1.0.0") -> dict[str, object]:
    obj = json.loads(encode_error(error, version))
    assert isinstance(obj, dict)
    return obj


def test_an_error_has_version_code_message_and_details() -> None:
    error = Invalid("mtu: 1 is not between", field="mtu", details="more")
    assert encoded(error) == {
        "cniVersion": "1.0.0",
        "code": 7,
        "msg": "mtu: 1 is not between",
        "details": "more",
    }


def test_the_newest_version_stands_where_the_callers_is_unknown() -> None:
    assert encoded(NotReady("wait"), None)["cniVersion"] == "1.1.0"
    assert encoded(NotReady("wait"), "")["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_the_code_is_that_of_the_reason_and_advice_stands_in_for_details(reason: str) -> None:
    obj = encoded(WeftError("x", reason=reason))
    assert obj["code"] == REASONS[reason].cni
    assert obj["details"] == f"{REASONS[reason].action} (weft explain {reason})"


def test_an_exception_of_another_tree_is_internal() -> None:
    obj = encoded(ZeroDivisionError("division by zero"))
    assert (obj["code"], obj["msg"]) == (999, "ZeroDivisionError: division by zero")


def test_of_several_failures_none_is_lost() -> None:
    group = ExceptionGroup(
        "undo",
        [Exhausted("no address left"), ExceptionGroup("x", [KernelRefused(1, "remove", "route")])],
    )
    obj = encoded(group)
    assert (obj["code"], obj["msg"]) == (11, "no address left")
    assert "refused to remove route: EPERM" in str(obj["details"])


def test_notes_of_an_error_are_details() -> None:
    error = Exhausted("no address left", details="pool a is full")
    error.add_note("and undoing failed")
    assert encoded(error)["details"] == "pool a is full; and undoing failed"


def test_any_text_can_be_said_and_none_is_endless() -> None:
    obj = encoded(WeftError("\udcff\x00\u2028" + "x" * 10**6, details="\ud800" * 10**5))
    assert str(obj["msg"]).startswith("\\udcff\x00\u2028xx")
    assert len(json.dumps(obj)) < 200_000
