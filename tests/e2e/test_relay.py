"""The relay for ::1: what programs of the node see of it, and what becomes of it in trouble."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from acceptance import Host, ask, compared, problems, warm
from weft.engines import relay
from weft.lab import entering
from weft.model.errors import NotFound, PeerFault

SOCKET = "/run/weft/relay.sock"
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
LIMIT = 10.0


@pytest.fixture(scope="module")
def lacking(_site: Any) -> Host:
    """A host without a tree of cgroups, so that there is no hook."""
    made: Host = _site.make()
    made.shell("umount -l /sys/fs/cgroup")
    warm(made)
    return made


@pytest.fixture
def node(lacking: Host) -> Iterator[Host]:
    """That host, which must hold at the end what it held before: no socket of a relay, no rule."""
    with compared(lacking, lacking.snapshot()) as ready:
        yield ready


def published(*ports: tuple[Any, ...]) -> dict[str, Any]:
    names = ("hostPort", "containerPort", "protocol")
    return {"runtimeConfig": {"portMappings": [dict(zip(names, p, strict=False)) for p in ports]}}


def told(host: Host) -> dict[str, Any]:
    found = json.loads(host.weft("status", "-o", "json"))["capabilities"]
    return next(each for each in found if each["name"] == "host ports by ::1")


def pid_of(host: Host, other: int = 0) -> int:
    """The relay's process, once there is one that leads, other than `other`."""
    found: list[int] = []

    def asks() -> bool:
        with suppress(NotFound, PeerFault):
            said = relay.hello(host.node.path(SOCKET))
            found.extend([said.pid] if said.ports and said.pid != other else [])
        return bool(found)

    until(asks, "no relay")
    return found[0]


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(holds: Callable[[], Any], words: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, words
        time.sleep(0.02)


def client(host: Host, port: int = 8080, protocol: str = "tcp") -> socket.socket:
    """A program of the node that has connected by ::1."""
    sock = entering.socket_in(host.node.network, socket.AF_INET6, KINDS[protocol])
    try:
        sock.settimeout(LIMIT)
        sock.connect(("::1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def patient(host: Host, port: int = 8080) -> socket.socket:
    """The same, as soon as the relay has the port."""
    made: list[socket.socket] = []

    def tries() -> bool:
        with suppress(ConnectionRefusedError):
            made.append(client(host, port))
        return bool(made)

    until(tries, "never led")
    return made[0]


def server(pod: str | Path, protocol: str = "tcp", port: int = 80) -> socket.socket:
    sock = entering.socket_in(pod, socket.AF_INET6, KINDS[protocol])
    sock.settimeout(LIMIT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    if protocol == "tcp":
        sock.listen(64)
    return sock


def taken(listener: socket.socket) -> socket.socket:
    peer, _ = listener.accept()
    peer.settimeout(LIMIT)
    return peer


def everything(sock: socket.socket) -> bytes:
    said = bytearray()
    while piece := sock.recv(1 << 16):
        said += piece
    return bytes(said)


def test_words_go_both_ways_and_each_end_ends_by_itself(node: Host) -> None:
    node.add("pod", **published((8080, 80), (8080, 80, "udp")))
    pod = node.network("pod")
    with closing(server(pod)) as listener, closing(patient(node)) as near:
        with closing(taken(listener)) as far:
            assert near.getpeername()[:2] == ("::1", 8080)
            near.sendall(b"asked")
            near.shutdown(socket.SHUT_WR)
            assert everything(far) == b"asked"
            far.sendall(b"said afterwards")
        assert everything(near) == b"said afterwards"
    with closing(server(pod, "udp")) as listener, closing(client(node, 8080, "udp")) as near:
        near.settimeout(0.2)

        def heard() -> bool:
            near.send(b"word")
            with suppress(TimeoutError, ConnectionRefusedError):
                word, sender = listener.recvfrom(16)
                listener.sendto(word[::-1], sender)
                return near.recv(16) == b"drow"
            return False

        listener.settimeout(0.2)
        until(heard, "no datagram came back")
    assert told(node)["present"]
    node.drop("pod")
    until(lambda: not node.node.path(SOCKET).exists(), "the relay stays")
    with pytest.raises(ConnectionRefusedError):
        client(node)


def test_who_does_not_read_stops_who_sends_and_misses_nothing(node: Host) -> None:
    node.add("pod", **published((8080, 80)))
    whole = os.urandom(1 << 16) * 512  # 32 MiB: more than all buffers on the way
    with closing(server(node.network("pod"))) as listener, closing(patient(node)) as near:
        near.sendall(b"?")
        near.shutdown(socket.SHUT_WR)
        far = taken(listener)
        assert everything(far) == b"?"
        sent = 0
        far.settimeout(0.5)
        with suppress(TimeoutError):
            while sent < len(whole):
                sent += far.send(whole[sent : sent + (1 << 16)])
        assert 0 < sent < len(whole)

        def goes_on() -> None:
            with closing(far):
                far.settimeout(LIMIT)
                far.sendall(whole[sent:])

        process = pid_of(node)
        size = memory(process)
        spent = cpu(process)
        time.sleep(0.3)
        assert cpu(process) - spent < 0.1  # it waits, and does not look again and again
        beside = threading.Thread(target=goes_on)
        beside.start()
        assert everything(near) == whole
        beside.join()
        assert memory(process) < size + 4096
    node.drop("pod")


def memory(pid: int) -> int:
    """Resident KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_a_container_that_refuses_or_goes_breaks_the_stream_at_once(node: Host) -> None:
    node.add("pod", **published((8080, 80)))
    with pytest.raises(ConnectionResetError), closing(patient(node)) as near:
        near.recv(1)  # nobody listens there
    with (
        closing(server(node.network("pod"))) as listener,
        closing(patient(node)) as near,
        closing(taken(listener)),
    ):
        began = time.monotonic()
        assert node.send(ask("DEL", "pod")).status == 0
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        assert time.monotonic() - began < 3
    node.unmake(["pod"])


def test_streams_outlive_the_agent_and_a_killed_relay_is_replaced(node: Host) -> None:
    node.add("pod", **published((8080, 80)))
    with (
        closing(server(node.network("pod"))) as listener,
        closing(patient(node)) as near,
        closing(taken(listener)) as far,
    ):
        first = pid_of(node)
        status = Path(f"/proc/{first}/status").read_text()
        assert "\nUid:\t65534\t65534" in status
        assert "\nCapEff:\t0000000000000000\n" in status
        assert "\nCapPrm:\t0000000000000000\n" in status
        node.end()
        far.sendall(b"word")
        assert near.recv(16) == b"word"
        node.start()
        far.sendall(b"word")
        assert near.recv(16) == b"word"
        assert pid_of(node) == first
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
    second = pid_of(node, first)
    with closing(server(node.network("pod"))) as listener, closing(patient(node)):
        taken(listener).close()
    os.kill(second, signal.SIGSTOP)  # one that does not answer is ended
    node.add("other", **published((8081, 80)))
    until(lambda: not lives(second), "the stuck one lives")
    with closing(server(node.network("other"))) as listener, closing(patient(node, 8081)):
        taken(listener).close()
    node.drop("other")
    node.drop("pod")


def test_the_relay_follows_while_containers_come_and_go_and_the_agent_is_killed(
    node: Host,
) -> None:
    names = [f"pod-{n}" for n in range(6)]
    whole = {(number, 9000 + n) for n in range(6) for number in (6, 17)}
    node.make(names)
    for turn in range(2):
        adds = [
            ask("ADD", name, **published((9000 + n, 80), (9000 + n, 80, "udp")))
            for n, name in enumerate(names)
        ]
        assert not problems(node.storm(adds))
        if turn:
            node.end()
            node.start()
        until(lambda: {each[:2] for each in asked(node)} == whole, "not all ports")
        for name, port in ((names[0], 9000), (names[-1], 9005)):
            with closing(server(node.network(name))) as listener, closing(patient(node, port)):
                taken(listener).close()
        assert not problems(node.storm([ask("DEL", name) for name in names]))
    until(lambda: not node.node.path(SOCKET).exists(), "the relay stays")
    node.unmake(names)


def asked(host: Host) -> tuple[tuple[int, int, int], ...]:
    with suppress(NotFound, PeerFault):
        return relay.hello(host.node.path(SOCKET)).ports
    return ()


def test_the_settings_choose_and_a_teardown_ends_the_relay(lacking: Host) -> None:
    """The last of this file: nothing stands on this host afterwards."""
    host = lacking
    host.add("pod", **published((8080, 80)))
    process = pid_of(host)
    assert "no connect hook" in told(host)["way"]
    assert "host ports by ::1: a relay (process" in host.weft("status")
    for way, words in (("off", "off in the settings"), ("hook", "no connect hook")):
        host.end(signal.SIGTERM)
        host.shell(f"echo 'ports: {{ipv6Loopback: {way}}}' >/etc/weft/weft.yaml")
        host.start()
        assert not lives(process)
        assert words in told(host)["why"]
        with pytest.raises(ConnectionRefusedError):
            client(host)
    host.end()
    host.shell("echo 'ports: {ipv6Loopback: relay}' >/etc/weft/weft.yaml")
    host.start()
    process = pid_of(host)
    assert "relay in the settings" in told(host)["way"]
    host.end(signal.SIGTERM)
    assert lives(process)
    host.shell(" ".join([*host.command, "--teardown"]))
    assert not lives(process)
    assert not host.node.path(SOCKET).exists()
