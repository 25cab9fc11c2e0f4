"""Transactions that the kernel puts off: nothing pauses on the agent's loop, and nothing fails."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from namespace_fixture import on_a_node

from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.kernel.netlink import Socket
from weft.kernel.nftables import chains
from weft.lab import cluster
from weft.lab.crash.tracing import MAIN, Injection, Watching
from weft.lab.nodes import Node
from weft.lab.runtime import Attachment
from weft.rows.rules import Chain, Family, Table, Verdict


def refused(times: int) -> Injection:
    """The first messages that the agent sends are refused as if the socket had no room."""
    return Injection("sendto", f"inject=sendto:error=ENOBUFS:when=1..{times}")


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_transaction_that_is_put_off_twice_is_made_after_all(
    node: Node, bare_pod: Callable[[str], Path], tmp_path: Path, verb: str
) -> None:
    bare_pod("p")
    pid = cluster.start_agent(node)
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c", netns="/run/netns/p")
    assert runtime.add(wanted).is_good  # the node has its blocks
    if verb == "ADD":
        assert runtime.delete(wanted).is_good
    log = tmp_path / "log"
    # the verb's first message is its transaction; each is sent once more at once
    with Watching(pid, log, only=MAIN, injection=refused(4)):
        done = runtime.add(wanted) if verb == "ADD" else runtime.delete(wanted)
    assert done.is_good, done.failure
    put_off = [line for line in log.read_text().splitlines() if "(INJECTED)" in line]
    assert ["nlmsg_type" in line for line in put_off] == [True] * 4  # and not an answer
    assert runtime.check(wanted).is_good is (verb == "ADD")
    assert runtime.delete(wanted).is_good


@on_a_node
def test_a_chain_in_use_is_refused_after_one_more_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that stays (EBUSY) must cost whoever waits for it two transactions and no pause."""
    table = Table(family=Family.INET, name="t")
    leaf = Chain(family=Family.INET, table="t", name="leaf")
    user = Chain(
        family=Family.INET,
        table="t",
        name="user",
        rules=((Verdict(verdict="jump", chain="leaf"),),),
    )
    engine = Engine(Host(rules := RulesTransport()), all_drivers(rules))
    engine.apply("a", [table, leaf, user])
    sent: list[int] = []
    send = Socket.send

    def counted(self: Socket, messages: Sequence[bytes], *, quiet: bool = False) -> int:
        sent.append(len(messages))
        return send(self, messages, quiet=quiet)

    monkeypatch.setattr(Socket, "send", counted)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it pauses"))
    (refusal,) = rules.tables.commit(chains.delete_chain(leaf)[-1:])
    assert refusal.errno == errno.EBUSY
    assert len(sent) == 2
    assert engine.differences("a") == []


def test_a_node_whose_rules_are_put_off_serves_a_moment_later(
    node: Node, bare_pod: Callable[[str], Path], tmp_path: Path
) -> None:
    """The first ADD claims blocks, and the node's rules follow: the node must not wait for the
    next look at everything, which is up to 20 s away."""
    bare_pod("p")
    pid = cluster.start_agent(node)
    runtime = cluster.runtime(node)
    log = tmp_path / "log"
    with Watching(pid, log, only=MAIN, injection=refused(5)):
        runtime.add(Attachment(container="c", netns="/run/netns/p"))
    assert "(INJECTED)" in log.read_text()
    deadline = time.monotonic() + 5
    while not (said := runtime.status()).is_good:
        assert time.monotonic() < deadline, said.failure
        time.sleep(0.02)
    assert runtime.delete(Attachment(container="c", netns="/run/netns/p")).is_good
