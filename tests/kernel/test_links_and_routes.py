"""What our encoders write is what the kernel reports, through our decoders."""

from __future__ import annotations

import errno
import select

import pytest
from namespace_fixture import new_namespace, on_a_node

from weft.kernel import links, nsids, routes, rtnetlink, sysctl
from weft.kernel.namespaces import entered
from weft.kernel.netlink import (
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    TRIES,
    Failure,
    Socket,
    frames,
)
from weft.model.errors import KernelRefused

HOST_END = links.End("wfabcdefghijklm", b"\2\0\0\0\0\1", 1450)
POD_END = links.End("eth0", b"\2\0\0\0\0\2", 1400)
FOUR, SIX = bytes((10, 0, 0, 2)), bytes.fromhex("fd00" + "00" * 13 + "02")


def pair() -> tuple[Socket, Socket, int]:
    pod = new_namespace()
    host = rtnetlink.open_socket()
    host.transact([links.create_veth(HOST_END, 77, POD_END, pod)])
    with entered(pod):
        return host, rtnetlink.open_socket(), pod


def number(via: Socket, name: str) -> int:
    link = rtnetlink.find_link(via, name)
    assert link is not None
    return link.ifindex


@on_a_node
def test_a_pair_is_born_in_place_with_all_its_properties_and_down() -> None:
    host, pod, namespace = pair()
    host.transact([links.set_alias(HOST_END.name, "weft:" + "x" * 250)])
    outer = rtnetlink.find_link(host, HOST_END.name)
    inner = rtnetlink.find_link(pod, "eth0")
    assert outer is not None and inner is not None
    assert outer == links.Link(
        outer.ifindex, *HOST_END[:1], False, HOST_END.mac, 1450, 77, "weft:" + "x" * 250, "veth",
        inner.ifindex, 0, nsids.number_of(host, namespace) or 0,
    )  # fmt: skip
    assert (inner.mac, inner.mtu, inner.up, inner.group) == (POD_END.mac, 1400, False, 0)
    assert inner.peer == outer.ifindex


@on_a_node
def test_a_dump_by_kind_holds_only_that_kind() -> None:
    host, _, _ = pair()
    names = [links.decode(body).name for _, body in host.dump(links.get_all(kind="veth"))]
    assert names == [HOST_END.name]
    assert "lo" in [links.decode(body).name for _, body in host.dump(links.get_all())]


@on_a_node
def test_properties_of_a_standing_pair_are_brought_back() -> None:
    host, _, _ = pair()
    index = number(host, HOST_END.name)
    host.transact(
        [
            links.set_up(index),
            links.set_properties(index, mac=b"\2\0\0\0\0\3", mtu=1300, group=78, alias="weft:2"),
        ]
    )
    link = rtnetlink.find_index(host, index)
    assert link is not None and link.up
    assert (link.mac, link.mtu, link.group, link.alias) == (b"\2\0\0\0\0\3", 1300, 78, "weft:2")
    host.transact([links.set_down(index)])
    link = rtnetlink.find_index(host, index)
    assert link is not None and not link.up


@on_a_node
def test_addresses_come_back_as_written_and_twice_is_no_error() -> None:
    _, pod, _ = pair()
    index = number(pod, "eth0")
    batch = [
        links.set_up(index),
        routes.add_address(index, FOUR, 32, 0),
        routes.add_address(index, SIX, 128, 0),
    ]
    pod.transact(batch)
    pod.transact(batch)
    four = [routes.decode_address(b) for _, b in pod.dump(routes.get_addresses(2, index))]
    six = [routes.decode_address(b) for _, b in pod.dump(routes.get_addresses(10, index))]
    assert [(a.ip, a.prefix, a.scope) for a in four if a] == [(FOUR, 32, 0)]
    found = [a for a in six if a and a.ip == SIX]
    assert [(a.ip, a.prefix, a.scope) for a in found] == [(SIX, 128, 0)]
    assert found[0].flags & 0x40 == 0, "tentative: duplicate address detection runs"
    pod.transact([routes.delete_address(index, FOUR, 32)])
    with pytest.raises(Failure) as refused:
        pod.transact([routes.delete_address(index, FOUR, 32)])
    assert refused.value.errno == errno.EADDRNOTAVAIL


def entries(index: int) -> list[routes.RouteEntry]:
    gateway = bytes((169, 254, 1, 1))
    local = bytes.fromhex("fe80" + "00" * 13 + "01")
    plain = routes.RouteEntry(index, gateway, 32, None, False, 253, None, 0, 0, 254)
    return [
        plain,
        plain._replace(dst=bytes(4), prefix=0, via=gateway, scope=0),
        plain._replace(
            dst=bytes((10, 9, 0, 0)), prefix=16, via=bytes((192, 0, 2, 1)), onlink=True, scope=0,
            src=FOUR, mtu=1300, metric=7, table=1000,
        ),
        plain._replace(dst=bytes(16), prefix=0, via=local, scope=0),
        plain._replace(dst=SIX[:8] + bytes(8), prefix=64, scope=0, mtu=1300, metric=5),
    ]  # fmt: skip


def dumped(via: Socket, index: int) -> set[routes.RouteEntry]:
    found = set()
    for family in (2, 10):
        for _, body in via.dump(routes.get_routes(family, index=index)):
            entry = routes.decode_route(body)
            if entry is not None:
                found.add(entry)
    return found


