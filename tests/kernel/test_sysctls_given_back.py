"""What a teardown does about sysctls when it was cut short before, or when a file refuses."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from namespace_fixture import on_a_node

from weft.agent import given
from weft.agent.events import Log
from weft.agent.forwarding import FORWARD4, forwarding4, give_back
from weft.agent.given import given_path, stored
from weft.kernel import files, sysctl

REDIRECTS = "net/ipv4/conf/all/accept_redirects"
REMEMBERED = [(FORWARD4, "0", "1"), (forwarding4("lo"), "1", "1"), (REDIRECTS, "0", "0")]


def _write(*values: tuple[str, str]) -> None:
    assert sysctl.write([sysctl.message(*value) for value in values]) == []


def _as_before() -> bool:
    return all(sysctl.read(path) == before for path, before, _ in REMEMBERED)


@on_a_node
def test_a_restoring_that_was_killed_after_forwarding_is_ended_by_the_next() -> None:
    _write((FORWARD4, "1"))
    _write((FORWARD4, "0"))  # here it was killed; the kernel has carried the others along
    assert not _as_before()
    assert give_back(REMEMBERED, Log("error")) == []
    assert _as_before()


@on_a_node
def test_what_somebody_else_has_set_is_left() -> None:
    _write(("net/ipv4/conf/lo/rp_filter", "2"))
    assert give_back([("net/ipv4/conf/lo/rp_filter", "0", "1")], Log("error")) == []
    assert sysctl.read("net/ipv4/conf/lo/rp_filter") == "2"


@on_a_node
def test_a_sysctl_that_cannot_be_restored_is_named_and_restored_the_next_time() -> None:
    _write((FORWARD4, "1"))
    honest = sysctl.write

    def refusing(messages: Sequence[bytes]) -> list[tuple[int, int]]:
        return [(0, errno.EIO)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysctl, "write", refusing)
        assert give_back(REMEMBERED, Log("error")) == [FORWARD4]
    assert sysctl.write is honest and sysctl.read(FORWARD4) == "1"
    assert give_back(REMEMBERED, Log("error")) == []
    assert _as_before()


def test_a_record_that_cannot_be_read_now_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = given_path(str(tmp_path / "store.db"))
    assert stored(path, "this boot") == []

    def refusing(path: Path, limit: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "read", refusing)
    assert given.files is files
    with pytest.raises(OSError, match="Input/output"):
        stored(path, "this boot")
