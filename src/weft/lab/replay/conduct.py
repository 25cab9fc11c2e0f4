"""Carrying replays out: a node, the plugins on it, one room a runtime, and what is left behind.

Without further words it is weft that is played to: launcher, list and agent on the node. Another
chain is given by its list, its directory and the command of its daemon, as to the conformance kit.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from weft.cni.install import DEFAULT_CONFLIST
from weft.lab import calls, cluster, entering, nodes, snapshot, truth, wiring
from weft.lab.conformance.case import Finding
from weft.lab.invocation import Call
from weft.lab.nodes import CLEAN_PATH, Node
from weft.lab.replay import room
from weft.lab.replay.player import Player, Scene
from weft.lab.replay.table import PERSONAS
from weft.lab.runtime import Attachment, Outcome, Runtime
from weft.model.errors import Invalid, WeftError

READY_LIMIT = 30.0
_HIDDEN = ("/run/", "/etc/cni", "/etc/weft", "/opt/cni", "/var/lib/cni", "/var/lib/weft")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay against what. Without `conflist` it is weft of this release."""

    runtimes: tuple[str, ...] = ()
    conflist: bytes | None = None
    plugins: str = ""
    setup: str = ""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime's play: its findings, and every execution of a plugin."""

    runtime: str
    findings: tuple[Finding, ...]
    calls: tuple[Call, ...] = ()

    @property
    def failed(self) -> int:
        return sum(finding.verdict == "fail" for finding in self.findings)


def conduct(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> list[Played]:
    """Replay the plan's runtimes, all of them where none is named, on a node that ends with it."""
    unknown = [name for name in plan.runtimes if name not in PERSONAS]
    if unknown:
        raise Invalid(
            f"there is no replay of {', '.join(unknown)}; runtimes: {', '.join(PERSONAS)}",
            field="runtime",
        )
    with stage(plan) as (node, outside):
        scene = scouted(node, outside, plan)
        found = []
        for name in plan.runtimes or PERSONAS:
            tell(name)
            found.append(play(node, name, scene))
        return found


def play(node: Node, name: str, scene: Scene) -> Played:
    """Replay one runtime on a node where the plugins work."""
    raw = calls.call(node, _inside, name, msgspec.to_builtins(scene), timeout=300.0)
    return msgspec.convert(raw, Played)


def _inside(name: str, raw: Any) -> Any:
    """In a process of its own on the node."""
    scene = _own_address(msgspec.convert(raw, Scene), name)
    before = None if scene.patience is None else snapshot.take()
    room.move_in()
    player = Player(PERSONAS[name], scene)
    findings = player.play()
    if before is not None and scene.patience is not None:
        findings.append(_left(name, before, scene.patience))
    made = Played(runtime=name, findings=tuple(findings), calls=tuple(player.executions))
    return msgspec.to_builtins(made)


def _left(name: str, before: snapshot.Snapshot, patience: float) -> Finding:
    began = time.monotonic()
    lines = snapshot.settled(before, snapshot.take, patience)
    return Finding(
        id=f"{name}.left",
        title="the node is as it was",
        spec=PERSONAS[name].title,
        verdict="fail" if lines else "pass",
        reason="; ".join(line[:200] for line in lines[:3]),
        seconds=round(time.monotonic() - began, 3),
    )


def scouted(node: Node, outside: str, plan: Plan) -> Scene:
    """The scene, once an ADD and a DEL have worked in every network, so that what is made once a
    node or a network is there."""
    other = None if plan.conflist is None else _list_of(plan.conflist)
    names = (
        ["weft"] if other is None else sorted({n for p in PERSONAS.values() for n in p.networks})
    )
    deadline = time.monotonic() + (READY_LIMIT if plan.setup else 0.0)
    addresses: list[Any] = []
    for name in names:
        listed = DEFAULT_CONFLIST if other is None else json.dumps({**other, "name": name}).encode()
        bins = (Path(plan.plugins) if plan.plugins else cluster.BINS,)
        outcome = _attached(node, listed, bins)
        while not outcome.is_good:
            if time.monotonic() > deadline:
                raise WeftError(f"the plugins do not attach a container: {outcome.failure}")
            time.sleep(0.2)
            outcome = _attached(node, listed, bins)
        addresses += (outcome.result or {}).get("ips", ())
    return Scene(
        plugins=plan.plugins or str(cluster.BINS),
        list=other,
        free=_further(addresses),
        outside=outside,
    )


def _attached(node: Node, listed: bytes, bins: Sequence[Path]) -> Outcome:
    """What came of an ADD; its DEL has followed."""
    runtime = Runtime(listed, bins, spawn=node.run, cache=node.path("/run"), root=node.path("/"))
    port = {"hostPort": 30800, "containerPort": 80, "protocol": "tcp"}
    wanted = Attachment(
        container="scout", netns="/run/netns/scout", capabilities={"portMappings": [port]}
    )
    calls.call(node, cluster.create, "scout")
    try:
        outcome = runtime.add(wanted)
        calls.call(node, _settle)
        runtime.delete(wanted)
    finally:
        calls.call(node, cluster.remove, "scout")
    return outcome


def _settle() -> None:
    """Wait for duplicate address detection on what a chain makes once; runs inside the node."""
    deadline = time.monotonic() + 4.0
    while truth.is_tentative(entering.OWN) and time.monotonic() < deadline:
        time.sleep(0.05)


def _list_of(raw: bytes) -> dict[str, Any]:
    """A list, also of a single plugin's configuration."""
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise Invalid(f"the list is not JSON: {error}", field="conflist") from error
    if not isinstance(found, dict):
        raise Invalid("the list is not an object", field="conflist")
    listed = found if "plugins" in found else {**found, "plugins": [found]}
    plugins = listed["plugins"]
    named = isinstance(plugins, list) and all(
        isinstance(each, dict) and isinstance(each.get("type"), str) for each in plugins
    )
    if not plugins or not named:
        raise Invalid("the list has no plugins with a type each", field="conflist")
    return listed


def _further(ips: Sequence[Any]) -> str:
    """An IPv4 address some way behind the one that was given; "" where none was."""
    given = next((ip["address"] for ip in ips if ":" not in ip["address"]), "")
    return str(ipaddress.ip_interface(given).ip + 20) if given else ""


def _own_address(scene: Scene, name: str) -> Scene:
    """With an address to ask for that no other runtime of the run has asked for just now."""
    if not scene.free:
        return scene
    own = ipaddress.ip_address(scene.free) + list(PERSONAS).index(name)
    return msgspec.structs.replace(scene, free=str(own))


@contextmanager
def stage(plan: Plan) -> Iterator[tuple[Node, str]]:
    """A node for a plan with what it needs running, and the path of a namespace beyond it."""
    nodes.bury("weft-replay")
    prefix = f"weft-replay-{os.getpid()}"
    keep = [plan.plugins] if plan.plugins.startswith(_HIDDEN) else []
    wires = wiring.lay(prefix, tied=True)
    try:
        node = nodes.start(f"{prefix}-node", tied=True, keep=keep)
        try:
            wiring.connect(wires, node, 0)
            if plan.conflist is None:
                cluster.start_agent(node)
            elif plan.setup:
                _launch(node, plan.setup)
            yield node, str(wires.outside.network)
        finally:
            nodes.stop(node)
    finally:
        wiring.remove(wires)


def _launch(node: Node, command: str) -> None:
    """A chain's daemon; it ends with the node."""
    with node.path("/run/setup.log").open("wb") as log:
        node.popen(
            ["/bin/sh", "-c", command],
            env={**os.environ, "PATH": CLEAN_PATH},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
