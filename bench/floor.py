"""The floor: what the kernel and one exec cost, when everything is ready before the clock starts.

An exec of a C program that does nothing, then this process sends the ready-made messages of
`bench.ready`: packed octets, four sends, no decision left. Only what cannot be done before the
namespace exists is done in the window: opening it, one socket in it, the writes of its sysctl
files. The node has weft's own ruleset, so elements cost what they cost there.
"""

from __future__ import annotations

import os
import socket
import time
from ipaddress import ip_network
from pathlib import Path

from bench import execution, ready, remains
from bench.network import Container
from bench.programs import compiled
from bench.reach import Listener
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.kernel import links, netlink, sysctl
from weft.kernel.namespaces import entered
from weft.lab import entering
from weft.model.attachment import AttachmentKey
from weft.model.errors import WeftError
from weft.render.ruleset import NodeRules, node_rows

PODS = Path("/run/netns")
POOLS = (ip_network("10.244.0.0/16"), ip_network("fd77:6566:7400::/48"))
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NOTHING = "int main(void) { return 0; }\n"
_FIRST_INDEX = 5000


class Floor:
    """The floor on this node, with the ruleset and forwarding of a node of weft's."""

    def __init__(self, families: list[int], addresses: list[str]) -> None:
        self._families = families
        self._listener = Listener(addresses)
        self._rules = RulesTransport()
        drivers = all_drivers(self._rules)
        self._engine = Engine(Host(self._rules), drivers)
        self._engine.apply("node", node_rows(NodeRules(pools=POOLS, blocks=POOLS)))
        sysctl.write(
            [
                sysctl.message("net/ipv4/ip_forward", "1"),
                sysctl.message("net/ipv6/conf/all/forwarding", "1"),
            ]
        )
        self._drivers = {kind: driver for driver in drivers for kind in driver.kinds}
        for row in node_rows(NodeRules()):
            self._drivers[type(row)].position(row)  # the driver of rules meets the sets
        self._nothing = execution.Execution(compiled("nothing", NOTHING), {}, b"{}")
        self._host = _socket(NETLINK_ROUTE)
        self._nft = _socket(NETLINK_NETFILTER)
        self._files = sysctl.Files()
        self._look = remains.probe_socket()
        self._made = 0
        self._fresh: list[tuple[Path, ready.Ready]] = []
        self._used: list[Path] = []

    def prepare(self, count: int) -> None:
        """Make namespaces and messages for as many attachments."""
        while len(self._fresh) < count:
            self._fresh.append(self._pack())

    def block(self, count: int, check: bool) -> dict[str, list[float]]:
        """Seconds of `count` attachments, made and taken back one after the other."""
        self.prepare(count)
        times = []
        for number in range(count):
            path, messages = self._fresh.pop()
            begin = time.perf_counter()
            execution.answer(self._nothing)
            self._send(path, messages)
            times.append(time.perf_counter() - begin)
            if check and number == 0:
                self._listener.hear(_container(path, messages))
            self._take_back(messages)
        return {"add": times}

    def _pack(self) -> tuple[Path, ready.Ready]:
        self._made += 1
        number = self._made
        path = entering.create(PODS / f"floor-{number}")
        self._used.append(path)
        addresses = [str(pool[number]) for pool in POOLS if pool.version in self._families]
        key = AttachmentKey("floor", f"{path.name:x>64}", "eth0")
        made = ready.attachment(key, addresses)
        return path, ready.pack(made, self._drivers, _FIRST_INDEX + number)

    def _send(self, path: Path, messages: ready.Ready) -> None:
        _exchange(self._nft, messages.rules)
        pod = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _exchange(self._host, messages.into(pod))
        refused = self._files.write(messages.files)
        with entered(pod):
            inside = _socket(NETLINK_ROUTE)
            refused += sysctl.Files().write(messages.pod_files)
        if refused:
            raise WeftError(f"the floor's sysctl files are refused: {refused}")
        _exchange(inside, messages.pod)
        _exchange(self._host, messages.host)
        inside.close()
        os.close(pod)

    def _take_back(self, messages: ready.Ready) -> None:
        """Not timed."""
        _exchange(self._nft, messages.take_back)
        _exchange(self._host, ready.batch([links.delete_by_name(messages.host_link)]))
        if remains.has_link(self._look, messages.host_link):
            raise WeftError(f"the floor's link {messages.host_link} still stands")

    def drop(self) -> None:
        """Give all namespaces back."""
        for path in self._used:
            entering.remove(path)
        self._fresh, self._used = [], []


def _socket(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    made.bind((0, 0))
    return made


def _exchange(via: socket.socket, messages: bytes | bytearray) -> None:
    """Send, and read until the last message is acknowledged."""
    via.send(messages)
    while True:
        for kind, flags, number, body in netlink.frames(via.recv(1 << 16)):
            if kind != netlink.NLMSG_ERROR:
                continue
            code, words = netlink.acknowledgement(flags, body)
            if code:
                raise WeftError(f"the floor's message {number} is refused: errno {code} {words}")
            if number == ready.LAST:
                return


def _container(path: Path, messages: ready.Ready) -> Container:
    container = Container(messages.key.container, str(path))
    container.result = {"ips": [{"address": f"{text}/0"} for text in messages.addresses]}
    return container
