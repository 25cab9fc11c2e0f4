"""Damage done by others: named in one sentence, mended on the host, left alone in pods."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from attachment_rows import HOST, POD, address4, address6, attachment, link_name
from namespace_fixture import new_namespace, on_a_node

from weft.drivers.contract import Difference
from weft.drivers.engine import Engine
from weft.drivers.surroundings import Host
from weft.drivers.table import link_drivers
from weft.kernel import links, routes, rtnetlink, sysctl
from weft.kernel.namespaces import entered
from weft.kernel.netlink import Socket
from weft.rows.links import Sysctl, Veth

Damage = Callable[[Socket, int], None]
NAME = link_name(1)
OTHER_MAC = b"\2\xee\0\0\0\1"


def _properties(**changes: object) -> Damage:
    def damage(via: Socket, index: int) -> None:
        link = rtnetlink.find_index(via, index)
        assert link is not None
        kept = {"mac": link.mac, "mtu": link.mtu, "group": link.group, "alias": link.alias}
        via.transact([links.set_properties(index, **{**kept, **changes})])  # type: ignore[arg-type]

    return damage


def _down(via: Socket, index: int) -> None:
    via.transact([links.set_down(index)])


def _drop_address(via: Socket, index: int) -> None:
    via.transact([routes.delete_address(index, address6(1), 128)])


def _drop_neighbour(via: Socket, index: int) -> None:
    via.transact([routes.delete_neighbour(index, address4(1))])


def _change_neighbour(via: Socket, index: int) -> None:
    via.transact([routes.add_neighbour(index, address6(1), OTHER_MAC)])


def _entry(index: int) -> routes.RouteEntry:
    return routes.RouteEntry(index, address4(1), 32, None, False, 253, None, 0, 0, 254)


def _drop_route(via: Socket, index: int) -> None:
    via.transact([routes.delete_route(_entry(index))])


def _change_route(via: Socket, index: int) -> None:
    via.transact([routes.add_route(_entry(index)._replace(mtu=1234))])


def _sysctl(name: str) -> Damage:
    def damage(_: Socket, __: int) -> None:
        path = f"net/ipv6/conf/{name}/accept_ra"
        assert sysctl.write([sysctl.message(path, "2")]) == []

    return damage


ON_HOST = {
    "mtu": (_properties(mtu=1300), "MTU 1300 instead of 1450"),
    "mac": (_properties(mac=OTHER_MAC), "MAC 02:ee:00:00:00:01 instead of"),
    "alias": (_properties(alias="mine"), "alias mine instead of weft:1:1"),
    "group": (_properties(group=0), "group 0 instead of"),
    "down": (_down, "is missing or down"),
    "neighbour missing": (_drop_neighbour, "neighbour 10.1.0.1 of"),
    "neighbour changed": (_change_neighbour, "has MAC 02:ee:00:00:00:01 instead of"),
    "route missing": (_drop_route, "the route to 10.1.0.1/32 through"),
    "route changed": (_change_route, "has mtu 1234 instead of 0"),
    "sysctl": (_sysctl(NAME), "is '2' instead of '0'"),
}

IN_POD = {
    "mtu": (_properties(mtu=1300), "eth0 in the container has MTU 1300 instead of 1450"),
    "mac": (_properties(mac=OTHER_MAC), "eth0 in the container has MAC"),
    "down": (_down, "eth0 in the container is missing or down"),
    "address": (_drop_address, "the address fd00::1/128 of eth0 in the container is missing"),
    "sysctl": (_sysctl("eth0"), "in the container is '2' instead of '0'"),
}


def damaged(damage: Damage, pod: int | None) -> None:
    """Do damage on the host, or inside a pod, as a process there would."""

    def act(name: str) -> None:
        with rtnetlink.open_socket() as via:
            link = rtnetlink.find_link(via, name)
            assert link is not None
            damage(via, link.ifindex)

    if pod is None:
        act(NAME)
    else:
        with entered(pod):
            act("eth0")


def standing() -> tuple[Engine, int]:
    engine, pod = Engine(Host(), link_drivers()), new_namespace()
    engine.apply("a", attachment(1), pod)
    return engine, pod


@pytest.mark.parametrize("what", ON_HOST)
@on_a_node
def test_damage_on_the_host_is_named_and_mended(what: str) -> None:
    engine, pod = standing()
    damage, words = ON_HOST[what]
    damaged(damage, None)
    found = engine.differences("a", pod)
    assert any(words in difference.words for difference in found), found
    repaired = engine.repair("a")
    assert [d.row for d in repaired] == [d.row for d in found]
    assert all(difference.mended for difference in repaired)
    assert engine.differences("a", pod) == []


@pytest.mark.parametrize("what", IN_POD)
@on_a_node
def test_damage_in_a_pod_is_named_and_left_alone(what: str) -> None:
    engine, pod = standing()
    damage, words = IN_POD[what]
    damaged(damage, pod)
    found = engine.differences("a", pod)
    assert any(words in difference.words for difference in found), found
    assert engine.repair("a") == []
    assert engine.differences("a", pod) == found
    assert engine.differences("a") == [], "the host's side alone is right"


@on_a_node
def test_a_lost_pair_is_reported_and_not_made_again() -> None:
    engine, pod = standing()
    with rtnetlink.open_socket() as via:
        via.transact([links.delete_by_name(NAME)])
    repaired = engine.repair("a")
    assert not any(difference.mended for difference in repaired)
    assert f"the link {NAME} on the host is missing" in [d.words for d in repaired]
    assert "is missing or is not our veth" not in str(repaired)
    words = [d.words for d in engine.differences("a", pod)]
    assert "the link eth0 in the container is missing or down" in words
    with rtnetlink.open_socket() as via:
        assert rtnetlink.find_link(via, NAME) is None


@on_a_node
def test_an_interface_put_in_place_of_ours_is_seen_in_the_pod() -> None:
    engine, pod = standing()
    other = new_namespace()
    veth = next(row for row in engine.rows("a") if isinstance(row, Veth))
    assert veth.peer is not None
    with entered(pod), rtnetlink.open_socket() as via:
        link = rtnetlink.find_link(via, "eth0")
        assert link is not None
        rename = links.set_alias("eth0", "")  # same name, another device: rename ours away
        via.transact([rename])
        body = links.message(16, 4, links._INFO.pack(0, 0, 0, link.ifindex, 0, 0)
                             + links.attribute(3, b"old\0"))  # fmt: skip
        via.transact([links.set_down(link.ifindex), body])
        twin = links.End("eth0", veth.peer.mac, veth.peer.mtu)
        via.transact([links.create_veth(twin, 0, links.End("x", OTHER_MAC, 1450), other)])
    words = [difference.words for difference in engine.differences("a", pod)]
    assert "the link eth0 in the container is missing or is not our veth" in words


@on_a_node
def test_drift_of_many_owners_is_read_at_once_and_mended() -> None:
    engine = Engine(Host(), link_drivers())
    for number in range(1, 13):
        engine.apply(str(number), attachment(number), new_namespace())
    assert engine.drift() == {}
    with rtnetlink.open_socket() as via:
        for number in (3, 7):
            link = rtnetlink.find_link(via, link_name(number))
            assert link is not None
            via.transact([links.set_down(link.ifindex)])
    found = engine.drift()
    assert set(found) == {"3", "7"}
    kinds = {type(difference.row).__name__ for difference in found["3"]}
    assert kinds == {"Up", "Route", "Neighbour"}, "the kernel drops both with the link"
    assert engine.drift() == {}
    assert engine.drift(["1"]) == {}


@on_a_node
def test_only_what_is_still_wanted_is_mended() -> None:
    engine, pod = standing()
    rows = engine.rows("a")
    damaged(_sysctl(NAME), None)
    found = engine.differences("a")
    wanted = [row for row in rows if row != found[0].row]
    engine.apply("a", wanted, pod)
    assert engine.mend("a", found) == []
    assert sysctl.read(f"net/ipv6/conf/{NAME}/accept_ra") == "2"


@on_a_node
def test_rows_of_nobody_can_be_compared_too() -> None:
    engine = Engine(Host(), link_drivers())
    row = Sysctl(place=HOST, path="net/ipv4/ip_forward", value="1")
    gone = Sysctl(place=HOST, path="net/ipv4/nosuch", value="1")
    assert engine.differences([row, gone]) == [
        Difference(
            row,
            msgspec.structs.replace(row, value="0"),
            "the sysctl net/ipv4/ip_forward on the host is '0' instead of '1'",
        ),
        Difference(gone, None, "the sysctl net/ipv4/nosuch on the host is missing"),
    ]
    inside = Sysctl(place=POD, path="net/ipv4/ip_forward", value="1")
    assert engine.differences([inside]) == [], "no pod was given to look into"
    assert [d.row for d in engine.differences([inside], new_namespace())] == [inside]
