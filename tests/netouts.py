"""Rules as garden writes them, and what comes through: for tests of egress lists."""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from acceptance import Host
from weft.lab import entering

FAR4, FAR6 = "203.0.113.", "2001:db8:77::"


ALL4 = {"networks": [{"start": "0.0.0.0", "end": "255.255.255.255"}]}


ALL6 = {"networks": [{"start": "::", "end": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}]}


TCP, UDP, ICMP, ICMP6 = 1, 2, 3, 4


KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}


PATIENCE, TRIES = 5.0, 10


def rule(protocol: int, start: str, end: str = "", **more: Any) -> dict[str, Any]:
    """A rule as garden writes it: what is zero is left out."""
    found: dict[str, Any] = {"networks": [{"start": start, "end": end or start}], **more}
    return {"protocol": protocol, **found} if protocol else found


def ports(*pairs: tuple[int, int]) -> dict[str, Any]:
    return {"ports": [{"start": low, "end": high} for low, high in pairs]}


def icmp(kind: int, code: int) -> dict[str, Any]:
    return {"icmps": {"type": kind, "code": code} if kind else {"code": code}}


def listed(*rules: dict[str, Any], **conf: Any) -> dict[str, Any]:
    return {"runtimeConfig": {"portMappings": None, "netOutRules": list(rules)}, **conf}


def node_of(host: Host) -> tuple[str, str]:
    """The addresses of the uplink."""
    four, six = (
        json.loads(host.shell(f"ip -j -{n} addr show dev eth0 scope global"))[0]["addr_info"]
        for n in (4, 6)
    )
    return four[0]["local"], six[0]["local"]


@contextmanager
def addresses(host: Host) -> Iterator[Path]:
    """The outside host with further addresses in both families, 1 to 9."""
    outside = host.wires.outside.network
    lines = [f"{FAR4}{n}/32 dev lo" for n in range(1, 10)]
    lines += [f"{FAR6}{n}/128 dev lo nodad" for n in range(1, 10)]
    up = "link set lo up\n"
    entering.ip_batch(outside, up + "".join(f"addr add {each}\n" for each in lines))
    try:
        yield outside
    finally:
        bare = [each.removesuffix(" nodad") for each in lines]
        entering.ip_batch(outside, "".join(f"addr del {each}\n" for each in bare))


def reaches(origin: Path, goal: Path, address: str, port: int, protocol: int) -> bool:
    """Whether a word comes there and its answer back. False only where the sender was told that
    the port is unreachable: a word that is merely lost fails the test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        closing(entering.socket_in(goal, family, KINDS[protocol])) as server,
        closing(entering.socket_in(origin, family, KINDS[protocol])) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        try:
            if protocol == TCP:
                server.listen(1)
                client.connect((address, port))
                peer, _ = server.accept()
                with closing(peer):
                    client.sendall(b"word")
                    peer.sendall(peer.recv(16))
                    return client.recv(16) == b"word"
            client.connect((address, port))
            for _ in range(TRIES):  # nobody sends a datagram again that went astray
                client.send(b"word")
                if select.select([client, server], [], [], PATIENCE / TRIES)[0] == [server]:
                    said, sender = server.recvfrom(16)
                    server.sendto(said, sender)
                if select.select([client], [], [], PATIENCE / TRIES)[0]:
                    break
            return client.recv(16) == b"word"
        except OSError as error:
            assert error.errno == errno.ECONNREFUSED, (address, port, error)
            if protocol == TCP:
                server.setblocking(False)
                with pytest.raises(BlockingIOError):  # nor did it come through
                    server.accept()
            return False


def echoes(origin: Path, address: str, kind: int, code: int = 0) -> bool:
    """Whether an ICMP message leaves the node: an echo is answered; of others the refusal, or its
    absence behind an echo that is answered, tells."""
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    with closing(entering.socket_in(origin, family, socket.SOCK_RAW, protocol)) as raw:
        raw.settimeout(PATIENCE)
        body = struct.pack("!BBHHH12x", kind, code, 0, 77, 1)
        total = sum(struct.unpack("!10H", body))
        total = (total & 0xFFFF) + (total >> 16)
        if not six:
            body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
        raw.sendto(body, (address, 0))
        answers = {0, 129, 14}  # echo replies, timestamp reply
        while True:
            said = raw.recv(2000)
            found = said if six else said[(said[0] & 15) * 4 :]
            if found[0] in answers and found[4:6] == b"\0\x4d":
                return True
            if found[0] in (1, 3) and b"\0\x4d" in found[8:]:
                return False


def refused(host: Host) -> int:
    drops = json.loads(host.weft("status", "-o", "json"))["drops"]
    return int(drops.get("egress", 0))


def talks(origin: Path, goal: Path, address: str) -> bool:
    """Whether a word from one and the same port comes there, and its answer back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        closing(entering.socket_in(goal, family, socket.SOCK_DGRAM)) as server,
        closing(entering.socket_in(origin, family, socket.SOCK_DGRAM)) as client,
    ):
        server.bind((address, 7))
        client.bind(("", 5000))
        client.settimeout(PATIENCE)
        client.connect((address, 7))
        try:
            client.send(b"word")
            if select.select([client, server], [], [], PATIENCE)[0] == [server]:
                server.sendto(*server.recvfrom(16))
            return client.recv(16) == b"word"
        except ConnectionRefusedError:
            return False


def table(host: Host) -> str:
    """Names of our chains and sets."""
    return host.shell("nft -t list table inet weft")


def shown(host: Host, name: str) -> str:
    """What `weft get attachments` says of a container's list."""
    items = json.loads(host.weft("get", "attachments", "-o", "json"))["items"]
    return str(
        next(x for x in items if x["spec"]["container"] == name)["status"].get("egressList", "")
    )


def long_list(rules: int) -> list[dict[str, Any]]:
    """As Diego writes a security group: one rule a destination, none beside another."""
    return [
        rule(TCP, f"10.{n >> 8}.{n & 255}.{10 + n % 7}", **ports((443, 443), (8000, 8000 + n % 90)))
        for n in range(rules)
    ]


NEAR = rule(TCP, f"{FAR4}1", **ports((80, 80)))


def keeps(host: Host, name: str) -> bool:
    """Whether exactly what NEAR allows is open."""
    with addresses(host) as outside:
        pod = host.network(name)
        return reaches(pod, outside, f"{FAR4}1", 80, TCP) and not (
            reaches(pod, outside, f"{FAR4}1", 81, TCP) or reaches(pod, outside, f"{FAR6}1", 80, TCP)
        )


def shown_digest(host: Host) -> str:
    return next(word[4:] for word in table(host).split() if word.startswith("out-"))


@contextmanager
def errors_at_once(host: Host) -> Iterator[None]:
    """The kernel sends one receiver an ICMP error a second, unless it is told otherwise."""
    files = [f"/proc/sys/net/ipv{name}" for name in ("4/icmp_ratelimit", "6/icmp/ratelimit")]
    for file in files:
        host.shell(f"echo 0 > {file}")
    try:
        yield
    finally:
        for file in files:
            host.shell(f"echo 1000 > {file}")
