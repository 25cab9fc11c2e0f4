"""CHECK tells the truth: silent after ADD, an error for each kind of damage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from weft.lab import entering, truth
from weft.lab.conformance.case import Case, NotApplicable, case, none_of, require
from weft.lab.conformance.station import Pod, Station, damage, error_problems, promised

Harm = Callable[[Pod], None]


def _sound(station: Station) -> None:
    station.needs("0.4.0", "CHECK")
    with station.pod() as pod:
        for turn in ("first", "second"):
            outcome = station.runtime.check(pod.attachment)
            require(outcome.is_good, f"the {turn} CHECK after ADD failed: {outcome.failure}")
            noise = [c.plugin for c in outcome.calls if c.stdout.strip()]
            require(not noise, f"CHECK of {', '.join(noise)} prints on success")


def _damaged(station: Station, harm: Harm) -> None:
    station.needs("0.4.0", "CHECK")
    with station.pod() as pod:
        harm(pod)
        outcome = station.runtime.check(pod.attachment)
        require(not outcome.is_good, "CHECK did not notice")
        none_of(error_problems(outcome.calls[-1]))


def _detached(station: Station) -> None:
    station.needs("0.4.0", "CHECK")
    with station.pod() as pod:
        stored = station.runtime.stored(pod.attachment)
        require(station.runtime.delete(pod.attachment).is_good, "DEL failed")
        plugin = station.runtime.plugins[0]
        env = station.runtime.environment("CHECK", pod.attachment)
        config = station.runtime.config(plugin, pod.attachment, stored)
        none_of(error_problems(station.send(plugin, env, config)))


def _address(pod: Pod, family: int) -> None:
    found = [a for a in promised(pod.result) if (":" in a) == (family == 6)]
    if not found:
        raise NotApplicable(f"the result has no IPv{family} address")
    damage(pod.network, "addr", "del", found[0], "dev", pod.attachment.ifname)


def _link(pod: Pod) -> None:
    damage(pod.network, "link", "del", pod.attachment.ifname)


def _renamed(pod: Pod) -> None:
    damage(pod.network, "link", "set", pod.attachment.ifname, "down")
    damage(pod.network, "link", "set", pod.attachment.ifname, "name", "other0")
    damage(pod.network, "link", "set", "other0", "up")


def _down(pod: Pod) -> None:
    damage(pod.network, "link", "set", pod.attachment.ifname, "down")


def _route(pod: Pod, family: int) -> None:
    there = truth.routes(pod.network, family)
    if not any(route["dst"] == "default" for route in there):
        raise NotApplicable(f"the pod has no IPv{family} default route")
    promised_here = [r for r in pod.result.get("routes", ()) if (":" in r["dst"]) == (family == 6)]
    if not any(r["dst"] in {"0.0.0.0/0", "::/0"} for r in promised_here):
        raise NotApplicable("the result does not promise the default route")
    damage(pod.network, f"-{family}", "route", "del", "default")


def _mac(pod: Pod) -> None:
    if not any(e.get("mac") and e.get("sandbox") for e in pod.result.get("interfaces", ())):
        raise NotApplicable("the result states no MAC of the container's interface")
    damage(pod.network, "link", "set", pod.attachment.ifname, "address", "02:00:00:aa:bb:cc")


def _host_link(pod: Pod) -> None:
    own = [e["name"] for e in pod.result.get("interfaces", ()) if not e.get("sandbox")]
    veths = [name for name in own if _is_veth(name)]
    if not veths:
        raise NotApplicable("the result lists no veth on the host")
    damage(Path(entering.OWN), "link", "set", veths[-1], "down")


def _is_veth(name: str) -> bool:
    link = truth.links(entering.OWN).get(name, {})
    return bool(link.get("linkinfo", {}).get("info_kind") == "veth")


def _harm(name: str, harm: Harm, title: str) -> Case:
    return case(f"check.{name}", partial(_damaged, harm=harm), "2 CHECK", f"notices {title}")


CASES = (
    case("check.sound", _sound, "2 CHECK", "CHECK succeeds silently after ADD"),
    case("check.detached", _detached, "2 CHECK", "CHECK fails after DEL"),
    _harm("address-4", partial(_address, family=4), "that an IPv4 address is gone"),
    _harm("address-6", partial(_address, family=6), "that an IPv6 address is gone"),
    _harm("link", _link, "that the interface is gone"),
    _harm("renamed", _renamed, "that the interface has another name"),
    _harm("down", _down, "that the interface is down"),
    _harm("route-4", partial(_route, family=4), "that the IPv4 default route is gone"),
    _harm("route-6", partial(_route, family=6), "that the IPv6 default route is gone"),
    _harm("mac", _mac, "that the MAC is another"),
    _harm("host-link", _host_link, "that the host's end is down"),
)
