"""The node's rules are complete in themselves, and an attachment fits their sets."""

from __future__ import annotations

import re
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.kernel.nftables import elements as encode
from weft.kernel.nftables.datatypes import TYPES
from weft.model.addresses import Prefix
from weft.render.egress import REFUSED
from weft.render.guards import elements
from weft.render.ruleset import DROPS, NodeRules, closed_rows, node_rows
from weft.render.sets import range_elements, strangers_among
from weft.rows.base import Row
from weft.rows.rules import (
    Chain,
    Compare,
    Counter,
    Element,
    Expression,
    ExtensionHeader,
    Family,
    Fib,
    Lookup,
    Masquerade,
    Meta,
    Payload,
    Set,
    Table,
    Verdict,
)

PLAN = NodeRules(
    pools=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
    blocks=(ip_network("10.244.3.0/26"),),
    cluster=(ip_network("10.96.0.0/12"),),
    strangers=("wf0",),
)
LINK, MAC = "wfabcdefghijklm", bytes.fromhex("0a0102030405")
IP4, IP6, LOCAL = bytes((10, 244, 3, 1)), bytes.fromhex("fd00") + bytes(14), b"\xfe\x80" + bytes(14)

plans = pytest.mark.parametrize(
    "rows", [node_rows(PLAN), node_rows(NodeRules()), closed_rows(PLAN.pools)], ids=range(3)
)


def chains(rows: tuple[Row, ...]) -> dict[tuple[int, str], Chain]:
    return {(row.family, row.name): row for row in rows if isinstance(row, Chain)}


def expressions(rows: tuple[Row, ...]) -> list[tuple[Chain, Expression]]:
    return [
        (chain, item) for chain in chains(rows).values() for rule in chain.rules for item in rule
    ]


@plans
def test_every_row_stands_after_what_it_refers_to(rows: tuple[Row, ...]) -> None:
    seen: set[object] = set()
    for row in rows:
        if isinstance(row, Element):
            assert ("Set", row.family, row.table, row.set) in seen
        elif isinstance(row, Set | Chain):
            assert ("Table", row.family, row.table) in seen
        for rule in row.rules if isinstance(row, Chain) else ():
            for item in rule:
                if isinstance(item, Verdict) and item.chain:
                    assert ("Chain", row.family, row.table, item.chain) in seen
                if isinstance(item, Lookup):
                    assert ("Set", row.family, row.table, item.set) in seen
        assert row.key not in seen
        seen.add(row.key)


@plans
def test_registers_are_written_as_the_kernel_tells_of_them(rows: tuple[Row, ...]) -> None:
    # 8, 12, 16 and 20 would come back as 1..4, and a chain would never equal itself
    for _, item in expressions(rows):
        assert getattr(item, "register", 1) in {1, 2, 3, 4, 9, 10, 11, 13, 14, 15}


def test_every_chain_on_a_hook_asks_for_our_links_or_our_addresses() -> None:
    for chain in chains(node_rows(PLAN)).values():
        if chain.hook is None:
            continue
        for rule in chain.rules[:1]:
            if isinstance(rule[0], Fib):
                assert rule[0].flags == ("daddr",), "addresses of the node alone"
                continue
            if chain.family is Family.BRIDGE:
                assert rule[1] == Lookup(set="ports")
                continue
            kinds = [(item.key if isinstance(item, Meta) else None) for item in rule]
            assert kinds[0] in {"iifname", "oifname"}
            assert rule[1] in (Compare(op="==", value=b"wf"), Compare(op="!=", value=b"wf"))


def test_every_reason_has_a_chain_that_counts_and_something_leads_to_it() -> None:
    drops = {f"drop-{reason}" for reason in DROPS}
    both = (node_rows(PLAN), closed_rows(PLAN.pools))
    led = {
        item.chain for rows in both for _, item in expressions(rows) if isinstance(item, Verdict)
    }
    assert drops <= led
    found = [chain for rows in both for chain in chains(rows).values() if chain.name in drops]
    assert {chain.name for chain in found} == drops
    for chain in found:
        assert chain.rules == ((Counter(), Verdict(verdict="drop")),)


def test_nothing_is_dropped_without_a_reason() -> None:
    for chain, item in expressions(node_rows(PLAN)):
        if isinstance(item, Verdict) and item.verdict == "drop":
            assert chain.name.startswith("drop-")


def test_what_reads_a_packet_and_fails_lets_nothing_pass_that_is_not_listed() -> None:
    # a look-up that is inverted would be skipped, with its drop, where the load before it fails
    first = chains(node_rows(PLAN))[1, "from-pods"]
    lookups = [item for rule in first.rules for item in rule if isinstance(item, Lookup)]
    # whose name is not among the adopted is let through: skipped, it would be dropped
    assert [(item.set, item.invert) for item in lookups] == [
        ("adopted", True),
        ("guard4", False),
        ("guard6", False),
    ]
    assert first.rules[0][-1] == Verdict(verdict="goto", chain="elsewhere")
    assert first.rules[-1] == (Verdict(verdict="goto", chain="unlisted"),)


