"""What kernel tests stand on: lab nodes, pods, and a guard over the machine's own namespace.

`node` is an empty node behind an uplink, `agent_node` one with launcher, configuration list and
a running agent. Both are given back whatever happens. The guard compares the machine before
and after each module, so a test that leaks names itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count as counter
from pathlib import Path

import pytest
from launching import Launcher

from weft.lab import calls, cluster, entering, nodes, snapshot, wiring
from weft.lab.cluster import LabPod
from weft.lab.nodes import Node
from weft.lab.wiring import Wires

_number = counter(1)


@pytest.fixture(scope="module", autouse=True)
def _machine_is_left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    before = snapshot.take()
    yield
    left = snapshot.settled(before, snapshot.take)
    assert not left, f"{request.module.__name__} changed the machine itself:\n" + "\n".join(left)


@pytest.fixture
def wires() -> Iterator[Wires]:
    """A switch and an outside host."""
    made = wiring.lay(f"test-{os.getpid()}-{next(_number)}", tied=True)
    try:
        yield made
    finally:
        wiring.remove(made)


@pytest.fixture
def new_node(wires: Wires) -> Iterator[Callable[[], Node]]:
    """A factory of empty nodes, each with an uplink."""
    with ExitStack() as stack:
        indexes = counter(0)

        def make() -> Node:
            index = next(indexes)
            made = nodes.start(f"{wires.switch.name.removesuffix('switch')}n{index + 1}")
            stack.callback(nodes.stop, made)
            wiring.connect(wires, made, index)
            return made

        yield make


@pytest.fixture
def node(new_node: Callable[[], Node]) -> Node:
    """An empty lab node: uplink, private files, no agent."""
    return new_node()


@pytest.fixture
def agent_node(node: Node) -> Node:
    """A lab node whose agent serves."""
    cluster.start_agent(node)
    return node


@pytest.fixture
def bare_pod(node: Node) -> Callable[[str], Path]:
    """A factory of namespaces on `node` that nothing is attached to; they end with the node."""

    def make(name: str) -> Path:
        calls.call(node, lambda: str(entering.create(Path("/run/netns", name))))
        return node.pod_network(name)

    return make


@pytest.fixture
def new_pod(agent_node: Node) -> Iterator[Callable[[str], LabPod]]:
    """A factory of pods of `agent_node`, attached through the CNI protocol."""
    with ExitStack() as stack:

        def make(name: str) -> LabPod:
            pod = cluster.attach(agent_node, name)
            stack.callback(cluster.detach, agent_node, pod)
            return pod

        yield make


@pytest.fixture(scope="module", params=[False, True], ids=["static", "sanitized"])
def compiled(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    """The launcher, compiled as it is shipped and once more with sanitizers."""
    launcher = Launcher(sanitize=request.param)
    yield launcher
    launcher.remove()


@pytest.fixture
def launcher(compiled: Launcher) -> Launcher:
    """The same, with directories as they were at first."""
    compiled.clear()
    return compiled
