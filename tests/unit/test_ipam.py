"""Address assignment, case by case. What holds for every history: tests/laws."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from weft.ipam.audit import differences, usage
from weft.ipam.plan import plan
from weft.ipam.request import Assigned, NeedBlock, Request
from weft.ipam.view import View
from weft.model.attachment import AttachmentKey
from weft.model.errors import Conflict, Exhausted, Invalid, NotReady
from weft.model.ip_block import new_block
from weft.model.ip_pool import IPPool
from weft.model.kinds import decode_object


def pool(name: str, cidr: str, created: str = "", **spec: Any) -> IPPool:
    decoded = decode_object(
        {
            "apiVersion": "weft.dev/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"cidr": cidr} | spec,
        }
    )
    assert isinstance(decoded, IPPool)
    return decoded


def key(name: str, ifname: str = "eth0") -> AttachmentKey:
    return AttachmentKey("net", name, ifname)


def view_of(*pools: IPPool, **how: Any) -> View:
    view = View("here", **how)
    for each in pools:
        view.set_pool(each)
    return view


def add(view: View, name: str, now: float = 0.0, **how: Any) -> list[str]:
    """The addresses that an attachment gets, blocks claimed on the way."""
    how = {"ipv6": "off"} | how
    if isinstance(how.get("addresses"), str):
        how["addresses"] = (ip_address(how["addresses"]),)
    request = Request(key=how.pop("key", key(name)), **how)
    for _ in range(10):
        answer = plan(view, request, now)
        if isinstance(answer, Assigned):
            view.commit(answer)
            return [str(held.address) for held in answer.addresses]
        view.set_block(new_block(answer.cidr, pool=answer.pool, node="here"))
    raise AssertionError("no end of claims")


def drop(view: View, name: str, now: float = 0.0) -> None:
    held = view.holdings(key(name))
    assert held
    for each in held:
        assert view.release(each.address, each.sequence, now)


def test_a_node_without_a_block_is_told_which_to_claim() -> None:
    answer = plan(view_of(pool("a", "10.0.0.0/8")), Request(key=key("x"), ipv6="off"), 0.0)
    assert answer == NeedBlock(pool="a", cidr=ip_network("10.0.0.0/26"))


def test_blocks_of_others_are_passed_over() -> None:
    view = view_of(pool("a", "10.0.0.0/8"))
    for cidr in ("10.0.0.0/26", "10.0.0.64/26"):
        view.set_block(new_block(ip_network(cidr), pool="a", node="there"))
    assert add(view, "x") == ["10.0.0.128"]


def test_addresses_ascend_past_network_and_gateway() -> None:
    view = view_of(pool("a", "10.0.0.0/29", gateway="10.0.0.2", excludes=["10.0.0.4"]))
    assert [add(view, str(n))[0] for n in range(4)] == [
        "10.0.0.1",
        "10.0.0.3",
        "10.0.0.5",
        "10.0.0.6",
    ]
    with pytest.raises(Exhausted, match=r"pool a \(10\.0\.0\.0/29\): 4 in use, 0 cooling"):
        add(view, "one too many")


def test_only_the_pools_own_network_and_broadcast_are_kept_back() -> None:
    view = view_of(pool("a", "10.0.0.0/29", blockSize=31))
    assert [add(view, str(n))[0] for n in range(6)] == [f"10.0.0.{n}" for n in range(1, 7)]


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        ("10.0.0.0/31", ["10.0.0.0", "10.0.0.1"]),
        ("10.0.0.9/32", ["10.0.0.9"]),
        ("fd00::/127", ["fd00::", "fd00::1"]),
        ("fd00::9/128", ["fd00::9"]),
        ("fd00::/126", ["fd00::1", "fd00::2", "fd00::3"]),
    ],
)
def test_every_address_of_the_smallest_pools_is_used(cidr: str, expected: list[str]) -> None:
    view = view_of(pool("a", cidr))
    families = {"ipv4": "off", "ipv6": "required"} if ":" in cidr else {}
    assert [add(view, str(n), **families)[0] for n in range(len(expected))] == expected
    with pytest.raises(Exhausted):
        add(view, "one too many", **families)


def test_a_released_address_waits_for_the_cooldown_while_others_are_left() -> None:
    view = view_of(pool("a", "10.0.0.0/29"))
    for number in range(4):
        add(view, str(number))
    drop(view, "1", now=100.0)
    drop(view, "0", now=101.0)
    assert add(view, "x", now=106.0) == ["10.0.0.5"]
    assert add(view, "y", now=106.0) == ["10.0.0.6"]
    # nothing unused is left: the floor counts, longest released first
    assert add(view, "z", now=106.0) == ["10.0.0.2"]


def test_exhaustion_says_when_the_next_address_is_free() -> None:
    view = view_of(pool("a", "10.0.0.0/30"))
    add(view, "x")
    add(view, "y")
    drop(view, "x", now=100.0)
    with pytest.raises(Exhausted, match=r"1 in use, 1 cooling, the next free in 4\.0 s"):
        add(view, "z", now=101.0)
    assert add(view, "z", now=105.0) == ["10.0.0.1"]


def test_the_longest_released_of_all_pools_serves_when_only_cooling_ones_are_left() -> None:
    view = view_of(pool("a", "10.0.0.1/32"), pool("b", "10.0.0.2/32"))
    assert add(view, "x") + add(view, "y") == ["10.0.0.1", "10.0.0.2"]
    drop(view, "y", now=100.0)
    drop(view, "x", now=101.0)
    assert add(view, "z", now=110.0) == ["10.0.0.2"]


def test_a_new_block_is_claimed_before_an_address_is_reused_early() -> None:
    view = view_of(pool("a", "10.0.0.0/30", blockSize=31))
    assert add(view, "x") == ["10.0.0.1"]
    drop(view, "x", now=100.0)
    assert add(view, "y", now=110.0) == ["10.0.0.2"]


def test_a_cooled_address_is_reused_before_a_block_is_claimed() -> None:
    view = view_of(pool("a", "10.0.0.0/30", blockSize=31))
    add(view, "x")
    drop(view, "x", now=100.0)
    assert add(view, "y", now=131.0) == ["10.0.0.1"]


def test_dual_stack_is_all_or_nothing() -> None:
    view = view_of(pool("four", "10.0.0.0/24"))
    request = Request(key=key("x"))
    with pytest.raises(Exhausted, match="there is no IPv6 pool"):
        plan(view, request, 0.0)
    assert view.holdings(key("x")) == ()
    view.set_pool(pool("six", "fd00::/48"))
    assert add(view, "x", ipv6="required") == ["10.0.0.1", "fd00::1"]


def test_a_family_wanted_if_possible_is_left_out_with_a_note() -> None:
    view = view_of(pool("four", "10.0.0.0/24"))
    view.set_block(new_block(ip_network("10.0.0.0/26"), pool="four", node="here"))
    answer = plan(view, Request(key=key("x"), ipv6="best-effort"), 0.0)
    assert isinstance(answer, Assigned)
    assert [str(held.address) for held in answer.addresses] == ["10.0.0.1"]
    assert answer.notes == ("no IPv6 address is left: there is no IPv6 pool",)


def test_two_families_wanted_if_possible_and_neither_possible_is_exhaustion() -> None:
    with pytest.raises(Exhausted):
        plan(view_of(), Request(key=key("x"), ipv4="best-effort", ipv6="best-effort"), 0.0)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("10.9.0.1", "outside every pool"),
        ("10.0.0.0", "excluded, or the gateway, network or broadcast"),
        ("10.0.0.255", "excluded, or the gateway, network or broadcast"),
        ("10.0.0.20", "excluded"),
        ("10.0.0.30", "reserved for default/db-0"),
        ("10.0.0.1", "in use by net/taken/eth0"),
        ("10.0.0.100", "block that the node there holds"),
        ("10.1.0.5", "does not select this namespace"),
        ("10.2.0.5", "is disabled"),
        ("fd00::1", "IPv6 is off here"),
    ],
)
def test_a_requested_address_is_refused_with_the_reason(address: str, says: str) -> None:
    view = view_of(
        pool(
            "a", "10.0.0.0/24", excludes=["10.0.0.20"], reservations={"10.0.0.30": "default/db-0"}
        ),
        pool("b", "10.1.0.0/24", namespaceSelector={"matchLabels": {"stage": "production"}}),
        pool("c", "10.2.0.0/24", disabled=True),
    )
    view.set_block(new_block(ip_network("10.0.0.64/26"), pool="a", node="there"))
    assert add(view, "taken") == ["10.0.0.1"]
    with pytest.raises(Invalid, match=says) as caught:
        add(view, "x", addresses=address, namespace_labels={})
    assert caught.value.reason == "address-taken"
    assert view.holdings(key("x")) == ()


def test_a_requested_address_claims_its_block_and_is_given() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    assert add(view, "x", addresses="10.0.0.130") == ["10.0.0.130"]
    assert add(view, "y") == ["10.0.0.128"]


def test_a_requested_address_that_is_cooling_is_a_matter_of_time() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    add(view, "x")
    drop(view, "x", now=100.0)
    with pytest.raises(NotReady) as caught:
        add(view, "y", now=102.0, addresses="10.0.0.1")
    assert caught.value.reason == "address-cooling"
    assert caught.value.retry_after == pytest.approx(3.0)
    assert add(view, "y", now=105.0, addresses="10.0.0.1") == ["10.0.0.1"]


def test_requested_addresses_can_be_forbidden_by_the_setting() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    with pytest.raises(Invalid, match="allowRequested"):
        add(view, "x", addresses="10.0.0.5", allow_requested=False)


def test_a_reserved_address_goes_to_its_owner_only() -> None:
    view = view_of(pool("a", "10.0.0.0/30", reservations={"10.0.0.1": "default/db-0"}))
    assert add(view, "other", owner="default/web") == ["10.0.0.2"]
    with pytest.raises(Exhausted):
        add(view, "another")
    assert add(view, "db", owner="default/db-0") == ["10.0.0.1"]


def test_the_owners_next_instance_waits_for_its_address() -> None:
    view = view_of(pool("a", "10.0.0.0/24", reservations={"10.0.0.9": "default/db-0"}))
    add(view, "old", owner="default/db-0")
    with pytest.raises(NotReady, match="earlier instance"):
        add(view, "new", owner="default/db-0")
    drop(view, "old", now=100.0)
    with pytest.raises(NotReady, match="released a moment ago"):
        add(view, "new", now=101.0, owner="default/db-0")
    assert add(view, "new", now=105.0, owner="default/db-0") == ["10.0.0.9"]
    # a second interface of the same container is no next instance
    second = add(view, "", now=105.0, owner="default/db-0", key=key("new", "eth1"))
    assert second == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({"stage": "production"}, "10.1.0.1"), ({"stage": "test"}, "10.2.0.1"), (None, "10.2.0.1")],
)
def test_selectors_of_namespaces_narrow_a_pool(
    labels: Mapping[str, str] | None, expected: str
) -> None:
    view = view_of(
        pool("a", "10.1.0.0/24", namespaceSelector={"matchLabels": {"stage": "production"}}),
        pool("b", "10.2.0.0/24"),
    )
    assert add(view, "x", namespace_labels=labels) == [expected]


def test_unknown_labels_do_not_open_a_pool_and_the_message_says_so() -> None:
    view = view_of(pool("a", "10.1.0.0/24", nodeSelector={"matchLabels": {"rack": "r1"}}))
    with pytest.raises(Exhausted, match="those of this node are not known"):
        add(view, "x")
    view.set_node_labels({"rack": "r2"})
    with pytest.raises(Exhausted, match="does not select this node"):
        add(view, "x")
    view.set_node_labels({"rack": "r1"})
    assert add(view, "x") == ["10.1.0.1"]


def test_pools_asked_for_are_the_only_ones_and_none_means_none() -> None:
    view = view_of(pool("a", "10.1.0.0/24"), pool("b", "10.2.0.0/24"))
    assert add(view, "x", pools=("b",)) == ["10.2.0.1"]
    with pytest.raises(Exhausted, match="not among the pools asked for"):
        add(view, "y", pools=())
    with pytest.raises(Invalid, match="there is no IPPool c"):
        add(view, "y", pools=("c",))


def test_planning_again_gives_what_is_held_and_never_more() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    assert add(view, "x") == add(view, "x") == ["10.0.0.1"]
    with pytest.raises(Conflict, match=r"10\.0\.0\.7"):
        add(view, "x", addresses="10.0.0.7")


def test_an_outdated_plan_cannot_be_committed() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    view.set_block(new_block(ip_network("10.0.0.0/26"), pool="a", node="here"))
    first = plan(view, Request(key=key("x"), ipv6="off"), 0.0)
    second = plan(view, Request(key=key("y"), ipv6="off"), 0.0)
    assert isinstance(first, Assigned) and isinstance(second, Assigned)
    view.commit(first)
    with pytest.raises(Conflict, match="held by"):
        view.commit(second)
    drop(view, "x")
    with pytest.raises(Conflict, match="since this plan"):
        view.commit(second)


def test_a_late_release_of_an_earlier_holding_has_no_effect() -> None:
    view = view_of(pool("a", "10.0.0.9/32"))
    add(view, "x")
    old = view.holdings(key("x"))[0]
    drop(view, "x", now=0.0)
    add(view, "y", now=100.0)
    assert not view.release(old.address, old.sequence, 101.0)
    assert [str(held.address) for held in view.holdings(key("y"))] == ["10.0.0.9"]


def test_an_older_report_of_a_release_does_not_shorten_the_cooldown() -> None:
    view = view_of(pool("a", "10.0.0.9/32"))
    view.set_block(new_block(ip_network("10.0.0.9/32"), pool="a", node="here"))
    view.cool(ip_address("10.0.0.9"), 7, 100.0)
    view.cool(ip_address("10.0.0.9"), 3, 10.0)
    with pytest.raises(Exhausted, match="1 cooling"):
        add(view, "x", now=101.0)
    assert add(view, "x", now=105.0) == ["10.0.0.9"]
    assert view.holdings(key("x"))[0].sequence > 7


def test_a_clock_that_steps_back_shortens_no_cooldown() -> None:
    view = view_of(pool("a", "10.0.0.1/32"), pool("b", "10.0.0.2/32"))
    add(view, "x")
    add(view, "y")
    drop(view, "x", now=100.0)
    drop(view, "y", now=50.0)
    assert add(view, "z", now=105.0) == ["10.0.0.1"]
    assert [each.cooling for each in usage(view, 105.0)] == [0, 1]


def test_an_adopted_address_is_not_handed_out_even_before_its_pool_is_known() -> None:
    view = View("here")
    view.adopt(ip_address("10.0.0.1"), key("old"))
    view.adopt(ip_address("10.0.0.1"), key("old"))
    with pytest.raises(Conflict):
        view.adopt(ip_address("10.0.0.1"), key("other"))
    view.set_pool(pool("a", "10.0.0.0/24"))
    assert add(view, "x") == ["10.0.0.2"]


def test_addresses_in_use_outlive_their_pool() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    add(view, "x")
    view.remove_pool("a")
    held = view.holdings(key("x"))
    assert [(str(each.address), each.pool) for each in held] == [("10.0.0.1", None)]
    view.set_pool(pool("a", "10.0.0.0/24"))
    assert add(view, "y") == ["10.0.0.2"]
    drop(view, "x", now=50.0)


def test_an_address_freed_of_its_exclusion_is_handed_out() -> None:
    view = view_of(pool("a", "10.0.0.0/24", excludes=["10.0.0.1"]))
    assert add(view, "x") == ["10.0.0.2"]
    view.set_pool(pool("a", "10.0.0.0/24"))
    assert add(view, "y") == ["10.0.0.1"]


def test_of_pools_that_overlap_only_the_oldest_serves_whatever_came_first() -> None:
    old = pool("z-old", "10.0.0.0/24", "2026-01-01T00:00:00Z")
    new = pool("a-new", "10.0.0.0/16", "2026-02-01T00:00:00Z")
    apart = pool("apart", "10.9.0.0/16", "2026-03-01T00:00:00Z")
    for order in ((old, new, apart), (new, apart, old)):
        view = view_of(*order)
        assert [state.name for state in view.pools(4)] == ["z-old", "apart"]
        assert view.problems() == (
            "pool a-new is not used: 10.0.0.0/16 overlaps 10.0.0.0/24 of the older pool z-old",
        )
        view.remove_pool("z-old")
        assert view.problems() == ()


def test_a_block_that_does_not_fit_its_pool_keeps_its_range_back() -> None:
    view = view_of(pool("a", "10.0.0.0/24"))
    odd = new_block(ip_network("10.0.0.0/25"), pool="a", node="there")
    view.set_block(odd)
    assert add(view, "x") == ["10.0.0.128"]
    assert "10-0-0-0-25" in view.problems()[0]
    view.remove_block(odd)
    assert view.problems() == ()


def test_blocks_without_a_pool_are_a_problem() -> None:
    view = View("here")
    view.set_block(new_block(ip_network("10.0.0.0/26"), pool="gone", node="here"))
    assert view.problems() == ("blocks 10-0-0-0-26: there is no pool gone",)


def test_a_block_that_is_wholly_excluded_is_never_claimed() -> None:
    view = view_of(pool("a", "10.0.0.0/8", excludes=["10.0.0.0-10.127.255.255"]))
    assert add(view, "x") == ["10.128.0.0"]


def test_enormous_pools_cost_nothing_until_they_are_used() -> None:
    view = view_of(pool("four", "10.0.0.0/8"), pool("six", "fd00::/48"))
    assert add(view, "x", ipv6="required") == ["10.0.0.1", "fd00::1"]
    state = {each.pool: each for each in usage(view, 0.0)}
    assert state["six"].size == 2**80 - 1
    assert (state["four"].free, state["four"].used) == (2**24 - 3, 1)
    assert (state["four"].blocks, state["four"].cooling) == (1, 0)


def test_usage_counts_what_is_in_use_cooling_and_elsewhere() -> None:
    view = view_of(pool("a", "10.0.0.0/28", blockSize=30, excludes=["10.0.0.4/30"]))
    view.set_block(new_block(ip_network("10.0.0.12/30"), pool="a", node="there"))
    add(view, "x")
    add(view, "y")
    drop(view, "y", now=100.0)
    [now] = usage(view, 101.0)
    assert (now.size, now.used, now.cooling, now.free) == (10, 1, 1, 5)
    assert (now.blocks, now.foreign_blocks) == (1, 1)
    [later] = usage(view, 140.0)
    assert (later.cooling, later.free) == (0, 6)


def test_differences_are_named_by_kind() -> None:
    view = view_of(pool("a", "10.0.0.0/26"))
    for name in ("fine", "leaked", "shared"):
        add(view, name)
    fine, leaked, shared = (view.holdings(key(n))[0].address for n in ("fine", "leaked", "shared"))
    stray, unknown = ip_address("192.0.2.1"), ip_address("10.0.0.40")
    found = differences(
        view,
        {
            key("fine"): [fine],
            key("shared"): [shared, unknown],
            key("thief"): [shared, stray],
        },
    )
    assert [(each.kind, each.address) for each in found] == [
        ("leaked", leaked),
        ("duplicate", shared),
        ("unknown", unknown),
        ("outside", stray),
        ("unknown", stray),
    ]
    assert found[0].keys == (key("leaked"),)
    assert found[0].sequence == view.holdings(key("leaked"))[0].sequence
    assert set(found[1].keys) == {key("shared"), key("thief")}