@on_a_node
def test_routes_come_back_as_written_and_twice_is_no_error() -> None:
    _, pod, _ = pair()
    index = number(pod, "eth0")
    pod.transact([links.set_up(index), routes.add_address(index, FOUR, 32, 0)])
    wanted = entries(index)
    pod.transact([routes.add_route(entry) for entry in wanted])
    pod.transact([routes.add_route(entry) for entry in wanted])
    assert dumped(pod, index) == set(wanted)
    by_table = [routes.decode_route(b) for _, b in pod.dump(routes.get_routes(2, table=1000))]
    assert by_table == [wanted[2]]
    pod.transact([routes.delete_route(entry) for entry in reversed(wanted)])
    assert dumped(pod, index) == set()


@on_a_node
def test_the_prefix_of_an_address_that_the_kernel_gives_tells_its_link() -> None:
    host, pod, _ = pair()
    index = number(host, HOST_END.name)
    told: list[int | None] = []
    with rtnetlink.open_socket(groups=(routes.RTNLGRP_IPV6_ROUTE,)) as ear:
        pod.transact([links.set_up(number(pod, "eth0"))])
        host.transact([links.set_up(index)])
        while index not in told:
            assert select.select([ear], [], [], 10)[0], f"not told, only {told}"
            told += [routes.prefix_link(body) for _, _, _, body in frames(ear.receive())]
    assert set(told) == {None, index}
    host.transact([links.set_addr_gen_mode(index, 1), links.set_accept_redirects(index, 0)])
    for path, value in (("ipv6", "addr_gen_mode = 1"), ("ipv4", "accept_redirects = 0")):
        name, _, wanted = value.partition(" = ")
        assert sysctl.read(f"net/{path}/conf/{HOST_END.name}/{name}") == wanted


@on_a_node
def test_a_route_of_somebody_else_is_neither_seen_nor_deleted() -> None:
    _, pod, _ = pair()
    index = number(pod, "eth0")
    pod.transact([links.set_up(index)])
    entry = entries(index)[0]
    theirs = bytearray(routes.add_route(entry))
    theirs[16 + 5] = 4  # RTPROT_STATIC in rtm_protocol
    pod.transact([bytes(theirs)])
    assert dumped(pod, index) == set()
    with pytest.raises(Failure) as refused:
        pod.transact([routes.delete_route(entry)])
    assert refused.value.errno == errno.ESRCH


@on_a_node
def test_neighbours_are_permanent_and_signed() -> None:
    host, _, _ = pair()
    index = number(host, HOST_END.name)
    host.transact([links.set_up(index)])
    for ip in (FOUR, SIX):
        for mac in (b"\2\0\0\0\0\5", b"\2\0\0\0\0\6"):
            host.transact([routes.add_neighbour(index, ip, mac)])
        family = 2 if len(ip) == 4 else 10
        found = [
            routes.decode_neighbour(b) for _, b in host.dump(routes.get_neighbours(family, index))
        ]
        mine = [entry for entry in found if entry and entry.ip == ip]
        assert mine == [routes.FoundNeighbour(index, ip, b"\2\0\0\0\0\6", 0x80, routes.PROTOCOL)]
        host.transact([routes.delete_neighbour(index, ip)])
        with pytest.raises(Failure) as refused:
            host.transact([routes.delete_neighbour(index, ip)])
        assert refused.value.errno == errno.ENOENT


def test_the_group_of_everything_cannot_be_deleted() -> None:
    with pytest.raises(ValueError, match="group 0"):
        links.delete_group(0)


@on_a_node
def test_a_quiet_batch_reports_refusals_in_the_middle_and_at_the_end() -> None:
    host, _, _ = pair()
    index = number(host, HOST_END.name)
    batch = [
        links.get_by_name("nosuch"),
        links.set_up(index),
        links.get_by_name(HOST_END.name),
        links.get_by_name("nosuch"),
    ]
    answers, failures = host.pipeline(batch)
    assert [at for at, _, _ in answers] == [2]
    assert [(f.index, f.errno) for f in failures] == [(0, errno.ENODEV), (3, errno.ENODEV)]
    answers, failures = host.pipeline(batch[:3])
    assert [at for at, _, _ in answers] == [2]
    assert [f.index for f in failures] == [0]


class Interrupted(Socket):
    """Says of its next `left` dumps that they were interrupted, as where links change without
    pause."""

    left = 0

    def receive(self) -> bytes:
        datagram = bytearray(super().receive())
        if self.left:
            datagram[6] |= NLM_F_DUMP_INTR  # the flags of the first message, in its low octet
            self.left -= any(kind == NLMSG_DONE for kind, _, _, _ in frames(datagram))
        return bytes(datagram)


@on_a_node
def test_a_dump_that_is_interrupted_is_begun_anew() -> None:
    pair()
    with Interrupted(rtnetlink.NETLINK_ROUTE) as via:
        whole = len(via.dump(links.get_all()))
        via.left = TRIES - 1
        assert len(via.dump(links.get_all())) == whole
        assert via.left == 0
        via.left = TRIES
        with pytest.raises(KernelRefused, match="faster than they are read"):
            via.dump(links.get_all())
