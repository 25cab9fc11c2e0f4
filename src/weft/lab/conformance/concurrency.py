"""Many containers at once: all succeed, no address twice, nothing left.

A runtime calls in parallel for different containers (specification, section 3); it never does
so for one container, but a plugin must survive it, because restarts of runtimes cause it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from weft.lab import truth
from weft.lab.conformance.case import case, none_of, require
from weft.lab.conformance.station import Station, promised
from weft.lab.runtime import Attachment, Outcome

_WORKERS = 32


def _all(
    action: Callable[[Attachment], Outcome], attachments: Sequence[Attachment]
) -> list[Outcome]:
    with ThreadPoolExecutor(max_workers=min(_WORKERS, len(attachments))) as pool:
        return list(pool.map(action, attachments))


def _failures(what: str, outcomes: Sequence[Outcome]) -> None:
    none_of((f"{what}: {o.failure}" for o in outcomes if not o.is_good), limit=2)


def _parallel(station: Station) -> None:
    attachments = [station.fresh() for _ in range(station.count)]
    before = station.host_links()
    with ExitStack() as stack:
        for attachment in attachments:
            stack.enter_context(station.namespace(attachment))
        outcomes = _all(station.runtime.add, attachments)
        _failures("ADD", outcomes)
        given = Counter(address for o in outcomes for address in promised(o.result or {}))
        none_of(f"{address} was given {n} times" for address, n in given.items() if n > 1)
        for attachment, outcome in zip(attachments, outcomes, strict=True):
            held = truth.addresses(attachment.netns, attachment.ifname)
            missing = set(promised(outcome.result or {})) - held
            require(not missing, f"{attachment.netns} lacks {missing}")
        _failures("DEL", _all(station.runtime.delete, attachments))
        left = station.new_links(before)
        require(not left, f"{len(left)} links are left on the node, {sorted(left)[:3]} among them")


def _mixed(station: Station) -> None:
    """Half of the pods leave while the other half arrive."""
    half = max(2, station.count // 2)
    leaving = [station.fresh() for _ in range(half)]
    arriving = [station.fresh() for _ in range(half)]
    with ExitStack() as stack:
        for attachment in (*leaving, *arriving):
            stack.enter_context(station.namespace(attachment))
        _failures("ADD", _all(station.runtime.add, leaving))
        work: list[tuple[Callable[[Attachment], Outcome], Attachment]]
        work = [(station.runtime.delete, a) for a in leaving]
        work += [(station.runtime.add, a) for a in arriving]
        random.Random(1).shuffle(work)  # noqa: S311 - the same disorder every time
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            outcomes = list(pool.map(lambda item: item[0](item[1]), work))
        _failures("ADD beside DEL", outcomes)
        for attachment in arriving:
            require(truth.is_up(attachment.netns, "eth0"), f"{attachment.netns} has no eth0")


def _same_key(station: Station) -> None:
    """ADD and DEL of one attachment in disorder; the last word is DEL's."""
    attachment = station.fresh()
    before = station.host_links()
    with station.namespace(attachment) as network:
        actions = [station.runtime.add, station.runtime.delete] * max(2, station.count // 8)
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda action: action(attachment), actions))
        outcome = station.runtime.delete(attachment)
        require(outcome.is_good, f"the last DEL failed: {outcome.failure}")
        inside = set(truth.links(network)) - {"lo"}
        require(not inside, f"after the last DEL {inside} is in the namespace")
        left = station.new_links(before)
        require(not left, f"after the last DEL {left} is on the node")
        with station.pod():
            return


def _check_beside(station: Station) -> None:
    station.needs("0.4.0", "CHECK")
    with station.pods(4) as pods, ThreadPoolExecutor(max_workers=8) as pool:
        checked = pool.map(station.runtime.check, [pod.attachment for pod in pods] * 4)
        passing = [station.fresh() for _ in range(4)]
        with ExitStack() as stack:
            for attachment in passing:
                stack.enter_context(station.namespace(attachment))
            _failures("ADD", list(pool.map(station.runtime.add, passing)))
        _failures("CHECK beside ADD", list(checked))


CASES = (
    case("concurrency.parallel", _parallel, "3", "parallel ADD and DEL, every address once"),
    case("concurrency.mixed", _mixed, "3", "arrivals beside departures"),
    case("concurrency.check", _check_beside, "3", "CHECK beside arrivals"),
    case("concurrency.same", _same_key, "3", "one attachment in disorder ends as DEL leaves it"),
)
