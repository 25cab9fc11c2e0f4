"""The world beyond the node: a namespace on a veth pair that knows the node and nothing else.

    weft-demo-outside                        node
    eth0 192.0.2.2, 2001:db8:77::2   ====    weft-demo0 192.0.2.1, 2001:db8:77::1

It has no route to containers, so an answer proves that the node put its own address in place of
the container's. The ranges are those kept for documentation (RFC 5737, RFC 3849): of each family
the first that overlaps no address and no route of the machine, which may use one itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec

from weft.kernel.host import Network, read_host
from weft.kernel.netlink import Socket
from weft.kernel.routes import PROTOCOL
from weft.lab import entering
from weft.lab.demo import places
from weft.lab.demo.record import Record
from weft.model.attachment import LINK_PREFIXES
from weft.model.errors import Conflict, NotReady

CANDIDATES: Mapping[int, tuple[Network, ...]] = {
    4: tuple(map(IPv4Network, ("192.0.2.0/30", "198.51.100.0/30", "203.0.113.0/30"))),
    6: tuple(map(IPv6Network, ("2001:db8:77::/64", "2001:db8:177::/64", "2001:db8:277::/64"))),
}
NETLINK_ROUTE = 0
CARRIER_WITHIN = 5.0


def families() -> tuple[int, ...]:
    """The families that containers of this machine can speak: IPv6 may be out or switched off."""
    for scope in ("all", "default"):
        off = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if not off.exists() or off.read_text().strip() != "0":
            return (4,)
    return (4, 6)


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """The namespace, and the range of its link by family, 4 or 6."""

    namespace: Path
    ranges: Mapping[int, Network]

    def node(self, family: int) -> str:
        """The node's address on the link."""
        return str(self.ranges[family][1])

    def address(self, family: int) -> str:
        """The outside's own address."""
        return str(self.ranges[family][2])


def choose(family: int, taken: Iterable[Network]) -> Network:
    """The first candidate that overlaps nothing taken but a default route; Conflict if all do."""
    used = [each for each in taken if each.version == family and each.prefixlen]
    for candidate in CANDIDATES[family]:
        if not any(candidate.overlaps(each) for each in used):
            return candidate
    names = ", ".join(map(str, CANDIDATES[family]))
    raise Conflict(
        f"this machine uses all ranges that are kept for documentation ({names}); take an address "
        "or a route off one of them, or try on another machine"
    )


def build(record: Record) -> Outside:
    """Make the outside and its link, the link anew each time."""
    namespace = places.NETNS / places.OUTSIDE
    record.namespace(namespace)
    record.link(places.UPLINK)
    taken = _taken()
    made = Outside(namespace=namespace, ranges={f: choose(f, taken) for f in families()})
    node = [
        f"link add {places.UPLINK} type veth peer name eth0 netns {places.OUTSIDE}",
        *(
            f"addr add {made.node(f)}/{net.prefixlen} dev {places.UPLINK}{_nodad(f)}"
            for f, net in made.ranges.items()
        ),
        f"link set {places.UPLINK} up",
    ]
    entering.ip_batch(entering.OWN, "\n".join(node) + "\n")
    there = [
        "link set lo up",
        *(
            f"addr add {made.address(f)}/{net.prefixlen} dev eth0{_nodad(f)}"
            for f, net in made.ranges.items()
        ),
        "link set eth0 up",
    ]
    entering.ip_batch(namespace, "\n".join(there) + "\n")
    _wait_for_carrier()
    return made


def _taken() -> list[Network]:
    """What the machine routes or has as an address now, without the demo's own link."""
    socket = Socket(NETLINK_ROUTE)
    try:
        view = read_host(socket, skip_protocol=PROTOCOL, skip_links=LINK_PREFIXES)
    finally:
        socket.close()
    return [prefix.network for prefix in view.prefixes if prefix.link != places.UPLINK]


def _wait_for_carrier() -> None:
    """The end that was set up first learns of its carrier up to a second late, and IPv6 is not
    ready before. From kernel 6.8 on, asking for the carrier brings the news at once."""
    link = Path("/sys/class/net") / places.UPLINK
    deadline = time.monotonic() + CARRIER_WITHIN
    while (link / "carrier").read_text() != "1\n" or (link / "operstate").read_text() != "up\n":
        if time.monotonic() > deadline:
            raise NotReady(f"the link {places.UPLINK} has no carrier")
        time.sleep(0.02)


def _nodad(family: int) -> str:
    return " nodad" if family == 6 else ""
