"""The engine against a real kernel: made, withdrawn, idempotent, complete or nothing."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Sequence

import msgspec
import pytest
from attachment_rows import (
    HOST,
    POD,
    address4,
    address6,
    attachment,
    host_mac,
    link_name,
    veth,
)
from namespace_fixture import new_namespace, on_a_node

from weft.drivers.contract import MEDIUM, Outcome, Refusal, Stage
from weft.drivers.engine import Engine
from weft.drivers.links import DOOMED_GROUP
from weft.drivers.removal import delete_links
from weft.drivers.surroundings import Host, Surroundings
from weft.drivers.table import link_drivers
from weft.kernel import links, routes, rtnetlink
from weft.kernel.namespaces import entered
from weft.model.attachment import LIVE_GROUP
from weft.model.errors import Conflict, Invalid, KernelRefused
from weft.rows.links import Address, Sysctl, Up
from weft.rows.routes import Neighbour, Route


def engine() -> Engine:
    return Engine(Host(), link_drivers())


def snapshot(pod: int | None = None) -> list[str]:
    """Everything rtnetlink shows of the node's or a pod's namespace, without life times."""

    def look() -> list[str]:
        with rtnetlink.open_socket() as via:
            seen = [str(links.decode(body)) for _, body in via.dump(links.get_all())]
            for family in (2, 10):
                for _, body in via.dump(routes.get_addresses(family)):
                    seen.append(str(routes.decode_address(body)))
                for _, body in via.dump(routes.get_routes(family)):
                    seen.append(str(routes.decode_route(body)))
            return sorted(seen)

    if pod is None:
        return look()
    with entered(pod):
        return look()


@on_a_node
def test_an_attachment_stands_and_nothing_differs() -> None:
    subject, pod = engine(), new_namespace()
    rows = attachment(1)
    subject.apply("a", rows, pod)
    assert subject.differences("a", pod) == []
    assert set(subject.rows("a")) == set(rows)
    assert subject.links("a") == [link_name(1)]


@on_a_node
def test_the_first_packet_after_apply_arrives_in_both_families() -> None:
    subject = engine()
    four, six = bytes((10, 99, 0, 1)), bytes.fromhex("fd99" + "00" * 13 + "01")
    lo_rows = (
        Up(place=HOST, link="lo"),
        Address(place=HOST, link="lo", ip=four, prefix=32),
        Address(place=HOST, link="lo", ip=six, prefix=128),
    )
    subject.apply("node", lo_rows)
    gateway6 = bytes.fromhex("fe80" + "00" * 13 + "01")
    for number in range(1, 6):
        pod = new_namespace()
        own = Address(place=HOST, link=link_name(number), ip=gateway6, prefix=64, scope=253)
        for family, node, mine in (
            (socket.AF_INET, four, address4(number)),
            (socket.AF_INET6, six, address6(number)),
        ):
            with socket.socket(family, socket.SOCK_DGRAM) as receiver:
                receiver.bind((socket.inet_ntop(family, node), 0))
                receiver.settimeout(5)
                subject.apply(str(number), (*attachment(number), own), pod)
                with entered(pod):
                    sender = socket.socket(family, socket.SOCK_DGRAM)
                sender.sendto(b"first", receiver.getsockname()[:2])
                data, peer = receiver.recvfrom(100)
                assert data == b"first"
                assert socket.inet_pton(family, peer[0]) == mine
                receiver.sendto(b"back", peer)
                sender.settimeout(5)
                assert sender.recv(100) == b"back"
                sender.close()


@on_a_node
def test_an_ipv6_address_receives_before_the_kernel_has_made_its_route() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", attachment(1), pod)
    with entered(pod):
        told = subprocess.run(
            ["ip", "-6", "route", "show", "table", "local"], capture_output=True, text=True
        ).stdout
    assert "local fd00::1 dev eth0 proto 119" in told, told


@on_a_node
def test_applying_again_sends_nothing() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", attachment(1), pod)
    subject.host.links.close()  # any message would raise now
    subject.apply("a", attachment(1), pod)


@on_a_node
def test_rows_that_stand_already_are_no_error_for_an_engine_that_forgot_them() -> None:
    subject, pod = engine(), new_namespace()
    rows = attachment(1)
    subject.apply("a", rows, pod)
    subject.forget("a")
    subject.adopt("a", [veth(1)])
    before = snapshot(), snapshot(pod)
    subject.apply("a", rows, pod)
    assert (snapshot(), snapshot(pod)) == before


@on_a_node
def test_what_is_no_longer_wanted_is_removed_and_a_change_replaces() -> None:
    subject, pod = engine(), new_namespace()
    rows = attachment(1)
    extra = (
        Address(place=POD, link="eth0", ip=bytes((10, 1, 9, 9)), prefix=32),
        Route(place=POD, link="eth0", dst=bytes((10, 7, 0, 0)), prefix=16, scope=253),
        Neighbour(place=HOST, link=link_name(1), ip=bytes((10, 1, 9, 9)), mac=host_mac(9)),
        Route(place=HOST, link=link_name(1), dst=bytes((10, 1, 9, 9)), prefix=32, scope=253),
    )
    subject.apply("a", rows, pod)
    before = snapshot(), snapshot(pod)
    subject.apply("a", (*rows, *extra), pod)
    assert subject.differences("a", pod) == []
    changed = msgspec.structs.replace(extra[1], mtu=1300)
    moved = msgspec.structs.replace(extra[2], mac=host_mac(8))
    subject.apply("a", (*rows, extra[0], changed, moved, extra[3]), pod)
    assert subject.differences("a", pod) == []
    subject.apply("a", rows, pod)
    assert (snapshot(), snapshot(pod)) == before


@on_a_node
def test_removing_what_is_gone_already_succeeds() -> None:
    subject, pod = engine(), new_namespace()
    rows = attachment(1)
    extra = Neighbour(place=HOST, link=link_name(1), ip=bytes((10, 1, 9, 9)), mac=host_mac(9))
    away = Neighbour(place=HOST, link="wfgone", ip=bytes((10, 1, 9, 9)), mac=host_mac(9))
    subject.apply("a", (*rows, extra), pod)
    subject.adopt("a", [away])
    index = rtnetlink.find_link(subject.host.links.socket, link_name(1))
    assert index is not None
    subject.host.links.commit([routes.delete_neighbour(index.ifindex, extra.ip)])
    subject.apply("a", rows, pod)
    assert set(subject.rows("a")) == set(rows)


@on_a_node
def test_a_taken_interface_name_is_told_apart_and_nothing_is_left() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", attachment(1), pod)
    before = snapshot(), snapshot(pod)
    with pytest.raises(Invalid) as refused:
        subject.apply("b", attachment(2), pod)
    assert refused.value.reason == "interface-exists"
    assert refused.value.field == "CNI_IFNAME"
    assert subject.withdraw("b") == []
    assert (snapshot(), snapshot(pod)) == before


@on_a_node
def test_our_left_over_of_the_same_name_is_replaced() -> None:
    for group, alias in ((0, "weft:1:old"), (LIVE_GROUP, ""), (DOOMED_GROUP, "weft:1:old")):
        subject, old, pod = engine(), new_namespace(), new_namespace()
        ends = links.End(link_name(1), host_mac(9), 1500), links.End("eth0", host_mac(8), 1500)
        subject.host.links.commit([links.create_veth(ends[0], group, ends[1], old)])
        if alias:
            subject.host.links.commit([links.set_alias(link_name(1), alias)])
        subject.apply("a", attachment(1), pod)
        assert subject.differences("a", pod) == []
        assert delete_links(subject.withdraw("a")) == {link_name(1): 0}


@on_a_node
def test_a_foreign_link_of_the_same_name_is_left_alone() -> None:
    subject, old, pod = engine(), new_namespace(), new_namespace()
    ends = links.End(link_name(1), host_mac(9), 1500), links.End("eth0", host_mac(8), 1500)
    subject.host.links.commit([links.create_veth(ends[0], 0, ends[1], old)])
    before = snapshot()
    with pytest.raises(Conflict, match=link_name(1)):
        subject.apply("a", attachment(1), pod)
    assert subject.withdraw("a") == []
    assert snapshot() == before


@on_a_node
def test_a_guard_that_cannot_be_set_fails_before_any_link_is_up() -> None:
    for place in (HOST, POD):
        subject, pod = engine(), new_namespace()
        link = link_name(1) if place is HOST else "eth0"
        missing = Sysctl(place=place, path=f"net/ipv4/conf/{link}/nosuch", value="0", link=link)
        with pytest.raises(KernelRefused) as refused:
            subject.apply("a", (*attachment(1), missing), pod)
        assert refused.value.errno == errno.ENOENT
        assert "nosuch" in refused.value.message
        for wanted in (Up(place=HOST, link=link_name(1)), Up(place=POD, link="eth0")):
            assert [d.row for d in subject.differences([wanted], pod)] == [wanted]
        assert delete_links(subject.withdraw("a")) == {link_name(1): 0}


class Failing:
    """A transport that refuses the message at one place of one batch."""

    atomic = False

    def __init__(self, inner: object, at: int) -> None:
        self.inner, self.at = inner, at

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        kept = [item for at, item in enumerate(messages) if at != self.at]
        outcome = self.inner.commit(kept) if kept else Outcome((), ())  # type: ignore[attr-defined]
        if len(kept) == len(messages):
            return outcome
        shifted = [each._replace(at=each.at + (each.at >= self.at)) for each in outcome.refusals]
        refusals = sorted([*shifted, Refusal(self.at, errno.ENOBUFS, "no")])
        return Outcome(outcome.answers, refusals)


@on_a_node
def test_after_a_failure_anywhere_withdrawal_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Surroundings.transport
    host_before = snapshot()
    sizes = {Stage.CREATE: 1, Stage.TUNE_HOST: 8, Stage.TUNE_POD: 4, Stage.POD: 12, Stage.HOST: 5}
    failures = 0
    for stage, size in sizes.items():
        for at in range(size):
            subject, pod = engine(), new_namespace()
            calls = []

            def failing(self: Surroundings, medium: object, *, at: int = at, stage: Stage = stage,
                        calls: list[object] = calls) -> object:  # fmt: skip
                calls.append(medium)
                found = plain(self, medium)  # type: ignore[arg-type]
                # HOST_LINKS is asked for at CREATE, by the driver that was created, and at HOST
                turn = {Stage.HOST: 3}.get(stage, 1)
                hit = medium is MEDIUM[stage] and calls.count(medium) == turn
                return Failing(found, at) if hit else found

            monkeypatch.setattr(Surroundings, "transport", failing)
            with pytest.raises(KernelRefused) as refused:
                subject.apply("a", attachment(1), pod)
            monkeypatch.setattr(Surroundings, "transport", plain)
            assert refused.value.errno == errno.ENOBUFS
            if stage is not Stage.HOST:
                assert subject.differences([Up(place=HOST, link=link_name(1))])
            names = subject.withdraw("a")
            assert names == ([] if stage is Stage.CREATE else [link_name(1)])
            assert set(delete_links(names).values()) <= {0}
            assert snapshot() == host_before
            assert not [line for line in snapshot(pod) if "eth0" in line]
            assert subject.rows("a") == ()
            failures += 1
    assert failures == sum(sizes.values())


@on_a_node
def test_withdrawal_removes_host_rows_that_no_link_of_the_owner_takes_along() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", attachment(1), pod)
    before = snapshot()
    through = Route(place=HOST, link=link_name(1), dst=bytes((10, 50, 0, 0)), prefix=16, scope=253)
    subject.apply("node", [through])
    assert snapshot() != before
    assert subject.withdraw("node") == []
    assert snapshot() == before
    assert subject.rows("node") == ()


@on_a_node
def test_withdrawing_an_unknown_owner_does_nothing() -> None:
    assert engine().withdraw("nobody") == []
