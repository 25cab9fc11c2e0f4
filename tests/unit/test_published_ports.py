"""Published ports: elements and the way back from them, and the ledger."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.agent import ports
from weft.agent.events import Log
from weft.agent.ports import SLICE, Ledger
from weft.kernel import listeners
from weft.kernel.listeners import Listener
from weft.model.attachment import Assigned, Attachment, AttachmentKey
from weft.model.errors import Conflict
from weft.model.ports import PortMapping
from weft.render.published import elements, mappings_of

FOUR, SIX = ipaddress.ip_address("10.244.0.5").packed, ipaddress.ip_address("fd00::5").packed
OTHER = ipaddress.ip_address("10.244.0.6").packed
IPS = ("", "0.0.0.0", "::", "127.0.0.1", "198.51.100.11", "::1", "2001:db8::11")


@st.composite
def mappings(draw: st.DrawFn) -> tuple[PortMapping, ...]:
    """Mappings of one container, none of which collide."""
    kept: list[PortMapping] = []
    for mapping in draw(
        st.lists(
            st.builds(
                PortMapping,
                protocol=st.sampled_from(["tcp", "udp", "sctp"]),
                host_port=st.integers(1, 12),
                container_port=st.integers(1, 65535),
                host_ip=st.sampled_from(IPS),
            ),
            max_size=12,
        )
    ):
        if not any(mapping.collides(other) for other in kept):
            kept.append(mapping)
    return tuple(sorted(kept))


@given(mappings())
def test_what_elements_publish_is_read_back_from_them(wanted: tuple[PortMapping, ...]) -> None:
    rows = elements(wanted, [FOUR, SIX])
    assert len({row.key for row in rows}) == len(rows), "two ports under one key"
    strangers = elements((PortMapping(host_port=9999, container_port=1),), [OTHER])
    found = mappings_of([*rows, *strangers], [FOUR, SIX])
    # one port of each family that lead to the same inner port are one port of both
    assert _flat(found) == _flat(wanted)
    assert mappings_of(rows, [OTHER]) == ()


def _flat(wanted: tuple[PortMapping, ...]) -> set[tuple[object, ...]]:
    return {
        (m.protocol, m.host_port, m.container_port, m.host_ip if not m.every else version, version)
        for m in wanted
        for version in m.families
    }


def test_a_container_of_one_family_publishes_in_that_one() -> None:
    (row,) = elements((PortMapping(host_port=80, container_port=8080),), [FOUR])
    assert row.set == "ports4"
    assert row.data == FOUR + b"\x1f\x90\0\0"
    assert mappings_of([row], [FOUR]) == (PortMapping(host_port=80, container_port=8080),)
    assert elements((PortMapping(host_port=80, container_port=1, host_ip="::1"),), [FOUR]) == ()


# -- the ledger: `bound` stands for the kernel's table of bound sockets


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    taken: set[int] = set()

    def hold(protocol: int, address: str, port: int) -> socket.socket | None:
        return None if port in taken else socket.socket(socket.AF_UNIX)

    monkeypatch.setattr(listeners, "hold", hold)
    monkeypatch.setattr(
        listeners, "listening", lambda protocol: [Listener(protocol, "", p, 7) for p in taken]
    )
    monkeypatch.setattr(listeners, "holder", lambda inode: "sshd (pid 1)")
    monkeypatch.setattr(listeners, "is_held_by", lambda inode, programs: "sshd" in programs)
    monkeypatch.setattr(listeners, "ephemeral_range", lambda: (32768, 60999))
    yield taken


def attached(name: str, *wanted: PortMapping) -> Attachment:
    key = AttachmentKey("net", name, "eth0")
    return Attachment(
        key=key,
        state="ready",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=(Assigned(address="10.244.0.5", pool="p", block="10.244.0.0/26", sequence=1),),
        ports=wanted,
    )


def tcp(port: int, ip: str = "") -> PortMapping:
    return PortMapping(host_port=port, container_port=80, host_ip=ip)


def test_all_ports_are_entered_or_none(bound: set[int]) -> None:
    ledger = Ledger(Log("error"))
    ledger.claim(attached("one", tcp(80)))
    with pytest.raises(Conflict, match="published for container one") as caught:
        ledger.claim(attached("two", tcp(81), tcp(80), tcp(82)))
    assert caught.value.reason == "port-taken"
    assert len(ledger) == 1
    ledger.claim(attached("two", tcp(81)))
    ledger.release(AttachmentKey("net", "one", "eth0"))
    ledger.release(AttachmentKey("net", "nobody", "eth0"))
    ledger.claim(attached("three", tcp(80)))
    assert {entry.key.container for entry in ledger} == {"two", "three"}
    ledger.close()
    assert len(ledger) == 0


def test_the_refusal_names_a_port_that_is_free(bound: set[int]) -> None:
    bound |= {8081, 8082}
    ledger = Ledger(Log("error"))
    ledger.claim(attached("one", tcp(8080), tcp(8083)))
    with pytest.raises(Conflict, match="next free port is 8084"):
        ledger.claim(attached("two", tcp(8080)))
    with pytest.raises(Conflict, match=r"in use by sshd \(pid 1\)"):
        ledger.claim(attached("two", tcp(8081)))
    ledger.claim(attached("three", tcp(32767)))
    with pytest.raises(Conflict, match="next free port is 61000"):
        ledger.claim(attached("two", tcp(32767)))
    ledger.claim(attached("four", tcp(65535)))
    with pytest.raises(Conflict, match="next free port is 1024"):
        ledger.claim(attached("two", tcp(65535)))
    ledger.close()


def test_what_is_lent_stays_the_containers_and_is_held_again_where_nobody_took_it(
    bound: set[int],
) -> None:
    ledger = Ledger(Log("error"))
    one = attached("one", tcp(80), tcp(81))
    ledger.claim(one)
    assert all(entry.sockets for entry in ledger)
    ledger.lend(one.key)
    assert not any(entry.sockets for entry in ledger)
    with pytest.raises(Conflict, match="published for container one"):
        ledger.claim(attached("two", tcp(80)))
    bound.add(81)  # by the runtime
    ledger.hold(one.key)
    assert {entry.mapping.host_port for entry in ledger if entry.sockets} == {80}
    ledger.hold(AttachmentKey("net", "nobody", "eth0"))
    ledger.release(one.key)
    assert len(ledger) == 0
    ledger.close()


def test_many_ports_are_held_again_in_slices(bound: set[int]) -> None:
    ledger = Ledger(Log("error"))
    many = attached("one", *(tcp(1000 + number) for number in range(SLICE + 1)))
    ledger.claim(many)
    ledger.lend(many.key)
    assert ledger.hold(many.key) == SLICE
    assert sum(bool(entry.sockets) for entry in ledger) == SLICE
    assert ledger.hold(many.key, SLICE) == 0
    assert all(entry.sockets for entry in ledger)
    ledger.close()


def test_ports_that_a_runtime_holds_itself_are_not_had_twice(
    bound: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound.add(80)
    monkeypatch.setattr(listeners, "is_held_by", lambda inode, programs: "conmon" in programs)
    log = Log("error")
    ledger = Ledger(log)
    ledger.adopt(attached("one", tcp(80)))
    assert list(log.events) == []
    assert [entry.sockets for entry in ledger] == [()]
    with pytest.raises(Conflict, match="published for"):
        ledger.claim(attached("two", tcp(80)))


@pytest.mark.parametrize("program", ["nerdctl", "starter-suid"])
def test_a_port_that_the_runtime_has_reserved_is_not_taken(
    bound: set[int], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    bound.add(80)
    monkeypatch.setattr(listeners, "is_held_by", lambda inode, programs: program in programs)
    ledger = Ledger(Log("error"))
    one = attached("one", tcp(80), tcp(81))
    ledger.claim(one)
    assert {entry.mapping.host_port for entry in ledger if entry.sockets} == {81}
    with pytest.raises(Conflict, match="published for container one"):
        ledger.claim(attached("two", tcp(80)))
    ledger.release(one.key)
    assert len(ledger) == 0
    ledger.close()


@pytest.mark.parametrize("program", ["conmon", "podman", "crio", "sleep"])
def test_who_binds_after_an_add_has_taken_the_port_before_one(
    bound: set[int], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    bound.add(80)
    monkeypatch.setattr(listeners, "is_held_by", lambda inode, programs: program in programs)
    with pytest.raises(Conflict, match="in use by"):
        Ledger(Log("error")).claim(attached("one", tcp(80)))


def test_what_stands_is_entered_whoever_else_has_it(bound: set[int]) -> None:
    bound.add(80)
    log = Log("error")
    ledger = Ledger(log)
    ledger.adopt(attached("one", tcp(80)))
    ledger.adopt(attached("one", tcp(80)))
    (entry,) = ledger
    assert not entry.sockets
    assert [event.reason for event in log.events] == ["PortTwice"]


def test_a_ledger_without_room_for_sockets_still_refuses(
    bound: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports.resource, "getrlimit", lambda _: (8, 8))
    ledger = Ledger(Log("error"))
    ledger.claim(attached("one", tcp(80), tcp(81), tcp(82)))
    assert [bool(entry.sockets) for entry in ledger] == [True, True, False]
    with pytest.raises(Conflict):
        ledger.claim(attached("two", tcp(82)))
    ledger.close()
