"""Egress lists outlive agents, journals, storms and other containers, and end with their last."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from acceptance import Host, ask, problems, watched
from netouts import (
    FAR4,
    FAR6,
    NEAR,
    TCP,
    UDP,
    addresses,
    echoes,
    errors_at_once,
    keeps,
    listed,
    long_list,
    node_of,
    ports,
    reaches,
    rule,
    shown,
    shown_digest,
    table,
    talks,
)


@pytest.fixture(autouse=True)
def _errors_at_once(host: Host) -> Iterator[None]:
    with errors_at_once(host):
        yield


def test_connections_of_who_had_the_address_before_end_with_the_list(host: Host) -> None:
    """What goes on passes every list: nobody may go on with what another began."""
    held = host.add("old").addresses
    goals = f"{FAR4}1", f"{FAR6}1"
    with addresses(host) as outside:
        old = host.network("old")
        assert all(talks(old, outside, goal) for goal in goals)
        assert echoes(old, goals[0], 8) and echoes(old, goals[1], 128)
        host.drop("old")
        host.end()
        host.shell("rm /run/weft/journal.db*")  # and with it, how long the addresses rest
        host.start()
        host.add("new", runtimeConfig={"ips": held, "netOutRules": []})
        new = host.network("new")
        assert not any(talks(new, outside, goal) for goal in goals)
        assert not echoes(new, goals[0], 8) and not echoes(new, goals[1], 128)
    host.drop("new")


def test_containers_with_the_same_rules_share_one_list_which_goes_with_the_last(host: Host) -> None:
    both = [NEAR, rule(UDP, f"{FAR4}1", **ports((53, 53)))]
    names = [f"pod-{n}" for n in range(3)]
    for name, rules in zip(names, (both, both[::-1], both + both), strict=True):
        host.add(name, **listed(*rules))
    assert table(host).count("chain out-") == 1
    host.add("other", **listed(NEAR))
    assert table(host).count("chain out-") == 2
    for name in names[:-1]:
        host.drop(name)
    with addresses(host) as outside:
        assert reaches(host.network(names[-1]), outside, f"{FAR4}1", 80, TCP)
        assert not reaches(host.network("other"), outside, f"{FAR4}1", 53, UDP)
    host.drop(names[-1])
    assert table(host).count("chain out-") == 1
    host.drop("other")
    assert "egress" not in table(host)


def test_many_containers_with_one_list_come_and_go_at_once(host: Host) -> None:
    names = [f"pod-{n}" for n in range(60)]
    wanted = listed(*long_list(600), NEAR)
    host.make(names)
    assert not problems(host.storm([ask("ADD", name, **wanted) for name in names]))
    assert table(host).count("chain out-") == 1
    with addresses(host) as outside:
        for name in names[::20]:
            assert reaches(host.network(name), outside, f"{FAR4}1", 80, TCP)
            assert not reaches(host.network(name), outside, f"{FAR4}2", 80, TCP)
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    host.unmake(names)
    assert "egress" not in table(host)


def test_a_list_outlives_kill_9_of_the_agent_and_is_in_force_meanwhile(host: Host) -> None:
    said = host.add("pod", **listed(NEAR))
    rules = host.shell("nft -s list table inet weft")
    host.end()
    assert keeps(host, "pod")
    host.start()
    assert host.shell("nft -s list table inet weft") == rules
    assert keeps(host, "pod")
    assert not problems([host.send(ask("CHECK", "pod", prevResult=said.json))])
    host.drop("pod")


def test_a_lost_journal_is_made_good_from_the_rules(host: Host) -> None:
    four, _ = node_of(host)
    host.add("pod", **listed(NEAR, host_tcp_services=[f"{four}:9001"]))
    before = shown(host, "pod")
    host.end()
    host.shell("rm /run/weft/journal.db*")
    host.start()
    assert shown(host, "pod") == before == shown_digest(host)
    assert keeps(host, "pod")
    assert reaches(host.network("pod"), host.node.network, four, 9001, TCP)
    host.drop("pod")


def test_an_empty_list_is_known_again_without_the_journal(host: Host) -> None:
    host.add("pod", **listed())
    before = shown(host, "pod")
    host.end()
    host.shell("rm /run/weft/journal.db*")
    host.start()
    assert shown(host, "pod") == before != "unknown"
    host.drop("pod")


def test_a_list_that_nobody_knows_any_more_allows_nothing(host: Host) -> None:
    """Journal and rules are lost while no agent runs; the record on the link is left."""
    four = host.add("pod", **listed(NEAR)).addresses[0]
    host.end()
    host.shell("rm /run/weft/journal.db*; nft delete table inet weft")
    host.start()
    assert "unknown" in shown(host, "pod")
    assert "egress-lost" in host.weft("status", "-o", "json")
    with addresses(host) as outside:
        pod = host.network("pod")
        assert not reaches(pod, outside, f"{FAR4}1", 80, TCP)
        assert not echoes(pod, f"{FAR4}1", 8)
    assert reaches(host.node.network, host.network("pod"), four, 80, TCP)
    host.restart()
    assert "unknown" in shown(host, "pod")
    host.drop("pod")
    assert "egress-lost" not in host.weft("status", "-o", "json")


@pytest.mark.matrix(id="egress killed", full=60, reduced=2)
def test_lists_are_whole_or_gone_after_kill_9_in_a_storm(host: Host, count: int) -> None:
    """Whoever has an address afterwards has its list, and the DELs leave nothing."""
    draw = random.Random(7)
    for moment in (draw.uniform(0.002, 0.2) for _ in range(count)):
        _storm(host, moment)


def _storm(host: Host, moment: float) -> None:
    names = [f"pod-{n}" for n in range(16)]
    host.make(names)
    kinds = [listed(*long_list(n), NEAR) for n in (0, 40, 600)]
    asks = [ask("ADD", name, **kinds[n % 3]) for n, name in enumerate(names)]
    killer = threading.Timer(moment, host.end)
    killer.start()
    answers = host.storm(asks, limit=10.0)
    killer.join()
    host.start()
    with addresses(host) as outside:
        for name, said in zip(names, answers, strict=True):
            if said.status == 0:
                pod = host.network(name)
                assert reaches(pod, outside, f"{FAR4}1", 80, TCP), name
                assert not reaches(pod, outside, f"{FAR4}2", 80, TCP), name
    ended = host.storm([ask("DEL", name) for name in names])
    assert not problems(ended)
    host.unmake(names)
    assert "egress" not in table(host)


@pytest.mark.matrix(id="egress comes and goes", full=60, reduced=3)
def test_a_list_that_one_leaves_while_another_takes_it_stands(host: Host, count: int) -> None:
    wanted = [listed(*long_list(n), NEAR) for n in (1, 300)]  # written at once, and in slices
    host.make(["one", "two", "three", "four"])
    pairs = [("one", "two"), ("three", "four")]
    begun = [ask("ADD", old, **conf) for (old, _), conf in zip(pairs, wanted, strict=True)]
    assert not problems(host.storm(begun))
    for _ in range(count):
        mixed = []
        for (old, new), conf in zip(pairs, wanted, strict=True):
            mixed += [ask("DEL", old), ask("ADD", new, **conf)]
        assert not problems(host.storm(mixed))
        with addresses(host) as outside:
            for _, new in pairs:
                assert reaches(host.network(new), outside, f"{FAR4}1", 80, TCP)
                assert not reaches(host.network(new), outside, f"{FAR4}2", 80, TCP)
        pairs = [(new, old) for old, new in pairs]
    assert not problems(host.storm([ask("DEL", old) for old, _ in pairs]))
    host.unmake(["one", "two", "three", "four"])
    assert "egress" not in table(host)


@pytest.mark.parametrize("rules", [0, 300])
def test_rules_that_somebody_has_just_taken_away_are_made_again_with_the_list(
    new_host: Callable[..., Host], rules: int
) -> None:
    with watched(new_host("ruleset: {protected: never}")) as host:
        host.add("pod", **listed(NEAR))
        host.make(["next"])
        host.shell("nft delete table inet weft")
        said = host.send(ask("ADD", "next", **listed(*long_list(rules), NEAR)))
        if said.status:  # a long list is written before its turn, and the runtime asks again
            assert rules and said.is_clean
            said = host.send(ask("ADD", "next", **listed(*long_list(rules), NEAR)))
        assert said.status == 0, said
        assert keeps(host, "next") and keeps(host, "pod")
        host.drop("next")
        host.drop("pod")
