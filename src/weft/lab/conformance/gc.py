"""GC: what is not in the list goes, what is in it stays, and the list's absence is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from weft.lab import entering, snapshot, truth
from weft.lab.conformance.case import case, none_of, require
from weft.lab.conformance.station import Pod, Station, error_problems, promised
from weft.lab.runtime import Attachment

KEY = "cni.dev/valid-attachments"
OLD_KEY = "cni.dev/attachments"


@contextmanager
def _live_and_leaked(station: Station) -> Iterator[tuple[Pod, Pod, snapshot.Snapshot]]:
    """A pod that lives, a pod whose namespace died without DEL, and the node between both."""
    station.needs("1.1.0", "GC")
    with station.pod() as live:
        before = snapshot.take()
        with station.pod() as leaked:
            entering.remove(leaked.network)
            yield live, leaked, before


def _collect(station: Station, keys: Mapping[str, Sequence[Attachment]]) -> None:
    outcome = station.runtime.collect(keys)
    require(outcome.is_good, f"GC failed: {outcome.failure}")
    noise = [call.plugin for call in outcome.calls if call.stdout.strip()]
    require(not noise, f"GC of {', '.join(noise)} prints on success")


def _is_alive(pod: Pod) -> None:
    held = truth.addresses(pod.network, pod.attachment.ifname)
    require(set(promised(pod.result)) <= held, "GC took the addresses of an attachment to keep")


def _split(station: Station, key: str) -> None:
    with _live_and_leaked(station) as (live, leaked, before):
        _collect(station, {key: [live.attachment]})
        _is_alive(live)
        left = snapshot.settled(before, snapshot.take, 2.0)
        none_of((f"left: {line[:160]}" for line in left), limit=2)
        del leaked


def _union(station: Station) -> None:
    station.needs("1.1.0", "GC")
    with station.pods(2) as (one, two):
        _collect(station, {KEY: [one.attachment], OLD_KEY: [two.attachment]})
        _is_alive(one)
        _is_alive(two)


def _empty(station: Station) -> None:
    station.needs("1.1.0", "GC")
    before = snapshot.take()
    with station.pods(2) as pods:
        for pod in pods:
            entering.remove(pod.network)
        _collect(station, {KEY: []})
        left = snapshot.settled(before, snapshot.take, 2.0)
        none_of((f"left: {line[:160]}" for line in left), limit=2)


def _neither(station: Station) -> None:
    station.needs("1.1.0", "GC")
    with station.pod() as pod:
        outcome = station.runtime.collect({})
        _is_alive(pod)
        none_of(p for call in outcome.calls for p in error_problems(call, (7,)))


def _other_network(station: Station) -> None:
    station.needs("1.1.0", "GC")
    with station.pod() as pod:
        other = station.at(None)
        other.network = "kit-other-network"
        outcome = other.collect({KEY: []})
        require(outcome.is_good, f"GC failed: {outcome.failure}")
        _is_alive(pod)


def _repeat(station: Station) -> None:
    station.needs("1.1.0", "GC")
    with station.pod() as pod:
        before = snapshot.take()
        for _ in range(3):
            _collect(station, {KEY: [pod.attachment]})
        _is_alive(pod)
        none_of(line[:160] for line in snapshot.settled(before, snapshot.take, 1.0))


CASES = (
    case("gc.leaked", partial(_split, key=KEY), "2 GC", "the leaked go, the live stay"),
    case("gc.old-key", partial(_split, key=OLD_KEY), "libcni", "the same by the key's older name"),
    case("gc.union", _union, "libcni", "with both keys their union stays"),
    case("gc.empty", _empty, "2 GC", "an empty list removes everything of the network"),
    case("gc.neither", _neither, "2 GC", "without either key: code 7 and nothing removed"),
    case("gc.other", _other_network, "2 GC", "another network's GC removes nothing of ours"),
    case("gc.repeat", _repeat, "2 GC", "GC with nothing to do changes nothing"),
)
