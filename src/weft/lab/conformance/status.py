"""STATUS: silent success on a healthy node, refused where the version has no such verb."""

from __future__ import annotations

from weft.lab import snapshot
from weft.lab.conformance.case import case, none_of, require
from weft.lab.conformance.station import Station


def _healthy(station: Station) -> None:
    station.needs("1.1.0", "STATUS")
    outcome = station.runtime.status()
    require(outcome.is_good, f"STATUS failed on a node that serves ADD: {outcome.failure}")
    noise = [call.plugin for call in outcome.calls if call.stdout.strip()]
    require(not noise, f"STATUS of {', '.join(noise)} prints on success")


def _bare(station: Station) -> None:
    station.needs("1.1.0", "STATUS")
    problems = []
    for plugin in station.runtime.plugins:
        call = station.send(plugin, {"CNI_COMMAND": "STATUS"}, station.runtime.config(plugin))
        if call.status != 0:
            problems.append(call.summary)
    none_of(problems)


def _harmless(station: Station) -> None:
    station.needs("1.1.0", "STATUS")
    before = snapshot.take()
    for _ in range(5):
        station.runtime.status()
    none_of(line[:160] for line in snapshot.settled(before, snapshot.take, 1.0))


CASES = (
    case("status.healthy", _healthy, "2 STATUS", "STATUS succeeds silently on a healthy node"),
    case("status.bare", _bare, "2 STATUS", "STATUS needs no variable but CNI_COMMAND"),
    case("status.harmless", _harmless, "2 STATUS", "STATUS changes nothing"),
)
