"""Tables that only their owner can change: made, adopted, moved, and refused to others."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import msgspec
import pytest
from namespace_fixture import on_a_node

from weft.drivers.engine import Engine
from weft.drivers.rules import Rules, RulesTransport, surviving
from weft.drivers.surroundings import Host
from weft.kernel.nftables import tables
from weft.model.errors import KernelRefused
from weft.render import guards
from weft.render.ruleset import NodeRules, closed_rows, node_rows
from weft.rows.rules import Family, Table

PLAN = NodeRules(pools=(ip_network("10.244.0.0/16"),), blocks=(ip_network("10.244.3.0/26"),))
FLUSHES = (("delete", "table", "inet", "weft"), ("flush", "table", "inet", "weft"))


class Agent:
    """What an agent does to the packet rules: take over what stands."""

    def __init__(self, *, protected: bool = True, pods: int = 3) -> None:
        self.transport = RulesTransport()
        self.host = Host(self.transport)
        self.engine = Engine(self.host, [Rules(self.transport)])
        owner = self.transport.tables.port if protected else None
        self.rows = node_rows(msgspec.structs.replace(PLAN, owner=owner))
        self.engine.adopt("node", self.rows)
        for number in range(pods):
            address = bytes((10, 244, 3, number))
            pod = guards.elements(f"wf{number:013d}", bytes(6), [address], None, True)
            self.engine.adopt(f"pod {number}", pod)
        wanted = {row.key: row for row in self.rows}
        self.transport.adopt(row for row in self.rows if isinstance(row, Table))
        self.written = self.engine.take_over(surviving(self.transport.standing("weft"), wanted))

    def die(self) -> None:
        self.transport.close()
        self.host.close()


def nft(*words: str) -> tuple[int, str]:
    done = subprocess.run(["nft", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def held(transport: RulesTransport) -> list[tuple[bool, int | None]]:
    return [
        (row.persist, row.owner)
        for family in (Family.INET, Family.ARP, Family.BRIDGE)
        for row in transport.tables.tables(family)
    ]


@on_a_node
def test_the_trial_of_the_kernel_leaves_nothing_and_nobody_sees_it() -> None:
    transport = RulesTransport()
    before = transport.tables.generation()
    assert transport.can_protect()
    assert transport.tables.generation() == before
    assert transport.tables.tables(Family.INET) == []


@on_a_node
def test_nobody_else_can_flush_or_delete_what_the_agent_owns() -> None:
    agent = Agent()
    assert held(agent.transport) == [(True, agent.transport.tables.port)] * 3
    for words in FLUSHES:
        code, said = nft(*words)
        assert code != 0
        assert "Operation not permitted" in said
    assert nft("add", "table", "inet", "other")[0] == 0
    assert nft("flush", "ruleset") == (0, "")
    families = [line.split()[1] for line in nft("list", "tables")[1].splitlines()]
    assert sorted(families) == ["arp", "bridge", "inet"]
    assert agent.engine.drift() == {}


@on_a_node
def test_an_orphan_is_adopted_without_rewriting_what_is_right() -> None:
    first = Agent()
    before = first.transport.standing("weft")
    first.die()
    second = Agent()
    assert second.written == 0
    assert held(second.transport) == [(True, second.transport.tables.port)] * 3
    same = [row for row in before if not isinstance(row, Table)]
    assert [r for r in second.transport.standing("weft") if not isinstance(r, Table)] == same
    assert second.engine.drift() == {}


@on_a_node
def test_what_was_flushed_while_nobody_owned_it_is_restored_at_once() -> None:
    first = Agent()
    full = len(first.transport.standing("weft"))
    first.die()
    assert nft("flush", "ruleset") == (0, "")
    second = Agent()
    assert len(second.transport.standing("weft")) == full
    assert second.engine.drift() == {}


@on_a_node
@pytest.mark.parametrize("protected", [False, True])
def test_a_table_with_other_flags_is_moved_in_one_transaction(protected: bool) -> None:
    first = Agent(protected=not protected)
    first.die()
    watcher = RulesTransport()
    before = watcher.tables.generation()
    second = Agent(protected=protected)
    assert watcher.tables.generation() == before + 1
    port = second.transport.tables.port if protected else None
    assert held(second.transport) == [(protected, port)] * 3
    assert second.engine.drift() == {}


@on_a_node
def test_what_nobody_has_goes_when_the_rules_are_taken_over() -> None:
    Agent(pods=3).die()
    second = Agent(pods=1)
    assert second.written == 2 * 2, "two elements each of two pods"
    assert second.engine.drift() == {}


@on_a_node
def test_a_table_that_is_held_by_another_is_named_with_its_holder() -> None:
    holder = Agent()
    with pytest.raises(KernelRefused, match=r"belongs to .*process|netlink port"):
        Agent()
    assert holder.engine.drift() == {}


@on_a_node
def test_guards_in_a_table_that_is_held_by_another_are_no_longer_ours() -> None:
    """DEL succeeds whatever happened to the rules."""
    first = Agent()
    first.transport.tables.commit([tables.delete_table(row) for row in _own(first)])
    thief = RulesTransport()
    made = [msgspec.structs.replace(row, owner=thief.tables.port) for row in _own(first)]
    thief.tables.commit([tables.add_table(row) for row in made])
    first.engine.withdraw("pod 0")
    assert first.engine.rows("pod 0") == ()


def _own(agent: Agent) -> list[Table]:
    return [row for row in agent.rows if isinstance(row, Table)]


@on_a_node
def test_a_dormant_table_is_made_anew_with_all_that_is_in_it() -> None:
    Agent(protected=False).die()
    assert nft("add", "table", "inet", "weft", "{ flags dormant; }")[0] == 0
    second = Agent(protected=False)
    assert second.engine.drift() == {}
    assert not any(row.dormant for row in second.transport.tables.tables(Family.INET))


@on_a_node
def test_the_closed_rules_of_a_boot_are_adopted() -> None:
    transport = RulesTransport()
    boot = Engine(Host(transport), [Rules(transport)])
    boot.apply("boot", closed_rows((ip_network("10.244.0.0/16"),), persist=True))
    assert held(transport) == [(True, None)]
    transport.close()
    agent = Agent()
    assert held(agent.transport) == [(True, agent.transport.tables.port)] * 3
    assert agent.engine.drift() == {}
