"""A node with two guarded pods and an uplink, and eyes wherever a packet could come out.

         attacker                 victim                  outside
          eth0 (raw socket)        eth0 (tap)               out0 (tap)
            |                        |                        |
          wf...                    wf...                    up0
        +--------------------------- node ---------------------------+
        | ours: -450 prerouting, -450 input, -150 forward            |
        | eyes: `passed` -440 prerouting, `input`, `forwarded`, `arp`|
        +------------------------------------------------------------+

Everything that a sysctl could forbid is allowed on the attacker's link, so only our rules stand
between its frames and the node. The process stays on one CPU, where a veth pair keeps the order of
frames: once a marker that was sent last has come out, nothing sent before it is on its way.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network

import frames
import msgspec
from namespace_fixture import new_namespace

from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.fabric.wiring import NodeFacts, adoption, link_local, packed, wiring
from weft.kernel.namespaces import entered
from weft.model.attachment import HOST_MAC, Adopted, Assigned, Attachment, AttachmentKey
from weft.render import adopted, guards
from weft.render.ruleset import NodeRules, node_rows
from weft.rows.base import Row
from weft.rows.rules import Chain, Compare, Counter, Family, Hook, Meta, Table

PLAN = NodeRules(
    pools=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
    blocks=(ip_network("10.244.7.0/26"), ip_network("fd00:1:0:7::/120")),
)
GATEWAY6 = packed("fe80::1")
NODE4, NODE6 = packed("192.0.2.1"), packed("2001:db8::1")
OUTSIDE4, OUTSIDE6 = packed("192.0.2.2"), packed("2001:db8::2")
UNROUTED4, UNROUTED6 = packed("198.51.100.7"), packed("2001:db8:7::7")
ALL_NODES, ALL_NODES_MAC = packed("ff02::1"), bytes.fromhex("333300000001")
BROADCAST = b"\xff" * 6
ETH_P_ALL = 3
OUTGOING = 4
MARKER = b"marker-of-the-test"

_PERMISSIVE = (
    *(f"net/ipv4/conf/{{}}/{name}=1" for name in ("accept_redirects", "route_localnet")),
    *(f"net/ipv4/conf/{{}}/{name}=1" for name in ("accept_source_route", "arp_accept")),
    *(f"net/ipv4/conf/{{}}/{name}=0" for name in ("rp_filter", "secure_redirects")),
    "net/ipv6/conf/{}/accept_ra=2",
    *(
        f"net/ipv6/conf/{{}}/{name}=1"
        for name in ("autoconf", "accept_redirects", "accept_ra_pinfo")
    ),
    "net/ipv6/conf/{}/accept_source_route=1",
    "net/ipv6/conf/{}/suppress_frag_ndisc=0",
)
_GLOBAL = (
    "net/ipv4/ip_forward=1",
    "net/ipv6/conf/all/forwarding=1",
    *(each.format("all") for each in _PERMISSIVE),
)


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment that stands, its namespace, and a raw socket on its link."""

    attachment: Attachment
    fd: int
    raw: socket.socket

    @property
    def link(self) -> str:
        return self.attachment.host_link

    @property
    def mac(self) -> bytes:
        return self.attachment.mac

    @property
    def ip4(self) -> bytes:
        return packed(self.attachment.addresses[0].address)

    @property
    def ip6(self) -> bytes:
        return packed(self.attachment.addresses[1].address)

    @property
    def local(self) -> bytes:
        return link_local(self.mac)


def promise(name: str, number: int, masquerade: bool = True) -> Attachment:
    """A dual-stack attachment of the node's blocks."""
    key = AttachmentKey("net", name, "eth0")
    return Attachment(
        key=key,
        state="ready",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=tuple(
            Assigned(address=address, pool="p", block="b", sequence=0)
            for address in (f"10.244.7.{number}", f"fd00:1:0:7::{number:x}")
        ),
        masquerade=masquerade,
    )


def rows_of(attachment: Attachment) -> tuple[Row, ...]:
    """All rows of an attachment, guards and wiring."""
    if attachment.adopted is not None:
        return (
            *adopted.elements(
                attachment.host_link,
                attachment.mac,
                [packed(each.address) for each in attachment.addresses],
                link_local(attachment.mac),
                attachment.masquerade,
            ),
            *adoption(attachment, attachment.adopted),
        )
    return (
        *guards.elements(
            attachment.host_link,
            attachment.mac,
            [packed(each.address) for each in attachment.addresses],
            link_local(attachment.mac),
            attachment.masquerade,
        ),
        *wiring(attachment, NodeFacts(ipv6_kernel=True)),
    )


