"""T06: the agent is away or hangs, and the runtime goes on calling."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_activation import agent_of, supervised

from acceptance import SLACK, Host, ask, host_link, problems, watched

ANSWER_LIMIT = 10.0  # seconds the launcher waits for an agent that took the call


@pytest.mark.matrix(id="T06", full=200, reduced=20)
def test_calls_to_a_killed_agent_end_in_time_and_deletions_are_made_up_for(
    host: Host, count: int
) -> None:
    live = [f"live-{n}" for n in range(count)]
    host.make(live)
    added = host.storm([ask("ADD", name) for name in live])
    assert not problems(added)
    given = {name: said.json for name, said in zip(live, added, strict=True)}

    host.end(signal.SIGKILL)
    fresh = host.storm([ask("ADD", f"new-{n}", pod=live[0]) for n in range(count)])
    checks = host.storm([ask("CHECK", name, prevResult=given[name]) for name in live[:5]])
    collections = host.storm([ask("GC", **{"cni.dev/valid-attachments": []}) for _ in range(5)])
    statuses = host.storm([ask("STATUS") for _ in range(max(5, count // 4))])
    for said in (fresh, checks, collections):
        assert not problems(said, status=1, code=11)
    assert not problems(statuses, status=1, code=50)
    assert host.pod_links == {host_link(name) for name in live}, "a refused call had an effect"

    gone = host.storm([ask("DEL", name, prevResult=given[name]) for name in live])
    assert not problems(gone)
    assert host.pod_links == set()
    for said in (*fresh, *checks, *collections, *statuses, *gone):
        assert said.seconds <= 2.0 * SLACK
    host.unmake(live)

    took = host.start()
    assert took <= 5.0 * SLACK
    assert list(host.node.path("/run/weft/queue").iterdir()) == []
    assert host.used() == 0


def test_an_address_deleted_while_the_agent_was_away_can_be_given_again(
    new_host: Callable[..., Host],
) -> None:
    with watched(new_host("ipam: {cooldown: 4, cooldownFloor: 2}\n")) as host:
        first = host.add("first").addresses[0]
        host.end()
        assert host.send(ask("DEL", "first")).status == 0
        host.start()

        again = ask("ADD", "second", pod="first", cni_args=f"IP={first}")
        # the address rests for at least the floor of the cooldown, counted from the agent's start
        assert host.send(again).code == 11
        deadline = time.monotonic() + 20
        while (said := host.send(again)).code == 11:
            assert time.monotonic() < deadline, said.stdout
            time.sleep(0.1)
        assert first in said.addresses
        host.drop("second", pod="first")


def test_an_add_after_a_queued_deletion_of_the_same_key_survives_the_drain(host: Host) -> None:
    host.add("again")
    host.end()
    assert host.send(ask("DEL", "again")).status == 0
    assert len(list(host.node.path("/run/weft/queue").iterdir())) == 1
    host.start()
    assert host.send(ask("ADD", "again")).status == 0
    host.restart()

    assert host.pod_links == {host_link("again")}
    host.drop("again")


def test_a_deletion_queued_beside_a_living_agent_is_made_up_for_soon(host: Host) -> None:
    """A launcher that cannot reach the agent, though it lives, has no start to wait for."""
    address = host.add("pod").addresses[0]
    host.shell("mv /run/weft/agent.sock /run/weft/agent.aside")
    assert host.send(ask("DEL", "pod")).status == 0
    host.shell("mv /run/weft/agent.aside /run/weft/agent.sock")
    assert host.pod_links == set()
    deadline = time.monotonic() + 1.0 * SLACK
    while address in host.guarded() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert address not in host.guarded()
    assert list(host.node.path("/run/weft/queue").iterdir()) == []
    host.unmake(["pod"])


def test_calls_to_an_agent_that_hangs_or_does_not_come_back_end_at_the_launchers_limits(
    new_host: Callable[..., Host],
) -> None:
    """Each of the two takes the launcher's ten seconds, so they are waited for together."""
    with (
        watched(new_host("attach:\n  addTimeout: 3\n")) as hanging,
        watched(supervised(new_host())) as away,
        ThreadPoolExecutor(2) as pool,
    ):
        for done in [pool.submit(_calls_to_a_hanging, hanging), pool.submit(_calls_to_none, away)]:
            done.result()


def _calls_to_a_hanging(host: Host) -> None:
    said = host.add("hung")
    host.make(["late"])
    os.kill(host.pid, signal.SIGSTOP)
    requests = [
        ask("ADD", "late"),
        ask("DEL", "hung"),
        ask("STATUS"),
        ask("CHECK", "hung", prevResult=said.json),
        ask("GC", **{"cni.dev/valid-attachments": []}),
        ask("VERSION"),
    ]
    add, gone, status, check, collection, version = host.storm(requests, workers=6)
    os.kill(host.pid, signal.SIGCONT)

    assert (add.status, add.code) == (1, 11)
    assert 3 <= add.seconds < ANSWER_LIMIT  # the limit in the settings
    assert (gone.status, gone.stdout) == (0, b"")
    assert (status.code, check.code, collection.code) == (50, 11, 11)
    for answer in (gone, status, check, collection):
        assert answer.is_clean
        assert answer.seconds < ANSWER_LIMIT + 5
    assert version.status == 0
    assert version.seconds < 1.0 * SLACK
    deadline = time.monotonic() + 10
    while host.pod_links and time.monotonic() < deadline:
        time.sleep(0.05)
    assert host.pod_links == set(), "an ADD that nobody waits for must be undone"
    host.send(ask("DEL", "late"))
    host.unmake(["hung", "late"])
    host.restart()  # drains what the launcher queued while the agent hung


def _calls_to_none(host: Host) -> None:
    """The supervisor holds the socket, and starts no agent: DEL still ends, and is made up for."""
    host.add("pod")
    agent = agent_of(host)
    os.kill(host.pid, signal.SIGSTOP)  # nobody starts it again
    os.kill(agent, signal.SIGKILL)
    gone, status = host.storm([ask("DEL", "pod"), ask("STATUS")], workers=2)
    assert not problems([gone])
    assert gone.seconds < ANSWER_LIMIT + SLACK
    assert not problems([status], status=1, code=50)
    assert host.pod_links == set()
    os.kill(host.pid, signal.SIGCONT)
    deadline = time.monotonic() + 5 * SLACK
    while host.send(ask("STATUS")).status != 0:
        assert time.monotonic() < deadline, host.log()[-2000:]
    assert list(host.node.path("/run/weft/queue").iterdir()) == []
    assert host.used() == 0
    host.unmake(["pod"])