def test_opening_a_node_replaces_the_rules_of_the_chain_that_closes_it() -> None:
    closed = {row.key: row for row in closed_rows(PLAN.pools)}
    opened = {row.key: row for row in node_rows(PLAN)}
    assert closed.keys() <= opened.keys()
    changed = [key for key, row in closed.items() if opened[key] != row]
    assert [key[-1] for key in changed] == ["forward"]
    (key,) = changed
    old, new = closed[key], opened[key]
    assert isinstance(old, Chain)
    assert isinstance(new, Chain)
    assert old.hook == new.hook


def test_without_masquerade_only_published_ports_are_translated() -> None:
    rows = node_rows(NodeRules(pools=PLAN.pools, masquerade=False))
    nat = {c.name for c in chains(rows).values() if c.hook and c.hook.type == "nat"}
    assert nat == {"to-published", "own-to-published", "back"}
    found = {
        chain.name
        for chain in chains(rows).values()
        for rule in chain.rules
        for item in rule
        if isinstance(item, Masquerade)
    }
    assert found == {"back", "back-adopted"}


def test_pools_are_reached_without_masquerade() -> None:
    listed = {(row.set, row.parts) for row in node_rows(PLAN) if isinstance(row, Element)}
    for name, parts in (("cluster4", (bytes((10, 244, 0, 0)),)), ("cluster4", (b"\x0a\x60\0\0",))):
        assert (name, parts) in listed


def test_attachment_may_send_from_its_addresses_and_is_reached_at_them() -> None:
    rows = elements(LINK, MAC, [IP4, IP6], LOCAL, True)
    name = LINK.encode()
    assert {(row.set, row.parts) for row in rows} == {
        ("guard4", (name, MAC, IP4)),
        ("guard6", (name, MAC, IP6)),
        ("guard6", (name, MAC, LOCAL)),
        ("local4", (name, IP4)),
        ("local6", (name, IP6)),
    }


def test_attachment_without_ipv6_may_send_no_ipv6() -> None:
    rows = elements(LINK, MAC, [IP4], None, True)
    assert {row.set for row in rows} == {"guard4", "local4"}


def test_attachment_that_is_not_masqueraded_is_listed_by_its_link() -> None:
    (row,) = set(elements(LINK, MAC, [IP4], None, False)) - set(
        elements(LINK, MAC, [IP4], None, True)
    )
    assert (row.set, row.parts) == ("routed", (LINK.encode(),))


def test_elements_of_an_attachment_fit_the_sets_of_the_node() -> None:
    schemas = {row.name: row for row in node_rows(PLAN) if isinstance(row, Set) and row.family == 1}
    for row in elements(LINK, MAC, [IP4, IP6], LOCAL, False):
        types = schemas[row.set].key_types
        sizes = [len(part) for part in row.parts]
        limits = [TYPES[word].size for word in types]
        assert all(
            size == limit or (word == "ifname" and size < limit)
            for word, size, limit in zip(types, sizes, limits, strict=True)
        )
        assert encode.add_element(schemas[row.set], row)


networks: st.SearchStrategy[Prefix] = st.builds(
    lambda value, length: ip_network((value, length), strict=False),
    st.integers(0x0A000000, 0x0A0000FF),
    st.integers(22, 32),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(networks, max_size=12))
def test_ranges_of_a_set_never_overlap_and_leave_nothing_out(prefixes: list[Prefix]) -> None:
    rows = range_elements("pools", prefixes)
    spans = sorted((row.parts[0], (row.upto or row.parts)[0]) for row in rows)
    for (_, end), (start, _) in pairwise(spans):
        assert end < start
    covered = {
        value
        for low, high in spans
        for value in range(int.from_bytes(low, "big"), int.from_bytes(high, "big") + 1)
    }
    assert covered == {int(address) for prefix in prefixes for address in prefix}


def test_foreign_links_with_our_prefix_are_told_from_ours() -> None:
    names = ["lo", "wf0", "wfabcdefghijklm", "wfabcdefghijkl", "wfabcdefghijkl1", "WF0", "eth0"]
    assert strangers_among(names) == ("wf0", "wfabcdefghijkl", "wfabcdefghijkl1")


def test_rules_read_no_connection_tracking_and_no_routes_before_a_pod_is_known() -> None:
    allowed = (Meta, Payload, ExtensionHeader, Compare, Lookup, Verdict, Counter)
    first = chains(node_rows(PLAN))[1, "from-pods"]
    for rule in first.rules:
        assert all(isinstance(item, allowed) for item in rule)


def test_table_holds_no_row_of_another() -> None:
    assert {row.name for row in node_rows(PLAN) if isinstance(row, Table)} == {"weft"}


def test_every_reason_stands_in_the_reference() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "packet-path.md"
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \|$", page.read_text(), re.MULTILINE)
    assert rows == [*DROPS, *REFUSED]
