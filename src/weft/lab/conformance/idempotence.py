"""Repeats and half states: DEL always succeeds, and a second ADD harms nobody.

Besides the answers, each test looks for what is left on the node: a DEL that succeeds without
removing anything is the fault that this group exists for.
"""

from __future__ import annotations

from pathlib import Path

from weft.lab import entering, snapshot, truth
from weft.lab.conformance.case import Failed, case, none_of, require
from weft.lab.conformance.station import CACHE, Station, promised
from weft.lab.runtime import Attachment, Outcome

_WATCHED = tuple(path for path in snapshot.STATE if path != "/run/netns")


def _left(station: Station, before: snapshot.Snapshot) -> None:
    lines = snapshot.settled(before, lambda: snapshot.take(state=_WATCHED), 2.0)
    none_of((line[:160] for line in lines), limit=2)


def _good(outcome: Outcome, what: str) -> None:
    require(outcome.is_good, f"{what} failed: {outcome.failure}")


def _twice(station: Station) -> None:
    with station.pod() as pod:
        for turn in range(5):
            _good(station.runtime.delete(pod.attachment), f"DEL number {turn + 1}")


def _gone(station: Station) -> None:
    before = snapshot.take(state=_WATCHED)
    with station.pod() as pod:
        entering.remove(pod.network)
        _good(station.runtime.delete(pod.attachment), "DEL after the namespace was removed")
        _left(station, before)


def _emptied(station: Station, netns: str | None) -> None:
    """DEL with CNI_NETNS empty or absent, once the namespace is gone."""
    before = snapshot.take(state=_WATCHED)
    with station.pod() as pod:
        entering.remove(pod.network)
        stored = station.runtime.stored(pod.attachment)
        for plugin in reversed(station.runtime.plugins):
            env = station.runtime.environment("DEL", pod.attachment)
            if netns is None:
                del env["CNI_NETNS"]
            else:
                env["CNI_NETNS"] = netns
            config = station.runtime.config(plugin, pod.attachment, stored)
            call = station.send(plugin, env, config)
            require(call.status == 0, call.summary)
        _left(station, before)


def _empty(station: Station) -> None:
    _emptied(station, "")


def _absent(station: Station) -> None:
    _emptied(station, None)


def _no_previous(station: Station) -> None:
    before = snapshot.take(state=_WATCHED)
    with station.pod() as pod:
        outcome = station.runtime.delete(pod.attachment, previous=False)
        _good(outcome, "DEL without prevResult")
        _left(station, before)


def _unknown(station: Station) -> None:
    with station.pod() as pod:
        stranger = station.fresh()
        _good(station.runtime.delete(stranger), "DEL of an attachment that never was")
        still = truth.addresses(pod.network, pod.attachment.ifname)
        require(set(promised(pod.result)) <= still, "DEL of a stranger took a pod's addresses")


def _other_interface(station: Station) -> None:
    with station.pod() as pod:
        other = Attachment(
            container=pod.attachment.container, netns=pod.attachment.netns, ifname="net9"
        )
        _good(station.runtime.delete(other), "DEL of an interface that never was")
        still = truth.addresses(pod.network, pod.attachment.ifname)
        require(set(promised(pod.result)) <= still, "DEL of net9 took the addresses of eth0")


def _removed_link(station: Station) -> None:
    before = snapshot.take(state=_WATCHED)
    with station.pod() as pod:
        entering.output(pod.network, ["ip", "link", "del", pod.attachment.ifname])
        _good(station.runtime.delete(pod.attachment), "DEL after the interface was removed")
        _left(station, before)


def _add_twice(station: Station) -> None:
    with station.pod() as pod:
        held = truth.addresses(pod.network, pod.attachment.ifname)
        again = station.runtime.add(pod.attachment)
        if again.is_good:
            raise Failed("the second ADD for the same attachment succeeded")
        after = truth.addresses(pod.network, pod.attachment.ifname)
        require(after == held, f"the second ADD changed the addresses from {held} to {after}")
        _good(station.runtime.delete(pod.attachment), "DEL after a refused ADD")


def _failed_add(station: Station) -> None:
    """An ADD that fails late (the interface exists) must leave nothing once DEL has run."""
    before = snapshot.take(state=_WATCHED)
    attachment = station.fresh()
    with station.namespace(attachment) as network:
        entering.ip_batch(network, f"link add {attachment.ifname} type veth peer name other0\n")
        require(not station.runtime.add(attachment).is_good, "ADD over an interface succeeded")
        entering.output(network, ["ip", "link", "del", attachment.ifname])
        _good(station.runtime.delete(attachment), "DEL after a failed ADD")
        _left(station, before)


def _lost_cache(station: Station) -> None:
    before = snapshot.take(state=_WATCHED)
    with station.pod() as pod:
        for path in Path(CACHE).iterdir():
            if pod.attachment.container in path.name:
                path.unlink()
        entering.remove(pod.network)
        _good(station.runtime.delete(pod.attachment), "DEL with neither result nor namespace")
        _left(station, before)


CASES = (
    case("idempotence.del-five", _twice, "2 DEL", "DEL five times succeeds"),
    case("idempotence.del-gone", _gone, "2 DEL", "DEL after the namespace is gone leaves nothing"),
    case("idempotence.del-empty", _empty, "2 DEL", "DEL with empty CNI_NETNS leaves nothing"),
    case("idempotence.del-absent", _absent, "2 DEL", "DEL without CNI_NETNS leaves nothing"),
    case("idempotence.del-bare", _no_previous, "2 DEL", "DEL without prevResult leaves nothing"),
    case("idempotence.del-lost", _lost_cache, "2 DEL", "DEL with neither leaves nothing"),
    case("idempotence.del-unknown", _unknown, "2 DEL", "DEL of a stranger succeeds, harms nobody"),
    case("idempotence.del-other", _other_interface, "3", "DEL of another interface harms nobody"),
    case("idempotence.del-no-link", _removed_link, "2 DEL", "DEL after the link is gone"),
    case("idempotence.add-twice", _add_twice, "2 ADD", "a second ADD fails and changes nothing"),
    case("idempotence.add-failed", _failed_add, "2 ADD", "DEL clears up after a failed ADD"),
)
