"""What the node is like now: ways out, MTU, which families work and why not.

Facts are read at start and again after routes, addresses or links have changed; ADD only looks at
the last ones. A fact that takes something away from pods always says why.
"""

from __future__ import annotations

import msgspec

from weft.fabric.wiring import NodeFacts
from weft.kernel import sysctl
from weft.kernel.host import HostView, Network
from weft.model.attachment import LINK_PREFIX
from weft.render.sets import strangers_among

DEFAULT_MTU = 1500


class FamilyState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether pods get addresses of a family, and why."""

    on: bool
    why: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The node at one moment."""

    mtu: int
    mtu_source: str
    ipv4: FamilyState
    ipv6: FamilyState
    way_out4: bool
    way_out4_why: str
    way_out6: bool
    way_out6_why: str
    prefixes: tuple[tuple[Network, str], ...]  # routes and addresses of the host, ours left out
    ways_out: tuple[str, ...]  # links of default routes
    uplink4: str | None = None  # that of the best default route of a family
    uplink6: str | None = None
    strangers: tuple[str, ...]  # foreign links whose name begins like ours
    wiring: NodeFacts


def gather(view: HostView, *, mtu: int | None, ipv4: str, ipv6: str) -> Facts:
    """Facts from a view of the host and the settings (`auto`, `on` or `off` per family)."""
    kernel6 = sysctl.read("net/ipv6/conf/all/disable_ipv6") is not None
    uplink4, uplink6 = _uplink(view, 4), _uplink(view, 6)
    chosen, source = _mtu(view, mtu, uplink4 or uplink6)
    return Facts(
        mtu=chosen,
        mtu_source=source,
        ipv4=FamilyState(on=ipv4 != "off", why=_switched(ipv4)),
        ipv6=_family6(ipv6, kernel6),
        way_out4=uplink4 is not None,
        way_out4_why=_way("IPv4", uplink4),
        way_out6=uplink6 is not None,
        way_out6_why=_way("IPv6", uplink6),
        prefixes=tuple(
            (p.network, p.link) for p in view.prefixes if not p.link.startswith(LINK_PREFIX)
        ),
        ways_out=tuple(way.link for way in view.ways_out),
        uplink4=uplink4,
        uplink6=uplink6,
        strangers=strangers_among(view.skipped),
        wiring=NodeFacts(ipv6_kernel=kernel6),
    )


def _uplink(view: HostView, family: int) -> str | None:
    for way in view.ways_out:
        if way.family == family and not way.link.startswith(LINK_PREFIX):
            return way.link
    return None


def _way(family: str, uplink: str | None) -> str:
    if uplink is not None:
        return f"default route by {uplink}"
    return f"the node has no {family} default route"


def _mtu(view: HostView, wanted: int | None, uplink: str | None) -> tuple[int, str]:
    if wanted is not None:
        return wanted, "settings"
    for link in view.links:
        if link.name == uplink and 68 <= link.mtu <= 65535:
            return link.mtu, f"link {uplink}"
    return DEFAULT_MTU, "default, as there is no default route"


def _switched(setting: str) -> str:
    return {"on": "switched on by settings", "off": "switched off by settings"}.get(setting, "")


def _family6(setting: str, kernel6: bool) -> FamilyState:
    if setting == "off":
        return FamilyState(on=False, why=_switched("off"))
    if not kernel6:
        return FamilyState(on=False, why="the kernel has no IPv6")
    for name in ("all", "default"):
        if sysctl.read(f"net/ipv6/conf/{name}/disable_ipv6") == "1":
            return FamilyState(on=False, why=f"IPv6 is off on the host (net.ipv6.conf.{name})")
    return FamilyState(on=True, why=_switched(setting))
