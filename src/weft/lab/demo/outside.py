"""The world beyond the node: a namespace on a veth pair that knows the node and nothing else.

    weft-demo-outside                        node
    eth0 192.0.2.2, 2001:db8:77::2   ====    weft-demo0 192.0.2.1, 2001:db8:77::1

It has no route to containers, so an answer proves that the node put its own address in place of
the container's. The ranges are those kept for documentation (RFC 5737, RFC 3849).
"""

from __future__ import annotations

import time
from pathlib import Path

from weft.lab import entering
from weft.lab.demo import places
from weft.lab.demo.record import Record
from weft.model.errors import NotReady

NODE = {4: "192.0.2.1", 6: "2001:db8:77::1"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:77::2"}
RANGE6 = "2001:db8:77::/64"
LENGTH = {4: 30, 6: 64}
CARRIER_WITHIN = 5.0


def families() -> tuple[int, ...]:
    """The families that containers of this machine can speak: IPv6 may be out or switched off."""
    for scope in ("all", "default"):
        off = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if not off.exists() or off.read_text().strip() != "0":
            return (4,)
    return (4, 6)


def build(record: Record) -> Path:
    """Make the outside and its link, the link anew each time; returns the namespace."""
    namespace = places.NETNS / places.OUTSIDE
    record.namespace(namespace)
    record.link(places.UPLINK)
    node = [
        f"link add {places.UPLINK} type veth peer name eth0 netns {places.OUTSIDE}",
        *(f"addr add {NODE[f]}/{LENGTH[f]} dev {places.UPLINK}{_nodad(f)}" for f in families()),
        f"link set {places.UPLINK} up",
    ]
    entering.ip_batch(entering.OWN, "\n".join(node) + "\n")
    there = [
        "link set lo up",
        *(f"addr add {OUTSIDE[f]}/{LENGTH[f]} dev eth0{_nodad(f)}" for f in families()),
        "link set eth0 up",
    ]
    entering.ip_batch(namespace, "\n".join(there) + "\n")
    _wait_for_carrier()
    return namespace


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
