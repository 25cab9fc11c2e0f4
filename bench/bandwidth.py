"""Benchmark `bandwidth`: how near limited containers come to their rates, and what limits cost.

Streams run between the node and one container, one at a time, towards it and from it. What programs
get of a stream is judged, headers not included: of full packets at the rate that is 96.5 % by TCP
over IPv4, 95.2 % over IPv6. A rate counts IP packets (docs/attach.md); what these carry is in the
note. The cost is that of an ADD and a DEL with limits both ways beside the same without.
"""

from __future__ import annotations

from bench.figures import ratio
from bench.lines import line, peer
from bench.run import PATIENCE, Run, interleaved, single, times
from bench.scene import say
from weft.model.bandwidth import format_rate

RATES = (10**6, 10**7, 10**8, 10**9)
COSTED = 10**8
WITHIN = 5.0
"""Percent of the rate asked."""
LONGER = {10**6: 5, 10**7: 2}
"""A TCP stream is counted for so many times longer at low rates: what follows a lost packet counts
as received when that one has come again, and a queue of packets takes long at such a rate."""


def bandwidth(run: Run) -> None:
    """Rates first, the cost after them."""
    place = run.scene.with_agent((4, 6))
    for rate in RATES:
        worker = run.scene.beside(place, ingressRate=rate, egressRate=rate)
        worker.ask("attach", 1, 1)
        for protocol in ("tcp", "udp"):
            for version in (4, 6):
                for inwards in (True, False):
                    way = "to the container" if inwards else "from the container"
                    what = f"{format_rate(rate)} {protocol} v{version} {way}"
                    say(f"bandwidth: {what}")
                    span = run.effort.stream * (LONGER.get(rate, 1) if protocol == "tcp" else 1)
                    said = worker.ask(
                        *("stream", protocol, version, inwards, rate),
                        *(span, run.effort.streams),
                    )
                    _report(run, what, rate, said)
        worker.ask("detach", 1, within=PATIENCE)
        worker.ask("drop")
    _cost(run)


def _report(run: Run, what: str, rate: int, said: list[tuple[float, float]]) -> None:
    """`said`: bits a second of IP packets and of what programs get, of each window."""
    packets, payload = zip(*said, strict=True)
    shown = ", ".join(f"{100 * (each / rate - 1):+.2f} %" for each in packets)
    exact = ", ".join(f"{100 * (each / rate - 1):+.2f} %" for each in payload)
    run.lines.append(
        line("bandwidth", what, [[100 * abs(each / rate - 1) for each in payload]], unit="%",
             target=WITHIN, of_worst=True, note=f"programs get {exact}; IP packets {shown}")
    )  # fmt: skip


def _cost(run: Run) -> None:
    """ADD and DEL with limits beside those without."""
    run.calm()
    rate = COSTED
    limited = run.scene.beside(run.scene.with_agent((4,)), ingressRate=rate, egressRate=rate)
    workers = {"limited": limited, "weft v4": run.side("weft v4")}
    for worker in workers.values():
        worker.ask("prepare", run.effort.rounds * run.effort.turns + 1, within=PATIENCE)
    sides = {name: single(worker) for name, worker in workers.items()}
    for measure in sides.values():
        measure(True)
    found = interleaved(sides, run.effort, "bandwidth: its cost")
    for what, key in (
        ("ADD v4 with limits both ways", "add"),
        ("DEL v4 of it, to the answer", "del"),
        ("DEL v4 of it, until all is gone", "gone"),
    ):
        mine, theirs = times(found["limited"], key), times(found["weft v4"], key)
        run.lines.append(
            line("bandwidth", what, mine, peer=peer("weft v4", theirs, ratio(mine, theirs)),
                 void=run.void)
        )  # fmt: skip
    for worker in workers.values():
        worker.ask("drop")
    run.scene.settle()