class GuardedNode:
    """Made in the namespace that shall be the node; see the drawing above."""

    def __init__(self, plan: NodeRules = PLAN, *, adopting: bool = False) -> None:
        """`adopting`: the attacker's link is another plugin's."""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.plan = plan
        self.drops: dict[str, int] = {}
        self.rules = RulesTransport()
        self.engine = Engine(Host(self.rules), all_drivers(self.rules))
        self.engine.apply("node", node_rows(plan))
        write(_GLOBAL)
        run("ip", "link", "set", "lo", "up")
        self.outside = self._uplink()
        attacker = promise("attacker", 5)
        self.attacker = self.adopt(attacker) if adopting else self.attach(attacker)
        self.victim = self.attach(promise("victim", 6))
        self._tempt()
        self.engine.apply("eyes", eyes(self.attacker.link))

    def attach(self, attachment: Attachment) -> Pod:
        fd = new_namespace()
        self.engine.apply(attachment.key.container, rows_of(attachment), fd)
        return Pod(attachment=attachment, fd=fd, raw=tap(fd, "eth0"))

    def adopt(self, attachment: Attachment) -> Pod:
        """A pair and routes that somebody else makes, and what we do on them."""
        fd, link = new_namespace(), f"veth-{attachment.key.container}"[:15]
        where = f"/proc/{os.getpid()}/fd/{fd}"
        mac = "address", HOST_MAC.hex(":")
        run("ip", "link", "add", link, *mac, "type", "veth", "peer", "name", "eth0", "netns", where)
        run("ip", "link", "set", link, "addrgenmode", "none")
        run("ip", "link", "set", link, "up")
        with entered(fd):
            run("ip", "link", "set", "eth0", "address", attachment.mac.hex(":"))
            run("ip", "link", "set", "eth0", "up")
        for each in attachment.addresses:
            run("ip", "route", "add", each.address, "dev", link)
        taken = msgspec.structs.replace(
            attachment, host_link=link, adopted=Adopted(index=socket.if_nametoindex(link))
        )
        self.engine.apply(taken.key.container, rows_of(taken), fd)
        return Pod(attachment=taken, fd=fd, raw=tap(fd, "eth0"))

    def _uplink(self) -> socket.socket:
        self.outside_fd = new_namespace()
        where = f"/proc/{os.getpid()}/fd/{self.outside_fd}"
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "out0", "netns", where)
        run("ip", "link", "set", "up0", "addrgenmode", "none")
        run("ip", "link", "set", "up0", "up")
        run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        run("ip", "addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
        inner = self.up_mac = mac_of("up0")
        with entered(self.outside_fd):
            run("ip", "link", "set", "lo", "up")
            run("ip", "link", "set", "out0", "addrgenmode", "none")
            run("ip", "link", "set", "out0", "up")
            run("ip", "addr", "add", "192.0.2.2/24", "dev", "out0")
            run("ip", "addr", "add", "2001:db8::2/64", "dev", "out0", "nodad")
            run("ip", "route", "add", "10.244.0.0/16", "via", "192.0.2.1")
            run("ip", "route", "add", "fd00:1::/48", "via", "2001:db8::1")
            outer = mac_of("out0")
            run("ip", "neigh", "replace", "192.0.2.1", "lladdr", inner, "dev", "out0")
            run("ip", "neigh", "replace", "2001:db8::1", "lladdr", inner, "dev", "out0")
        run("ip", "neigh", "replace", "192.0.2.2", "lladdr", outer, "dev", "up0")
        run("ip", "neigh", "replace", "2001:db8::2", "lladdr", outer, "dev", "up0")
        run("ip", "route", "add", "default", "via", "192.0.2.2")
        run("ip", "route", "add", "default", "via", "2001:db8::2")
        self.outside_mac = bytes.fromhex(outer.replace(":", ""))
        return tap(self.outside_fd, "out0")

    def _tempt(self) -> None:
        """Make the node as gullible as it can be, and add routes that no rule should follow."""
        link = self.attacker.link
        write(each.format(link) for each in _PERMISSIVE)
        run("ip", "addr", "add", "fe80::1/64", "dev", link, "nodad")
        for target in ("198.51.100.7/32", "2001:db8:7::7/128"):
            run("ip", "route", "add", target, "dev", self.victim.link)

    # -- sending and looking

    def send(self, wanted: Iterable[bytes]) -> None:
        """Put frames on the attacker's link."""
        for frame in wanted:
            self.attacker.raw.send(frame)

    def watch(self, wanted: Sequence[bytes]) -> dict[str, int]:
        """Send frames and count where they came out: packets by the name of an eye or tap.

        Repeated if the pod's own kernel said something meanwhile (it reports its multicast groups
        now and then). `drops` then has what was dropped, by reason.
        """
        for _ in range(5):
            seen = self._watch_once(wanted)
            if not self._own_words():
                break
        return seen

    def _watch_once(self, wanted: Sequence[bytes]) -> dict[str, int]:
        self.drain()
        before, ours = self.rules.counters("eyes"), self.rules.counters("weft")
        self.send(wanted)
        self.send(self.markers())
        victim = self._until_marker(self.victim.raw)
        outside = self._until_marker(self.outside)
        after = self.rules.counters("eyes")
        self.drops = {
            name.removeprefix("drop-"): figures[0] - ours.get(name, (0, 0))[0]
            for name, figures in self.rules.counters("weft").items()
        }
        seen = {name: after[name][0] - before[name][0] for name in after}
        seen["passed"] -= 2  # the markers
        seen["forwarded"] -= 2
        return {**seen, "victim": len(victim), "outside": len(outside)}

    def _own_words(self) -> bool:
        """The attacker's raw socket sees what its kernel sends, but not what it sends itself."""
        spoke = False
        while select.select([self.attacker.raw], [], [], 0)[0]:
            spoke |= self.attacker.raw.recvfrom(65_536)[1][2] == OUTGOING
        return spoke

    def dropped(self, reason: str) -> int:
        """Packets dropped for this reason so far."""
        return self.rules.counters("weft")[f"drop-{reason}"][0]

    def markers(self) -> list[bytes]:
        """An honest packet to the victim, and one to the outside."""
        me = self.attacker
        return [
            self.packet(frames.ipv4(me.ip4, to, frames.UDP, frames.udp(me.ip4, to, (9, 9), MARKER)))
            for to in (self.victim.ip4, OUTSIDE4)
        ]

    def packet(self, packet: bytes, *, mac: bytes | None = None, to: bytes = HOST_MAC) -> bytes:
        """An IP packet as a frame of the attacker's."""
        kind = frames.IPV4 if packet[0] >> 4 == 4 else frames.IPV6
        return frames.ether(to, mac if mac is not None else self.attacker.mac, kind, packet)

    def drain(self) -> None:
        """Forget what has come out so far."""
        for each in (self.victim.raw, self.outside, self.attacker.raw):
            while select.select([each], [], [], 0)[0]:
                each.recv(65_536)

    def waiting(self, raw: socket.socket) -> list[bytes]:
        """Frames that have come out of the node and were not looked at."""
        found = []
        while select.select([raw], [], [], 0.05)[0]:
            frame, (_, _, kind, _, _) = raw.recvfrom(65_536)
            if kind != OUTGOING and not self._chatter(frame):
                found.append(frame)
        return found

    def _until_marker(self, raw: socket.socket) -> list[bytes]:
        found = []
        while True:
            ready, _, _ = select.select([raw], [], [], 10)
            assert ready, "the marker did not come out: honest traffic is stopped"
            frame, (_, _, kind, _, _) = raw.recvfrom(65_536)
            if kind == OUTGOING or self._chatter(frame):
                continue
            if MARKER in frame:
                return found
            found.append(frame)

    def _chatter(self, frame: bytes) -> bool:
        """The node's own multicast listener reports: from `::` or a link-local address, which no
        node forwards."""
        own = frame[6:12].hex(":") in (self.up_mac, HOST_MAC.hex(":"))
        linked = frame[22:24] == b"\xfe\x80" or frame[22:38] == bytes(16)
        return own and linked and frame[12:14] == b"\x86\xdd"

    def state(self) -> str:
        """What a frame could have taught the node: routes, addresses, neighbours."""
        commands = (
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip -4 route show cache",
            "ip -6 route show cache",
            "ip -o -4 addr",
            "ip -o -6 addr",
            f"ip neigh show dev {self.attacker.link} nud all",
            f"ip neigh show dev {self.victim.link} nud all",
        )
        lines = "\n".join(run(*command.split()) for command in commands).splitlines()
        # entries of multicast groups are the kernel's own and come and go
        return "\n".join(line for line in lines if "NOARP" not in line)

    def mutate(self, change: Callable[[tuple[Row, ...]], Iterable[Row]]) -> None:
        """Replace the node's rules by changed ones."""
        self.engine.apply("node", tuple(change(node_rows(self.plan))))


def eyes(link: str) -> tuple[Row, ...]:
    """Counters behind our chains, for what comes from the attacker's link."""

    def chain(family: Family, name: str, number: int, priority: int) -> Chain:
        return Chain(
            family=family,
            table="eyes",
            name=name,
            hook=Hook(type="filter", number=number, priority=priority),
            rules=((Meta(key="iifname"), Compare(op="==", value=wide(link)), Counter()),),
        )

    return (
        Table(family=Family.INET, name="eyes"),
        Table(family=Family.ARP, name="eyes"),
        chain(Family.INET, "passed", 0, -440),
        chain(Family.INET, "input", 1, 1000),
        chain(Family.INET, "forwarded", 2, 1000),
        chain(Family.ARP, "arp", 0, 10),
    )


def wide(link: str) -> bytes:
    return link.encode().ljust(16, b"\0")


def tap(fd: int, link: str) -> socket.socket:
    """A raw socket on a link of another namespace."""
    with entered(fd):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.bind((link, ETH_P_ALL))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    return raw


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def write(settings: Iterable[str]) -> None:
    """Write `path=value` below /proc/sys."""
    for each in settings:
        path, _, value = each.partition("=")
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value)


def mac_of(link: str) -> str:
    words = run("ip", "-o", "link", "show", "dev", link).split()
    return words[words.index("link/ether") + 1]
