"""The engine with packet rules: guards stand before the link, and are gone before it goes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attachment_rows import HOST, POD, address4, attachment, link_name, pod_mac
from namespace_fixture import new_namespace, on_a_node

from weft.drivers.contract import Medium, Outcome
from weft.drivers.engine import Engine
from weft.drivers.removal import delete_links
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host, Surroundings
from weft.drivers.table import all_drivers
from weft.kernel import rtnetlink
from weft.model.errors import Invalid
from weft.rows.base import Row
from weft.rows.links import Up
from weft.rows.rules import Element, Family, Set, Table

NODE: tuple[Row, ...] = (
    Table(family=Family.INET, name="weft"),
    Set(
        family=Family.INET,
        table="weft",
        name="guard4",
        key_types=("ifname", "ether_addr", "ipv4_addr"),
    ),
)


def guard(number: int) -> Element:
    return Element(
        family=Family.INET,
        table="weft",
        set="guard4",
        parts=(link_name(number).encode(), pod_mac(number), address4(number)),
    )


def guarded(number: int) -> tuple[Row, ...]:
    return (*attachment(number), guard(number))


def node() -> Engine:
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    engine.apply("node", NODE)
    return engine


@on_a_node
def test_the_element_stands_with_the_link_and_is_compared() -> None:
    engine, pod = node(), new_namespace()
    engine.apply("a", guarded(1), pod)
    assert engine.differences("a", pod) == []
    assert engine.drift() == {}


@on_a_node
def test_guards_and_sysctls_are_complete_before_any_link_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, pod = node(), new_namespace()
    plain = Surroundings.transport
    seen: list[tuple[Medium, bool, bool]] = []
    guards = [row for row in guarded(1) if type(row).__name__ in ("Element", "Sysctl")]

    class Watching:
        def __init__(self, inner: object, medium: Medium) -> None:
            self.inner, self.medium, self.atomic = inner, medium, medium is Medium.RULES

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def commit(self, messages: Sequence[bytes]) -> Outcome:
            outcome: Outcome = self.inner.commit(messages)  # type: ignore[attr-defined]
            monkeypatch.setattr(Surroundings, "transport", plain)
            ups = [Up(place=POD, link="eth0"), Up(place=HOST, link=link_name(1))]
            down = [difference.row for difference in engine.differences(ups, pod)]
            right = engine.differences(guards, pod) == []
            seen.append((self.medium, right, len(down) < len(ups)))
            monkeypatch.setattr(Surroundings, "transport", watching)
            return outcome

    def watching(self: Surroundings, medium: Medium) -> object:
        return Watching(plain(self, medium), medium)

    monkeypatch.setattr(Surroundings, "transport", watching)
    engine.apply("a", guarded(1), pod)
    assert [medium for medium, _, _ in seen[:4]] == [
        Medium.RULES,
        Medium.HOST_LINKS,
        Medium.HOST_LINKS,
        Medium.HOST_FILES,
    ]
    assert all(right for _, right, up in seen if up), "a link was up before its guards"
    assert any(up for _, _, up in seen)


@on_a_node
def test_withdrawal_takes_the_element_at_once_and_leaves_the_link_to_the_worker() -> None:
    engine, pod = node(), new_namespace()
    engine.apply("a", guarded(1), pod)
    engine.apply("b", guarded(2), new_namespace())
    names = engine.withdraw("a")
    assert names == [link_name(1)]
    assert [d.row for d in engine.differences([guard(1), guard(2)])] == [guard(1)]
    with rtnetlink.open_socket() as via:
        assert rtnetlink.find_link(via, link_name(1)) is not None
    assert delete_links(names) == {link_name(1): 0}
    assert engine.drift() == {}


@on_a_node
def test_a_refused_link_leaves_an_element_that_withdrawal_removes() -> None:
    engine, pod = node(), new_namespace()
    engine.apply("a", guarded(1), pod)
    with pytest.raises(Invalid):
        engine.apply("b", guarded(2), pod)
    assert engine.rows("b") == (guard(2),)
    assert engine.withdraw("b") == []
    assert [d.row for d in engine.differences([guard(1), guard(2)])] == [guard(2)]


@on_a_node
def test_elements_that_others_removed_hinder_no_withdrawal_and_are_mended_before() -> None:
    engine, pod = node(), new_namespace()
    engine.apply("a", guarded(1), pod)
    thief = Engine(engine.host, engine.driver_table.values())
    thief.adopt("x", [guard(1)])
    thief.withdraw("x")
    found = engine.drift()
    assert [(d.row, d.mended) for d in found["a"]] == [(guard(1), True)]
    assert link_name(1) in found["a"][0].words
    assert engine.drift() == {}
    thief.adopt("x", [guard(1)])
    thief.withdraw("x")
    assert engine.withdraw("a") == [link_name(1)]


@on_a_node
def test_tables_that_somebody_flushed_come_back_with_all_elements() -> None:
    engine = node()
    for number in (1, 2, 3):
        engine.apply(str(number), guarded(number), new_namespace())
    engine.forget("node")
    engine.adopt("node", NODE)  # now the last of the owners, though all others need its set
    thief = Engine(engine.host, engine.driver_table.values())
    thief.adopt("x", NODE)
    thief.withdraw("x")
    assert set(engine.drift()) == {"node", "1", "2", "3"}
    assert engine.drift() == {}
