"""A pod that lies to its neighbours: ARP, neighbour discovery, redirects, DHCP.

A lie must neither arrive at another pod nor change a table of the node or of the other pod.
The stage and the way of proof are in `scene`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from weft.lab import entering, frames, truth
from weft.lab.conformance.case import case, none_of
from weft.lab.conformance.scene import Scene, first, honest, judge, staged
from weft.lab.conformance.station import Pod, Station
from weft.lab.ears import nonce
from weft.lab.wiring import OUTSIDE_V6, node_addresses

Lies = dict[bytes, tuple[str, bytes]]  # mark -> what is claimed, the frame that claims it


def _state(pod: Pod) -> dict[str, object]:
    """What a lie could change: neighbours, routes and addresses of the node and of the victim."""
    seen: dict[str, object] = {}
    for name, network in (("node", entering.OWN), ("pod", str(pod.network))):
        for (dev, address), mac in truth.neighbours(network).items():
            seen[f"{name}: neighbour {address} on {dev}"] = mac
        for family in (4, 6):
            for route in truth.routes(network, family):
                route.pop("expires", None)
                seen[f"{name}: route {route['dst']} {route.get('gateway')} {route['dev']}"] = 1
        for ifname in truth.links(network):
            for address in truth.addresses(network, ifname):
                seen[f"{name}: address {address} on {ifname}"] = 1
    return seen


def _lie(station: Station, family: int, tell: Callable[[Scene], Lies]) -> None:
    """Tell lies to neighbours; neither arrival at the victim nor any effect is accepted."""
    with staged(station, family) as scene:
        honest(scene, family)
        before = _state(scene.victim)
        lies = tell(scene)
        for _, frame in lies.values():
            for _ in range(3):
                scene.mouth.say(frame)
        judge(scene, family, {mark: name for mark, (name, _) in lies.items()})
        after = _state(scene.victim)
        none_of(
            f"{key} is now {value}"
            for key, value in after.items()
            if before.get(key, value) != value or (key not in before and "neighbour" not in key)
        )


def _arp(scene: Scene) -> Lies:
    victim, gateway = first(scene.victim, 4), _gateway(scene, 4)
    lies: Lies = {}
    for claimed in filter(None, (victim, gateway, node_addresses(0)[0])):
        for operation, target, hop in (
            (1, claimed, frames.BROADCAST),
            (2, victim, scene.next_hop[victim]),
        ):
            mark = nonce()
            body = frames.arp(operation, (scene.mac, claimed), (scene.mac, target), mark)
            frame = frames.ethernet(hop, scene.mac, frames.ARP, body)
            word = "request" if operation == 1 else "reply"
            lies[mark] = (f"ARP {word} claiming {claimed}", frame)
    return lies


def _gateway(scene: Scene, family: int) -> str | None:
    routes = truth.routes(scene.attacker.network, family)
    return next((r.get("gateway") for r in routes if r["dst"] == "default"), None)


def _neighbour(scene: Scene) -> Lies:
    victim = first(scene.victim, 6)
    lies: Lies = {}
    for claimed in filter(None, (victim, _gateway(scene, 6), node_addresses(0)[1])):
        for goal, hop in (
            (frames.ALL_NODES, "33:33:00:00:00:01"),
            (victim, scene.next_hop[victim]),
        ):
            mark = nonce()
            packet = frames.neighbour_advertisement(claimed, goal, claimed, scene.mac, mark)
            frame = frames.ethernet(hop, scene.mac, frames.IPV6, packet)
            lies[mark] = (f"neighbour advertisement of {claimed} to {goal}", frame)
    return lies


def _router(scene: Scene) -> Lies:
    lies: Lies = {}
    for source in ("fe80::bad", scene.source(6), _gateway(scene, 6) or "fe80::1"):
        mark = nonce()
        packet = frames.router_advertisement(source, scene.mac, "2001:db8:bad::", mark)
        frame = frames.ethernet("33:33:00:00:00:01", scene.mac, frames.IPV6, packet)
        lies[mark] = (f"router advertisement from {source}", frame)
    return lies


def _redirect(scene: Scene) -> Lies:
    victim, mark = first(scene.victim, 6), nonce()
    source = _gateway(scene, 6) or "fe80::1"
    packet = frames.redirect(source, victim, scene.source(6), OUTSIDE_V6, mark)
    frame = frames.ethernet(scene.next_hop[victim], scene.mac, frames.IPV6, packet)
    return {mark: (f"redirect from {source}", frame)}


def _dhcp(scene: Scene) -> Lies:
    mark, other = nonce(), nonce()
    four = frames.packet(scene.source(4), "255.255.255.255", (67, 68), mark.rjust(300, b"\2"))
    lies = {mark: ("DHCP answer", frames.ethernet(frames.BROADCAST, scene.mac, frames.IPV4, four))}
    if scene.attacker.addresses(6) and scene.victim.addresses(6):
        packet = frames.packet(scene.source(6), frames.ALL_NODES, (547, 546), b"\2" + other)
        frame = frames.ethernet("33:33:00:00:00:01", scene.mac, frames.IPV6, packet)
        lies[other] = ("DHCPv6 answer", frame)
    return lies


CASES = (
    case("spoofing.arp", partial(_lie, family=4, tell=_arp), "RFC 826", "ARP for others"),
    case("spoofing.na", partial(_lie, family=6, tell=_neighbour), "RFC 4861", "NA for others"),
    case("spoofing.ra", partial(_lie, family=6, tell=_router), "CVE-2020-10749", "RA by a pod"),
    case("spoofing.redirect", partial(_lie, family=6, tell=_redirect), "RFC 4861", "redirects"),
    case("spoofing.dhcp", partial(_lie, family=4, tell=_dhcp), "RFC 2131", "a pod as DHCP server"),
)
