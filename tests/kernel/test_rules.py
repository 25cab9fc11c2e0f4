"""The node's rules in a kernel: what is read back equals what was written, and stays right."""

from __future__ import annotations

import statistics
import subprocess
import time
from ipaddress import ip_network

import msgspec
import pytest
from namespace_fixture import on_a_node

from weft.drivers.engine import Engine
from weft.drivers.rules import Rules, RulesTransport
from weft.drivers.surroundings import Host
from weft.kernel.netlink import Socket, frames
from weft.kernel.nftables import elements
from weft.kernel.nftables.expressions import Foreign
from weft.model.errors import KernelRefused
from weft.render import bridge_guards, guards
from weft.render.ruleset import DROPS, NodeRules, closed_rows, node_rows
from weft.rows.base import Row
from weft.rows.rules import (
    Bitwise,
    Chain,
    Compare,
    Conntrack,
    Counter,
    Element,
    Family,
    Fib,
    Hook,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    MetaSet,
    Payload,
    Range,
    Reject,
    Set,
    Table,
    Verdict,
)

PLAN = NodeRules(
    pools=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
    blocks=(ip_network("10.244.3.0/26"), ip_network("fd00:1:0:3::/64")),
    cluster=(ip_network("10.96.0.0/12"), ip_network("192.0.2.1/32"), ip_network("255.0.0.0/8")),
    strangers=("wf0", "wfdirect"),
)
MAC = bytes.fromhex("0a0102030405")


def attachment(index: int, masquerade: bool = True) -> tuple[Element, ...]:
    four, six = bytes((10, 244, index >> 8, index & 255)), index.to_bytes(16, "big")
    local = b"\xfe\x80" + index.to_bytes(14, "big")
    name = f"wf{index:013d}"
    port = bridge_guards.elements(name, MAC, [four, six], local)
    return guards.elements(name, MAC, [four, six], local, masquerade) + port


class Node:
    """An engine with nothing but rules."""

    def __init__(self) -> None:
        self.transport = RulesTransport()
        self.host = Host(self.transport)
        self.engine = Engine(self.host, [Rules(self.transport)])

    def standing(self) -> dict[object, Row]:
        return {row.key: row for row in self.transport.standing("weft")}


def nft(*words: str) -> str:
    done = subprocess.run(["nft", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_key(rows: object) -> dict[object, Row]:
    return {row.key: row for row in rows}  # type: ignore[attr-defined]


@on_a_node
def test_what_the_kernel_holds_reads_equal_to_what_was_written() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1, masquerade=False))
    assert node.standing() == by_key((*node_rows(PLAN), *attachment(1, masquerade=False)))
    assert node.engine.drift() == {}


