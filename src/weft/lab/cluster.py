"""A lab of nodes with real agents: made by `weft lab up`, found again by its state file.

    /run/weft-lab/NAME/lab.json     what there is; written before it is made, so that `down`
                                    cleans up after a crash as well

A node starts empty, gets an uplink, the launcher, the configuration list and settings, and
then an agent of its own that keeps its state inside the node. Pods are attached by executing
the launcher through the CNI protocol, as a runtime does; nothing talks to the agent otherwise.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from weft.cni.install import DEFAULT_CONFLIST, place_launcher, write_conflist
from weft.lab import calls, entering, nodes, wiring
from weft.lab.nodes import CLEAN_PATH, Node
from weft.lab.runtime import Attachment, Runtime
from weft.lab.wiring import Wires
from weft.model.errors import Conflict, Invalid, NotFound, NotReady, WeftError

STATE = Path("/run/weft-lab")
BINS = Path("/opt/cni/bin")
CONFLIST = Path("/etc/cni/net.d/10-weft.conflist")
SETTINGS = Path("/etc/weft/weft.yaml")
AGENT_LOG = Path("/run/weft-agent.log")
AGENT_SOCKET = Path("/run/weft/agent.sock")
CACHE = Path("/var/lib/cni/results")
READY_LIMIT = 20.0
Families = Literal["ipv4", "ipv6", "dual"]


class LabPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: its name within the node, its container ID, its addresses without lengths."""

    name: str
    container: str
    addresses: tuple[str, ...]


class LabNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node and its pods."""

    node: Node
    index: int
    pods: tuple[LabPod, ...] = ()

    @property
    def name(self) -> str:
        return f"n{self.index + 1}"


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """All of a lab. Parts that are not made yet are absent."""

    name: str
    families: Families = "dual"
    bridge: bool = False  # pods are on a bridge of their node
    wires: Wires | None = None
    nodes: tuple[LabNode, ...] = ()


def _file(name: str) -> Path:
    if not name or not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 32:
        raise Invalid(f"{name!r} is no name for a lab: letters, digits and -", field="name")
    return STATE / name / "lab.json"


def _save(lab: Lab) -> Lab:
    path = _file(lab.name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_bytes(msgspec.json.encode(lab))
    fresh.replace(path)
    return lab


def load(name: str) -> Lab:
    """The lab of that name; NotFound when there is none."""
    try:
        return msgspec.json.decode(_file(name).read_bytes(), type=Lab)
    except FileNotFoundError:
        raise NotFound(f"there is no lab {name!r}; make one with `weft lab up`") from None


def up(
    name: str, *, nodes_: int = 1, pods: int = 2, families: Families = "dual", bridge: bool = False
) -> Lab:
    """Make a lab. Whatever fails on the way, nothing of it is left."""
    if _file(name).exists():
        raise Conflict(f"lab {name!r} exists already; `weft lab down --name {name}` removes it")
    lab = _save(Lab(name=name, families=families, bridge=bridge))
    conflist = on_bridge() if bridge else DEFAULT_CONFLIST
    wanted = wiring.FAMILIES[families]
    try:
        wires = wiring.lay(name, tied=False, families=wanted)
        lab = _save(msgspec.structs.replace(lab, wires=wires))
        for index in range(nodes_):
            node = nodes.start(f"{name}-n{index + 1}", tied=False)
            lab = _with(lab, LabNode(node=node, index=index))
            wiring.connect(wires, node, index, families=wanted)
            start_agent(node, settings(families), conflist)
            for number in range(pods):
                attached = attach(node, f"p{number + 1}", conflist=conflist)
                last = lab.nodes[-1]
                lab = _with(lab, msgspec.structs.replace(last, pods=(*last.pods, attached)))
    except BaseException:
        down(name)
        raise
    return lab


def _with(lab: Lab, node: LabNode) -> Lab:
    others = tuple(other for other in lab.nodes if other.index != node.index)
    return _save(msgspec.structs.replace(lab, nodes=(*others, node)))


def down(name: str) -> None:
    """Give a lab back, also one that was half made; the state file goes last.

    What is stopped are the holders that run, not those that were recorded: a crash may have
    come between making one and writing it down.
    """
    load(name)
    pattern = rf"{re.escape(name)}-(n[0-9]+|switch|outside)"
    for holder in nodes.running(pattern):
        nodes.stop(holder)
    nodes.sweep(pattern)
    path = _file(name)
    path.unlink()
    path.parent.rmdir()
    if not any(STATE.iterdir()):
        STATE.rmdir()


def settings(families: Families) -> str:
    """The agent's settings file for a lab of these families."""
    on = wiring.FAMILIES[families]
    lines = [f"  ipv{family}: {'auto' if family in on else 'off'}\n" for family in (4, 6)]
    return "network:\n" + "".join(lines)


