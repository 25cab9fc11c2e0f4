"""T02, T03, T04: launcher and agent killed, or failed, at each system call with an effect.

The full counts are above the number of all trials, so that all points are played; a reduced run is
a sample that the seed draws. docs/crash-safety.md says what is promised.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from weft.lab import entering, snapshot
from weft.lab.crash import aftermath
from weft.lab.crash.aftermath import Scene
from weft.lab.crash.faults import Fault, faults
from weft.lab.crash.plan import Plan, Report, Trial
from weft.lab.crash.stage import BYSTANDERS, SUBJECTS
from weft.lab.crash.sweep import Sweeper
from weft.lab.crash.tracing import MAIN, Injection, Point, Watching

SEED = 2
ALL = 1000
MISSES = 0.1  # of the trials: a busy machine moves calls from one place to another


@pytest.fixture(scope="module")
def sweeper() -> Iterator[Sweeper]:
    """One stage for all; nothing of it may be left on the machine."""
    before = snapshot.take()
    with Sweeper() as ready:
        yield ready
    left = snapshot.settled(before, snapshot.take)
    assert not left, "the sweep changed the machine itself:\n" + "\n".join(left)


def _judge(report: Report, limit: int) -> None:
    outcomes = [result.outcome for result in report.results]
    print(f"seed {report.seed}: {len(outcomes)} trials, {report.datagrams} datagrams of bystanders")
    told = [
        f"{result.trial.command}\n  at {result.where[:200]}\n  {result.left[:3]}"
        for result in report.failures
    ]
    assert not told, "\n".join(told)
    # a few trials say little about the share: of them a third may miss, and the rest must strike
    few = len(outcomes) // 3 if len(outcomes) < 30 else 1
    assert outcomes.count("missed") <= max(1, few, MISSES * len(outcomes))
    assert limit < ALL or len(outcomes) < limit, "these are not all trials: raise the full count"


@pytest.mark.matrix(id="T02", full=ALL, reduced=10)
def test_a_launcher_killed_at_any_effect_leaves_what_one_verb_removes(
    sweeper: Sweeper, count: int
) -> None:
    plan = Plan(victims=("launcher",), limit=count, seed=SEED)
    _judge(sweeper.carry_out(plan, print), count)


@pytest.mark.matrix(id="T03", full=2 * ALL, reduced=5)
def test_an_agent_killed_at_any_effect_leaves_what_one_verb_removes(
    sweeper: Sweeper, count: int
) -> None:
    verbs = ("ADD", "DEL", "CHECK", "GC", "START")
    plan = Plan(verbs=verbs, victims=("agent",), limit=count, seed=SEED)
    _judge(sweeper.carry_out(plan, print), count)


@pytest.mark.matrix(id="T03 commands", full=ALL, reduced=1)
def test_a_teardown_or_a_closing_killed_at_any_effect_can_be_given_again(
    sweeper: Sweeper, count: int
) -> None:
    """Or an agent be started instead; the node is given back wholly in the end."""
    plan = Plan(verbs=("TEARDOWN", "CLOSE-BOOT"), limit=count, seed=SEED)
    _judge(sweeper.carry_out(plan, print), count)


@pytest.mark.matrix(id="T04", full=10 * ALL, reduced=12)
def test_a_call_that_fails_gives_a_clean_answer_and_the_state_before(
    sweeper: Sweeper, count: int
) -> None:
    plan = Plan(
        verbs=("ADD", "DEL", "CHECK", "GC", "DEL-ALONE"),
        faults=faults(["errno"]),
        thens=("del",),
        limit=count,
        seed=SEED,
    )
    _judge(sweeper.carry_out(plan, print), count)


def test_a_queued_del_that_failed_is_tried_again_within_seconds(sweeper: Sweeper) -> None:
    """An agent that cannot send can neither answer nor do what the launcher then queues."""
    stage = sweeper.player.stage()
    stage.must("ADD", SUBJECTS[0])
    already = len(stage.logged())
    refused = Injection("sendto", "inject=sendto:error=EMFILE:when=1+")
    with Watching(stage.pid, stage.log, only=MAIN, injection=refused):
        assert stage.send("DEL", SUBJECTS[0]).status == 0
        deadline = time.monotonic() + 20
        while "NotDrained" not in stage.logged()[already:]:
            assert time.monotonic() < deadline, "the queue was not looked at"
            time.sleep(0.02)
    assert stage.left() == []


CHANGES = (
    ("ip route add blackhole 192.0.2.77/32", "ip route del blackhole 192.0.2.77/32", None),
    ("ip -6 route add blackhole 2001:db8::7", "ip -6 route del blackhole 2001:db8::7", SUBJECTS[0]),
    ("ip link add d0 type veth peer name d1", "ip link del d0", None),
    ("ip link set lo mtu 1500", "ip link set lo mtu 65536", SUBJECTS[1]),
    ("ip addr add 192.0.2.7/32 dev lo", "ip addr del 192.0.2.7/32 dev lo", BYSTANDERS[0]),
    ("ip rule add from 192.0.2.7 lookup 77", "ip rule del from 192.0.2.7 lookup 77", None),
    (
        "ip neigh add 198.51.100.99 lladdr 02:00:00:00:00:01 nud permanent dev eth0",
        "ip neigh del 198.51.100.99 dev eth0",
        None,
    ),
    ("tc qdisc add dev eth0 root pfifo", "tc qdisc del dev eth0 root", None),
    ("ip link set eth0 alias changed", "ip link set eth0 alias ''", None),
    ("touch /run/weft/changed", "rm /run/weft/changed", None),
    ("nft add table inet changed", "nft delete table inet changed", None),
    (
        "echo 1 >/proc/sys/net/ipv4/conf/lo/arp_filter",
        "echo 0 >/proc/sys/net/ipv4/conf/lo/arp_filter",
        None,
    ),
)


def test_a_glimpse_sees_whatever_a_look_sees(sweeper: Sweeper) -> None:
    """The sweep compares octets of dumps first: they must differ when anything does."""
    stage = sweeper.player.stage()
    for change, back, pod in CHANGES:
        assert not stage.differs(), f"before {change}"
        assert stage.node.run(["sh", "-ec", change], pod=pod).returncode == 0, change
        assert stage.differs(), change
        stage.node.run(["sh", "-ec", back], pod=pod)
    assert stage.left() == []


def test_the_sweep_names_what_is_left_and_goes_on_with_a_new_stage(
    sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = aftermath.FOLLOW_UPS["del"]

    def leaving_a_route(scene: Scene) -> None:
        entering.output(
            scene.stage.node.network, ["ip", "route", "add", "blackhole", "192.0.2.77/32"]
        )
        honest(scene)

    trial = Trial(
        verb="ADD",
        victim="launcher",
        fault=Fault("kill"),
        point=Point("main", "sendmsg", 1),
        then="del",
    )
    plan = Plan(verbs=("ADD",), victims=("launcher",), thens=("del",), points=(trial.point,))
    monkeypatch.setitem(aftermath.FOLLOW_UPS, "del", leaving_a_route)
    monkeypatch.setattr("weft.lab.crash.stage.PATIENCE", 0.2)
    (failure,) = sweeper.carry_out(plan, print).failures
    assert failure.trial.command == trial.command
    assert any("192.0.2.77" in line for line in failure.left)
    monkeypatch.undo()
    assert not sweeper.carry_out(plan, print).failures