@on_a_node
def test_every_kind_of_expression_reads_equal_to_what_was_written() -> None:
    node = Node()
    table = Table(family=Family.INET, name="weft")
    schema = Set(
        family=Family.INET,
        table="weft",
        name="marks",
        key_types=("ipv4_addr", "inet_service"),
        data_type="mark",
    )
    ranges = msgspec.structs.replace(schema, name="ranges", data_type=None, interval=True)
    verdicts = msgspec.structs.replace(
        schema, name="verdicts", key_types=("inet_proto",), data_type="verdict"
    )
    members = (
        element(schema, b"\x0a\0\0\1", b"\0\x50", data=b"\1\0\0\0"),
        element(ranges, b"\x0a\0\0\0", b"\0\x50", upto=(b"\x0a\0\0\xff", b"\0\x5a")),
        element(ranges, b"\x0b\0\0\0", b"\0\x50"),
        element(verdicts, b"\x11", data=b"goto leaf"),
        element(verdicts, b"\x06", data=b"drop"),
    )
    leaf = Chain(family=Family.INET, table="weft", name="leaf", rules=((Counter(),),))
    source = Payload(base="network", offset=12, length=4)
    port = Payload(base="transport", offset=2, length=2, register=9)
    tree = Chain(
        family=Family.INET,
        table="weft",
        name="tree",
        hook=Hook(type="filter", number=1, priority=-7, policy="drop"),
        rules=(
            (source, port, Lookup(set="marks", data_register=1), MetaSet(key="mark")),
            (source, port, Lookup(set="ranges", invert=True), Counter()),
            (Meta(key="l4proto"), Lookup(set="verdicts", data_register=0)),
            (
                Conntrack(key="state"),
                Bitwise(mask=b"\x0a\0\0\0", xor=bytes(4)),
                Compare(op="!=", value=bytes(4)),
                Verdict(verdict="accept"),
            ),
            (
                Fib(result="type", flags=("daddr",)),
                Compare(op="==", value=b"\2\0\0\0"),
                Verdict(verdict="jump", chain="leaf"),
            ),
            (source, Range(low=b"\1\0\0\0", high=b"\2\0\0\0", invert=True), Counter()),
            (source, Compare(op="<", value=b"\1\0\0\0"), Verdict(verdict="continue")),
            (Immediate(value=b"\5\0\0\0"), MetaSet(key="mark"), Reject(type=2, code=3)),
        ),
    )
    out = Chain(
        family=Family.INET,
        table="weft",
        name="out",
        hook=Hook(type="nat", number=4, priority=100),
        rules=((Masquerade(flags=4),), (Masquerade(),)),
    )
    wanted = (table, schema, ranges, verdicts, leaf, tree, out, *members)
    node.engine.apply("node", wanted)
    assert node.standing() == by_key(wanted)
    assert node.engine.drift() == {}


def element(schema: Set, *parts: bytes, **more: object) -> Element:
    return Element(family=schema.family, table=schema.table, set=schema.name, parts=parts, **more)  # type: ignore[arg-type]