def on_bridge() -> bytes:
    """The list of `weft install`, for containers on bridges."""
    content = msgspec.json.decode(DEFAULT_CONFLIST)
    content["plugins"][0]["mode"] = "bridge"
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _install(text: str, conflist: bytes = DEFAULT_CONFLIST) -> None:
    """Runs inside the node."""
    place_launcher(BINS)
    write_conflist(CONFLIST, conflist)
    SETTINGS.write_text(text)


def agent_command() -> list[str]:
    """How an agent is started with this interpreter and this installation."""
    return [sys.executable, "-m", "weft.main", "agent"]


_started: list[Any] = []
"""Agents that this process started: children that nobody waits for while their node lives."""


@atexit.register
def _reap() -> None:
    """Wait for the agents whose nodes have ended."""
    _started[:] = [child for child in _started if child.poll() is None]


def start_agent(node: Node, text: str = "", conflist: bytes = DEFAULT_CONFLIST) -> int:
    """Install launcher, list and settings, start an agent, wait until it serves; its pid."""
    calls.call(node, _install, text, conflist)
    child = launch_agent(node)
    deadline = time.monotonic() + READY_LIMIT
    while not _serves(node):
        ended = child.poll() is not None
        if ended or time.monotonic() > deadline:
            child.kill()
            child.wait()
            said = node.path(AGENT_LOG).read_text(errors="replace")[-1500:]
            raise NotReady(f"the agent of lab node {node.name} does not serve:\n{said}")
        time.sleep(0.02)
    return int(child.pid)


def launch_agent(node: Node) -> Any:
    """Start an agent where all is installed, as subprocess.Popen; whether it serves is another
    question."""
    _reap()
    environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with node.path(AGENT_LOG).open("ab") as log:
        child = node.popen(
            agent_command(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started.append(child)
    return child


def _serves(node: Node) -> bool:
    if not node.path(AGENT_SOCKET).exists():
        return False
    return runtime(node).status().is_good


def runtime(node: Node, conflist: bytes = DEFAULT_CONFLIST) -> Runtime:
    """A container runtime on the node, driven from here."""
    return Runtime(
        conflist,
        (BINS,),
        spawn=node.run,
        cache=node.path(CACHE),
        root=node.path("/"),
    )


def attach(
    node: Node, pod: str, *, container: str = "", conflist: bytes = DEFAULT_CONFLIST
) -> LabPod:
    """A pod: a namespace on the node, attached through the CNI protocol."""
    calls.call(node, create, pod)
    wanted = Attachment(
        container=container or f"{node.name}-{pod}",
        netns=f"/run/netns/{pod}",
        args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={pod}",
    )
    driver = runtime(node, conflist)
    outcome = driver.add(wanted)
    if not outcome.is_good:
        driver.delete(wanted)
        calls.call(node, remove, pod)
        raise WeftError(f"pod {pod} of {node.name} could not be attached: {outcome.failure}")
    given = tuple(ip["address"].split("/")[0] for ip in (outcome.result or {}).get("ips", ()))
    return LabPod(name=pod, container=wanted.container, addresses=given)


def detach(node: Node, pod: LabPod) -> None:
    """DEL and removal of the namespace."""
    gone = Attachment(container=pod.container, netns=f"/run/netns/{pod.name}")
    outcome = runtime(node).delete(gone)
    calls.call(node, remove, pod.name)
    if not outcome.is_good:
        raise WeftError(f"pod {pod.name} of {node.name} could not be detached: {outcome.failure}")


def create(pod: str) -> None:
    """A pod's namespace; runs inside the node."""
    entering.create(Path("/run/netns", pod))


def remove(pod: str) -> None:
    """The end of a pod's namespace; runs inside the node."""
    entering.remove(Path("/run/netns", pod))


def execute(lab: Lab, place: str, argv: Sequence[str]) -> int:
    """Run a command at `n1`, `n1/p2`, `switch` or `outside`, on the caller's terminal."""
    node, pod = locate(lab, place)
    try:
        child = node.popen(list(argv), pod=pod, env=dict(os.environ))
    except FileNotFoundError:
        raise NotFound(f"there is no command {argv[0]!r} at {place}") from None
    return int(child.wait())


def locate(lab: Lab, place: str) -> tuple[Node, str | None]:
    """The node, and the pod of it, that a place's name means."""
    name, _, pod = place.partition("/")
    if lab.wires is not None and not pod and name in ("switch", "outside"):
        return (lab.wires.switch if name == "switch" else lab.wires.outside), None
    for entry in lab.nodes:
        if entry.name == name and (not pod or pod in {p.name for p in entry.pods}):
            return entry.node, pod or None
    places = ["outside", "switch"]
    for entry in lab.nodes:
        places += [entry.name, *(f"{entry.name}/{p.name}" for p in entry.pods)]
    raise NotFound(f"lab {lab.name!r} has no {place!r}; it has {', '.join(places)}")
