"""Benchmark `traffic`: what packets pay on their way, beside what they would pay without weft.

New connections to a published port beside such to the container's own address, from outside, from
another container and from the node itself. Then a stream and requests between two containers of one
node beside two namespaces that are wired by hand: a veth pair each and routes, no packet rule, so
not even connection tracking. A third pair has that, so that its part can be told.

What is compared is time: of one connection, one request, one gigabyte. Client and server are one C
program (`load.c`), pinned alike on all sides: to one processor, where only the work counts, and to
one each, where waking the other counts as well.
"""

from __future__ import annotations

import msgspec

from bench.figures import ratio
from bench.lines import line, peer
from bench.load import HAND, Load, Way
from bench.run import Block, Measure, Run, interleaved, times
from bench.worker import Worker
from weft.lab import entering
from weft.model.errors import WeftError

PORT_TO_OWN = 1 / 0.95
TO_ROUTED = 1 / 0.97
"""Rates of at least 0.95 and 0.97 are times of at most their inverse."""
SECONDS = 0.05
TURNS = 2
"""Of one sample; samples of each side in a round."""
WHAT = {"request": "request", "stream": "gigabyte"}
WHERE = {False: ", one processor", True: ", two processors"}
Sides = dict[str, tuple[Worker, Way]]


def traffic(run: Run) -> None:
    """Published ports first, then containers beside namespaces that are wired by hand."""
    place = run.scene.with_agent((4, 6))
    containers = run.scene.beside(place)
    done = containers.ask("attach", 2, 1, 1)
    if done["failures"]:
        raise WeftError(f"an ADD failed: {done['failures'][0]}")
    load = run.scene.within(place, Load)
    client, server = containers.ask("attached")
    outside = run.scene.outside
    pairs = {name: run.scene.within(run.scene.node(), Load) for name in ("routed", "tracking")}
    hands = {name: made.ask("wire", name == "tracking") for name, made in pairs.items()}
    for version in (4, 6):
        own = next(each for each in place.addresses if (":" in each) == (version == 6))
        ip = server["ips"][str(version)]
        entering.ip_batch(outside, f"route add {ip} via {own}\n")
        starts = {"outside": outside, "another container": client["path"], "the node": entering.OWN}
        for name, origin in starts.items():
            sides = {
                "port": (load, Way(origin, server["path"], ip, own, server["ports"][0])),
                "own": (load, Way(origin, server["path"], ip, ip)),
            }
            _connections(run, f"v{version} from {name}", sides)
        sides = {"weft": (load, Way(client["path"], server["path"], ip, ip))}
        other = HAND[version][1]
        for name, paths in hands.items():
            sides[name] = (pairs[name], Way(*paths, other, other))
        for kind in ("request", "stream"):
            _beside(run, kind, version, sides)
    for worker in (load, *pairs.values()):
        worker.ask("end")
    containers.ask("detach", 1)
    containers.ask("drop")
    run.scene.settle()


def _connections(run: Run, what: str, sides: Sides) -> None:
    for apart in (False, True):
        found = _found(run, "connect", apart, sides, what)
        mine, theirs = found["port"], found["own"]
        run.lines.append(
            line("traffic", f"connection {what} to a published port{WHERE[apart]}", mine,
                 target=PORT_TO_OWN, peer=peer("own address", theirs, ratio(mine, theirs)))
        )  # fmt: skip


def _beside(run: Run, kind: str, version: int, sides: Sides) -> None:
    for apart in (False, True):
        found = _found(run, kind, apart, sides, f"v{version} between containers")
        for subject, name, target in (
            ("weft", "routed", TO_ROUTED),
            ("weft", "tracking", None),
            ("tracking", "routed", None),
        ):
            mine, theirs = found[subject], found[name]
            what = f"{WHAT[kind]} v{version}, {subject}{WHERE[apart]}"
            run.lines.append(
                line("traffic", what, mine, target=target,
                     peer=peer(name, theirs, ratio(mine, theirs)))
            )  # fmt: skip


def _found(
    run: Run, kind: str, apart: bool, sides: Sides, what: str
) -> dict[str, list[list[float]]]:
    """All sides in turn."""

    def measure(worker: Worker, way: Way) -> Measure:
        def once(_: bool) -> Block:
            return {"time": [worker.ask("sample", kind, apart, SECONDS, list(way))]}

        return once

    measures = {name: measure(*side) for name, side in sides.items()}
    for each in measures.values():
        each(True)
    effort = msgspec.structs.replace(run.effort, turns=TURNS)
    found = interleaved(measures, effort, f"{kind} {what}{WHERE[apart]}")
    return {name: times(blocks, "time") for name, blocks in found.items()}