@on_a_node
def test_nft_prints_the_rules_and_reads_what_it_printed() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    printed = nft("list", "ruleset")
    assert "type ifname . ether_addr . ipv4_addr" in printed
    assert "iifname . ether saddr . ip saddr @guard4 goto listed4" in printed
    nft("flush", "ruleset")
    done = subprocess.run(["nft", "-f", "-"], input=printed, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert nft("list", "ruleset") == printed


@on_a_node
def test_nft_prints_an_element_that_it_would_find() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    found = nft("get", "element", "inet", "weft", "local4", '{ "wf0000000000001" . 10.244.0.1 }')
    assert "10.244.0.1" in found


@on_a_node
def test_making_again_what_stands_succeeds_and_changes_nothing() -> None:
    node = Node()
    wanted = (*node_rows(PLAN), *attachment(1))
    node.engine.apply("node", wanted)
    again = Node()
    again.engine.apply("node", wanted)
    assert again.standing() == by_key(wanted)


@on_a_node
def test_removing_what_is_partly_gone_removes_the_rest() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    node.engine.apply("other", attachment(2))
    nft("delete", "element", "inet", "weft", "local4", '{ "wf0000000000001" . 10.244.0.1 }')
    nft("flush", "set", "inet", "weft", "local6")
    assert node.engine.withdraw("pod") == []
    left = {row for row in node.standing().values() if isinstance(row, Element)}
    assert left & set(attachment(1)) == set()
    others = {row for row in left & set(attachment(2)) if row.family is Family.INET}
    assert {row.set for row in others} == {"guard4", "guard6", "local4"}


@on_a_node
def test_removing_where_the_table_itself_is_gone_succeeds() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    nft("flush", "ruleset")
    node.engine.withdraw("pod")
    node.engine.withdraw("node")
    assert node.standing() == {}


@on_a_node
def test_taking_everything_back_leaves_no_table() -> None:
    nft("add", "table", "inet", "foreign")
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    node.engine.withdraw("pod")
    node.engine.withdraw("node")
    assert nft("list", "ruleset").split() == ["table", "inet", "foreign", "{", "}"]


@on_a_node
def test_refused_row_leaves_nothing_of_its_transaction_and_is_named() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    before = node.standing()
    wrong = Chain(
        family=Family.INET,
        table="weft",
        name="wrong",
        rules=((Meta(key="iifname"), Lookup(set="nowhere"), Verdict(verdict="drop")),),
    )
    with pytest.raises(KernelRefused) as caught:
        node.engine.apply("pod", (*attachment(1), wrong))
    assert "wrong" in str(caught.value)
    assert node.standing() == before
    node.engine.withdraw("pod")
    assert node.standing() == before


@on_a_node
def test_opening_and_closing_replaces_one_chain() -> None:
    node = Node()
    node.engine.apply("node", closed_rows(PLAN.pools))
    assert node.standing() == by_key(closed_rows(PLAN.pools))
    node.engine.apply("node", node_rows(PLAN))
    assert node.standing() == by_key(node_rows(PLAN))
    node.engine.apply("node", closed_rows(PLAN.pools))
    assert node.standing() == by_key(closed_rows(PLAN.pools))


@on_a_node
def test_ranges_change_in_one_transaction_also_where_old_and_new_overlap() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    halves = tuple(ip_network("10.244.0.0/16").subnets(1))
    for pools in (halves, (ip_network("10.0.0.0/8"),), (*halves, ip_network("10.1.0.0/16")), ()):
        plan = msgspec.structs.replace(PLAN, pools=pools)
        node.engine.apply("node", node_rows(plan))
        assert node.standing() == by_key(node_rows(plan))


@on_a_node
def test_chain_moves_to_another_hook_in_one_transaction() -> None:
    node = Node()
    table = Table(family=Family.INET, name="weft")
    here = Chain(
        family=Family.INET,
        table="weft",
        name="c",
        hook=Hook(type="filter", number=0, priority=0),
        rules=((Verdict(verdict="accept"),),),
    )
    for hook in (
        Hook(type="filter", number=1, priority=5),
        Hook(type="filter", number=1, priority=5, policy="drop"),
        None,
        Hook(type="nat", number=4, priority=100),
    ):
        node.engine.apply("node", (table, here))
        moved = msgspec.structs.replace(here, hook=hook)
        node.engine.apply("node", (table, moved))
        assert node.standing()[here.key] == moved


DAMAGE = (
    ("flush", "ruleset"),
    ("flush", "table", "inet", "weft"),
    ("delete", "table", "arp", "weft"),
    ("flush", "chain", "inet", "weft", "from-pods"),
    ("add", "rule", "inet", "weft", "from-pods", "accept"),
    ("insert", "rule", "inet", "weft", "listed4", "limit", "rate", "1/second", "accept"),
    ("flush", "set", "inet", "weft", "guard6"),
    ("flush", "set", "inet", "weft", "pools4"),
    ("delete", "element", "inet", "weft", "blocks4", "{ 10.244.3.0/26 }"),
    ("delete", "element", "inet", "weft", "cluster4", "{ 192.0.2.1 }"),
    ("add", "table", "inet", "weft", "{ flags dormant; }"),
)


@pytest.mark.parametrize("damage", DAMAGE, ids=" ".join)
@on_a_node
def test_damage_is_found_and_mended(damage: tuple[str, ...]) -> None:
    node = Node()
    wanted = (*node_rows(PLAN), *attachment(1))
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    nft(*damage)
    found = node.engine.drift()
    assert found
    assert all(each.mended and each.words for owner in found.values() for each in owner)
    assert node.standing() == by_key(wanted)
    assert node.engine.drift() == {}


@on_a_node
def test_rule_of_others_in_our_chain_is_foreign_and_not_ours() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    nft("add", "rule", "inet", "weft", "listed4", "quota", "25", "mbytes", "drop")
    nft("add", "rule", "inet", "weft", "listed4", "ct", "count", "3", "accept")
    chain = node.standing()["Chain", Family.INET, "weft", "listed4"]
    assert isinstance(chain, Chain)
    assert [item.name for rule in chain.rules for item in rule if isinstance(item, Foreign)] == [
        "quota",
        "connlimit",
    ]


@on_a_node
def test_counters_are_read_by_the_reason_of_their_chain() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    assert node.transport.counters("weft") == {f"drop-{reason}": (0, 0) for reason in DROPS}


@on_a_node
def test_more_elements_than_one_transaction_should_hold_are_all_there() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    many = [row for index in range(1, 1201) for row in attachment(index)]
    assert len(many) > elements.SLICE * 2
    node.engine.apply("pods", many)
    standing = node.standing()
    assert by_key(many).items() <= standing.items()
    assert node.engine.differences("pods") == []
    node.engine.apply("pods", [])
    assert node.standing() == by_key(node_rows(PLAN))


@on_a_node
def test_many_elements_in_few_messages_are_all_there() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    schema = next(row for row in node_rows(PLAN) if isinstance(row, Set) and row.name == "guard6")
    rows = [element(schema, b"wf", MAC, index.to_bytes(16, "big")) for index in range(4500)]
    for part in elements.slices(rows):
        assert node.transport.tables.commit(elements.add_elements(schema, part)) == []
    assert set(node.transport.tables.elements(schema)) == set(rows)
    assert node.transport.tables.holds(schema, rows[:3]) == rows[:3]


@on_a_node
def test_every_change_is_one_generation() -> None:
    node = Node()
    tables = node.transport.tables
    before = tables.generation()
    node.engine.apply("node", node_rows(PLAN))
    node.engine.apply("pod", attachment(1))
    node.engine.withdraw("pod")
    assert tables.generation() == before + 3


@on_a_node
def test_notifications_name_the_rows_that_others_touched() -> None:
    node = Node()
    driver = Rules(node.transport)
    node.engine = Engine(node.host, [driver])
    node.engine.apply("node", node_rows(PLAN))
    with Socket(driver.watch.protocol, groups=driver.watch.groups) as listener:
        nft("add", "element", "inet", "weft", "local4", '{ "wfa" . 10.244.0.1 }')
        nft("flush", "chain", "inet", "weft", "listed4")
        nft("add", "element", "inet", "weft", "pools4", "{ 10.1.0.0/16 }")
        nft("add", "table", "inet", "other")
        nft("delete", "table", "arp", "weft")
        keys = set()
        while ("Table", Family.ARP, "weft") not in keys:
            for kind, _, _, body in frames(listener.receive()):
                keys.update(driver.touched(kind, body, None))  # type: ignore[arg-type]
    assert {
        ("Element", Family.INET, "weft", "local4", (b"wfa", bytes((10, 244, 0, 1)))),
        ("Chain", Family.INET, "weft", "listed4"),
        ("Set", Family.INET, "weft", "pools4"),
        ("Table", Family.INET, "other"),
        ("Table", Family.ARP, "weft"),
    } <= keys


def median_of_adding(node: Node, indexes: range) -> float:
    """Seconds for four elements, from rows to the kernel's answer."""
    schemas = {row.key[1:]: row for row in node_rows(PLAN) if isinstance(row, Set)}
    times = []
    for index in indexes:
        rows = attachment(index)[:4]
        start = time.perf_counter()
        outcome = node.transport.commit(
            [elements.add_element(schemas[row.family, row.table, row.set], row) for row in rows]
        )
        times.append(time.perf_counter() - start)
        assert outcome.refusals == ()
    return statistics.median(times)


@on_a_node
def test_four_elements_cost_the_same_beside_many_others() -> None:
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    few = median_of_adding(node, range(1, 201))
    node.engine.apply("pods", [row for index in range(201, 2201) for row in attachment(index)])
    many = median_of_adding(node, range(2201, 2401))
    print(f"four elements: {few * 1e6:.0f} microseconds, beside 10,000 others {many * 1e6:.0f}")
    assert many < few * 5


@on_a_node
def test_messages_are_made_for_nothing_but_our_table() -> None:
    nft("add", "table", "inet", "foreign")
    nft("add", "set", "inet", "foreign", "guard4", "{ type mark; elements = { 1, 2 }; }")
    node = Node()
    node.engine.apply("node", node_rows(PLAN))
    before = nft("list", "table", "inet", "foreign")
    assert node.engine.drift() == {}
    node.engine.withdraw("node")
    assert nft("list", "table", "inet", "foreign") == before
