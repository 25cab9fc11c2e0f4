"""Attached pods talk: to each other, with their node, and to a host beyond it.

Every test runs for both families where the chain gives both. The packets are as large as the
pod's interface allows, so a wrong MTU is found.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from weft.lab import entering, probes, truth
from weft.lab.conformance.case import NotApplicable, case, none_of
from weft.lab.conformance.station import Pod, Station
from weft.lab.probes import Heard
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses

_OUTSIDE = {4: OUTSIDE_V4, 6: OUTSIDE_V6}
_NODE = dict(zip((4, 6), node_addresses(0), strict=True))


def families(pod: Pod) -> list[int]:
    """The families in which the pod has an address."""
    found = [family for family in (4, 6) if pod.addresses(family)]
    if not found:
        raise NotApplicable("the chain assigns no addresses")
    return found


def _mtu(pod: Pod) -> int:
    return int(truth.links(pod.network)[pod.attachment.ifname]["mtu"])


def _problem(what: str, heard: Heard) -> list[str]:
    return [] if heard.answered else [f"{what}: {heard.why}"]


def _pods(station: Station, probe: Callable[[Pod, Pod, str], Heard]) -> None:
    with station.pods(2) as (one, two):
        problems = []
        for family in families(one):
            for origin, goal in ((one, two), (two, one)):
                address = goal.addresses(family)[0]
                problems += _problem(f"pod to pod by IPv{family}", probe(origin, goal, address))
        none_of(problems)


def _tcp(origin: Pod, goal: Pod, address: str) -> Heard:
    return probes.tcp(origin.network, goal.network, address)


def _udp(origin: Pod, goal: Pod, address: str) -> Heard:
    return probes.udp(origin.network, goal.network, address, size=_mtu(origin))


def _icmp(origin: Pod, goal: Pod, address: str) -> Heard:
    return probes.icmp(origin.network, address, size=_mtu(origin))


def _from_node(station: Station) -> None:
    with station.pod() as pod:
        problems = []
        for family in families(pod):
            heard = probes.tcp(entering.OWN, pod.network, pod.addresses(family)[0])
            problems += _problem(f"node to pod by IPv{family}", heard)
        none_of(problems)


def _to_node(station: Station) -> None:
    with station.pod() as pod:
        problems = []
        for family in families(pod):
            if has_default(pod, family):
                heard = probes.tcp(pod.network, entering.OWN, _NODE[family])
                problems += _problem(f"pod to node by IPv{family}", heard)
        none_of(problems)


def has_default(pod: Pod, family: int) -> bool:
    return any(route["dst"] == "default" for route in truth.routes(pod.network, family))


def _outside(station: Station) -> None:
    with station.pod() as pod:
        routed = [family for family in families(pod) if has_default(pod, family)]
        if not routed:
            raise NotApplicable("the pod has no default route")
        problems = []
        for family in routed:
            goal = _OUTSIDE[family]
            for name, heard in (
                ("TCP", probes.tcp(pod.network, station.outside, goal)),
                ("UDP", probes.udp(pod.network, station.outside, goal, size=_mtu(pod))),
                ("ICMP", probes.icmp(pod.network, goal, size=_mtu(pod))),
            ):
                problems += _problem(f"pod to outside by {name} over IPv{family}", heard)
        none_of(problems)


def _sources(station: Station) -> None:
    """Between pods the source is the pod's own address: nothing is masqueraded on the way."""
    with station.pods(2) as (one, two):
        problems = []
        for family in families(one):
            heard = probes.udp(one.network, two.network, two.addresses(family)[0])
            own = one.addresses(family)
            if not heard.arrived:
                problems.append(f"IPv{family}: {heard.why}")
            elif heard.source not in own:
                problems.append(f"IPv{family}: {own[0]} arrives as {heard.source}")
        none_of(problems)


CASES = (
    case("reachability.tcp", partial(_pods, probe=_tcp), "practice", "pod to pod by TCP"),
    case("reachability.udp", partial(_pods, probe=_udp), "practice", "pod to pod by full-size UDP"),
    case("reachability.icmp", partial(_pods, probe=_icmp), "practice", "pod to pod by ICMP"),
    case("reachability.source", _sources, "practice", "pods see each other's own addresses"),
    case("reachability.from-node", _from_node, "practice", "node to pod"),
    case("reachability.to-node", _to_node, "practice", "pod to node"),
    case("reachability.outside", _outside, "practice", "pod to a host beyond the node and back"),
)
