"""`weft lab`: what up makes, what the matrix notices, and that down leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count as counter
from pathlib import Path

import pytest

from weft.lab import cluster, matrix, nodes, private
from weft.lab.cluster import Lab
from weft.model.errors import Conflict, Invalid, NotFound, NotReady

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
_number = counter(1)


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lab that does not exist, and will not exist after the test."""
    chosen = f"t{os.getpid()}-{next(_number)}"
    yield chosen
    if (cluster.STATE / chosen).exists():
        cluster.down(chosen)
    _assert_nothing_is_left(chosen)


def _assert_nothing_is_left(name: str) -> None:
    assert not (cluster.STATE / name).exists()
    assert nodes.running(rf"{name}-.*") == []
    top = private.unified_mount()
    assert top is None or list(top.glob(f"weft-lab/{name}-*")) == []


def _weft(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weft.main", "lab", *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )


def _wrong(lab: Lab) -> list[matrix.Cell]:
    return [cell for cell in matrix.observe(lab) if not cell.is_right]


def test_two_nodes_in_both_families_are_as_the_matrix_expects(name: str) -> None:
    lab = cluster.up(name, nodes_=2, pods=2)

    cells = matrix.observe(lab)
    assert [cell for cell in cells if not cell.is_right] == []
    assert {cell.family for cell in cells} == {4, 6}
    assert {cell.protocol for cell in cells} == set(matrix.PROTOCOLS)
    assert any(not cell.expected and cell.why for cell in cells)


@pytest.mark.parametrize(("families", "family"), [("ipv4", 4), ("ipv6", 6)])
def test_a_lab_of_one_family_has_no_other(
    name: str, families: cluster.Families, family: int
) -> None:
    lab = cluster.up(name, pods=2, families=families)

    cells = matrix.observe(lab)
    assert [cell for cell in cells if not cell.is_right] == []
    assert {cell.family for cell in cells} == {family}


def test_the_matrix_of_pods_on_bridges_is_the_same(name: str) -> None:
    lab = cluster.up(name, pods=2, bridge=True)

    cells = matrix.observe(lab)
    assert [cell for cell in cells if not cell.is_right] == []
    assert {cell.family for cell in cells} == {4, 6}
    for entry in lab.nodes:
        ports = entry.node.run(["sh", "-c", "ip -br link show type bridge_slave | wc -l"])
        assert ports.stdout.strip() == b"2"


def test_the_matrix_notices_what_is_cut(name: str) -> None:
    lab = cluster.up(name, pods=2)
    assert _wrong(lab) == []
    cut = "table inet cut {\n chain c {\n type filter hook forward priority 0\n meta l4proto udp"
    done = lab.nodes[0].node.run(["nft", "-f", "-"], stdin=f"{cut} drop\n }}\n}}\n".encode())
    assert done.returncode == 0, done.stderr

    wrong = _wrong(lab)
    assert {cell.protocol for cell in wrong} == {"udp"}
    assert ("n1/p1", "n1/p2") in {(cell.origin, cell.goal) for cell in wrong}


def test_the_matrix_hears_what_should_be_silent(name: str) -> None:
    lab = cluster.up(name, pods=1)
    assert lab.wires is not None
    pod = lab.nodes[0].pods[0].addresses[0]
    node = matrix.ends(lab)[1].addresses[0]
    routed = ["ip", "route", "add", pod, "via", node]
    assert lab.wires.outside.run(routed).returncode == 0

    heard = [cell for cell in _wrong(lab) if cell.origin == "outside"]
    assert {(cell.goal, cell.family) for cell in heard} == {("n1/p1", 4)}


def test_the_command_line_makes_shows_and_removes_a_lab(name: str) -> None:
    made = _weft("up", "--name", name, "--pods", "1")
    assert made.returncode == 0, made.stderr
    assert "n1/p1" in made.stdout

    inside = _weft("exec", "--name", name, "n1/p1", "--", "ip", "-j", "addr", "show", "eth0")
    assert json.loads(inside.stdout)[0]["operstate"] == "UP"
    assert _weft("exec", "--name", name, "n1", "--", "false").returncode == 1

    shown = _weft("matrix", "--name", name, "-o", "json")
    assert shown.returncode == 0
    assert all(cell["expected"] == cell["observed"] for cell in json.loads(shown.stdout))

    assert _weft("down", "--name", name).returncode == 0
    _assert_nothing_is_left(name)


def test_down_clears_up_after_holders_were_killed_or_never_recorded(name: str) -> None:
    lab = cluster.up(name, pods=1)
    os.kill(lab.nodes[0].node.pid, signal.SIGKILL)
    stray = nodes.start(f"{name}-n7", tied=False)

    cluster.down(name)

    assert not stray.is_alive
    _assert_nothing_is_left(name)


def test_down_leaves_a_lab_whose_name_begins_alike_alone(name: str) -> None:
    cluster.up(name, pods=0)
    other = nodes.start(f"{name}-n1-n1", tied=True)
    try:
        cluster.down(name)
        assert other.is_alive
    finally:
        nodes.stop(other)


def test_a_lab_whose_agent_does_not_start_says_why_and_leaves_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cluster, "agent_command", lambda: ["/bin/sh", "-c", "echo no luck today; exit 3"]
    )
    with pytest.raises(NotReady, match="no luck today"):
        cluster.up(name)

    _assert_nothing_is_left(name)


def test_a_second_lab_of_the_same_name_is_refused(name: str) -> None:
    cluster.up(name, pods=0)
    with pytest.raises(Conflict):
        cluster.up(name)
    assert cluster.load(name).nodes[0].node.is_alive


@pytest.mark.parametrize("bad", ["", "../x", "a b", "x" * 33, "ä", "a\n"])
def test_names_that_are_no_file_names_are_refused(bad: str) -> None:
    with pytest.raises(Invalid):
        cluster.load(bad)


def test_a_lab_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound):
        cluster.down("never-was")
    assert not Path(cluster.STATE, "never-was").exists()


def test_a_place_that_does_not_exist_is_answered_with_those_that_do(name: str) -> None:
    lab = cluster.up(name, pods=1)
    with pytest.raises(NotFound, match="n1/p1"):
        cluster.locate(lab, "n1/p9")
