"""Carrying the tests out: a node of the kit's own, the daemon a chain needs, and the groups.

The node has private state directories, so neither the machine's network nor its containers
are touched, and everything on it ends with the run. After each group the node is compared with
what it was before the group: that is the `leaks` group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from weft.lab import calls, libc, nodes, snapshot, wiring
from weft.lab.conformance.case import Case, Failed, Finding, NotApplicable
from weft.lab.conformance.groups import GROUPS
from weft.lab.conformance.station import Sizes, Station
from weft.model.errors import Invalid, WeftError

READY_LIMIT = 30.0
LOG = Path("/run/setup.log")
_HIDDEN = ("/run/", "/etc/cni", "/etc/weft", "/opt/cni", "/var/lib/cni", "/var/lib/weft")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to test. `setup`: a shell command that stays, as a chain's daemon does.

    `count`: containers at once; `frames`: random forged sources a test; `mutants`: damaged
    requests; `limit`: seconds after which an answer to bad input counts as a hang.
    """

    conflist: bytes
    bins: tuple[str, ...]
    setup: str = ""
    only: tuple[str, ...] = ()
    count: int = 16
    frames: int = 64
    mutants: int = 64
    limit: float = 10.0
    families: tuple[int, ...] = (4, 6)
    quiet: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found. `calls`: executions of plugins; `footprint`: what the first attachment
    leaves on the node for good.
    """

    chain: tuple[str, ...]
    version: str
    findings: tuple[Finding, ...]
    footprint: tuple[str, ...] = ()
    calls: int = 0

    @property
    def failed(self) -> int:
        return sum(finding.verdict == "fail" for finding in self.findings)


def conduct(plan: Plan) -> Report:
    """Run the plan on a new node and give everything back."""
    unknown = set(plan.only) - GROUPS.keys()
    if unknown:
        raise Invalid(
            f"there is no group {', '.join(sorted(unknown))}; groups: {', '.join(GROUPS)}",
            field="only",
        )
    nodes.bury("weft-kit")
    reports = [_on_a_new_node(plan, name) for name in GROUPS if not plan.only or name in plan.only]
    return msgspec.structs.replace(
        reports[0],
        findings=tuple(finding for report in reports for finding in report.findings),
        calls=sum(report.calls for report in reports),
    )


def _on_a_new_node(plan: Plan, group: str) -> Report:
    """Run one group; what a plugin breaks on the node is never the next group's trouble."""
    prefix = f"weft-kit-{os.getpid()}"
    keep = [path for path in plan.bins if path.startswith(_HIDDEN)]
    wires = wiring.lay(prefix, tied=True, families=plan.families)
    try:
        node = nodes.start(f"{prefix}-node", tied=True, keep=keep)
        try:
            wiring.connect(wires, node, 0, families=plan.families)
            raw = calls.call(
                node,
                _inside,
                plan,
                group,
                str(wires.outside.network),
                node.pid,
                timeout=3600.0,
            )
        finally:
            nodes.stop(node)
    finally:
        wiring.remove(wires)
    return msgspec.convert(raw, Report)


def _inside(plan: Plan, group: str, outside: str, node: int) -> Any:
    daemon = _launch(plan.setup) if plan.setup else None
    before = snapshot.take()
    station = _ready(plan, outside, node, daemon)
    baseline = snapshot.take()
    _say(plan, f"{group}: {len(GROUPS[group])} tests")
    findings = [judge(test, station) for test in GROUPS[group]]
    findings.append(_leaks(group, baseline))
    report = Report(
        chain=tuple(plugin["type"] for plugin in station.runtime.plugins),
        version=station.runtime.version,
        findings=tuple(findings),
        footprint=tuple(snapshot.diff(before, baseline)),
        calls=station.calls,
    )
    return msgspec.to_builtins(report)


def _say(plan: Plan, text: str) -> None:
    if not plan.quiet:
        print(text, file=sys.stderr, flush=True)


def _launch(command: str) -> subprocess.Popen[bytes]:
    with LOG.open("wb") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # a kit that is killed takes its daemon along
            preexec_fn=lambda: libc.die_with_parent(signal.SIGKILL),  # noqa: PLW1509
        )


def _ready(plan: Plan, outside: str, node: int, daemon: subprocess.Popen[bytes] | None) -> Station:
    """The station once an ADD and DEL have worked; with a daemon, tried until the limit."""
    deadline = time.monotonic() + (READY_LIMIT if daemon else 0.0)
    bins = [Path(path) for path in plan.bins]
    sizes = Sizes(count=plan.count, frames=plan.frames, mutants=plan.mutants, limit=plan.limit)
    while True:
        try:
            station = Station(
                plan.conflist,
                bins,
                sizes=sizes,
                outside=Path(outside),
                node=Path(f"/proc/{node}/ns/net"),
            )
            station.warm_up()
            return station
        except (Failed, Invalid) as unready:
            ended = daemon is not None and daemon.poll() is not None
            if ended or time.monotonic() > deadline:
                said = LOG.read_text(errors="replace")[-1500:] if daemon else ""
                raise WeftError(
                    f"the chain does not attach a container, so there is nothing to test: "
                    f"{unready}\n{said}".rstrip()
                ) from unready
            time.sleep(0.2)


def judge(test: Case, station: Station) -> Finding:
    """Run one test and say how it ended."""
    began = time.monotonic()
    verdict: str
    try:
        test.run(station)
        verdict, reason = "pass", ""
    except NotApplicable as without:
        verdict, reason = "not applicable", str(without)
    except Failed as evidence:
        verdict, reason = "fail", str(evidence)
    except WeftError as broken:
        verdict, reason = "fail", f"the test could not go on: {broken}"
    except Exception as odd:  # an answer of unforeseen shape breaks the test's code: its failure
        verdict, reason = "fail", f"an answer of unforeseen shape: {type(odd).__name__}: {odd}"
    took = time.monotonic() - began
    _sweep()
    return msgspec.convert(
        {
            "id": test.id,
            "title": test.title,
            "spec": test.spec,
            "verdict": verdict,
            "reason": reason,
            "seconds": round(took, 3),
        },
        Finding,
    )


def _sweep() -> None:
    """Links that a misled plugin put on the node itself must not spoil the next test."""
    for name in ("cnf0", "kit-marker"):
        with suppress(OSError):
            if Path("/sys/class/net", name).exists():
                subprocess.run(["ip", "link", "del", name], capture_output=True, timeout=5)


def _leaks(group: str, before: snapshot.Snapshot) -> Finding:
    began = time.monotonic()
    lines = snapshot.settled(before, snapshot.take)
    shown = "; ".join(line[:200] for line in lines[:3])
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    return Finding(
        id=f"leaks.{group}",
        title=f"the node after group {group} is as before it",
        spec="Invariant I",
        verdict="fail" if lines else "pass",
        reason=shown + more,
        seconds=round(time.monotonic() - began, 3),
    )


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """How many passed, failed and did not apply."""
    kinds = ("pass", "fail", "not applicable")
    return {kind: sum(f.verdict == kind for f in findings) for kind in kinds}
