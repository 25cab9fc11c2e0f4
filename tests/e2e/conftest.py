"""What end-to-end tests of the matrix stand on: a warm host, compared before and after.

`host` has a serving agent that has attached one pod and detached it, so what is made once a node
is there. After the test the agent must have met nothing it did not foresee, and the node must
hold exactly what it held before: Invariant I. As long as that is so, the next test of the file
gets the same host; after a failure it gets a new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count as counter

import pytest

from acceptance import Host, compared, warm
from releases import KeptHost, Laid, lay_present, lay_previous, mark_launcher
from weft.lab import nodes, snapshot, wiring
from weft.lab.snapshot import Snapshot
from weft.lab.wiring import Wires

_number = counter(1)


class Site:
    """Wires, the hosts on them, and the warm host that the last test gave back."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._indexes = counter(0)
        self._wires: Wires | None = None
        self.warm: tuple[Host, Snapshot] | None = None

    def make(self, settings: str = "") -> Host:
        """A host without an agent; `settings` is the text of the settings file."""
        if self._wires is None:
            self._wires = wiring.lay(f"acc-{os.getpid()}-{next(_number)}", tied=True)
            self._stack.callback(wiring.remove, self._wires)
        index = next(self._indexes)
        prefix = self._wires.switch.name.removesuffix("switch")
        node = nodes.start(f"{prefix}n{index + 1}")
        self._stack.callback(nodes.stop, node)
        wiring.connect(self._wires, node, index)
        host = Host(node, self._wires, settings)
        self._stack.callback(host.close)
        return host


@pytest.fixture(scope="module")
def _site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One for all tests of a file; nothing of it may be left on the machine."""
    before = snapshot.take()
    with ExitStack() as stack:
        yield Site(stack)
    left = snapshot.settled(before, snapshot.take)
    assert not left, f"{request.module.__name__} changed the machine itself:\n" + "\n".join(left)


@pytest.fixture
def new_host(_site: Site) -> Iterator[Callable[..., Host]]:
    """A factory of hosts of this test's own, on wires of its own."""
    with ExitStack() as stack:
        yield Site(stack).make


@pytest.fixture
def host(_site: Site) -> Iterator[Host]:
    """A serving, warm host that is compared before and after the test."""
    kept, _site.warm = _site.warm, None
    if kept is None:
        made = _site.make()
        kept = made, warm(made)
    with compared(*kept) as ready:
        yield ready
    _site.warm = kept


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Laid]:
    """The release before this one, with a launcher that differs in any case, and this one."""
    top = tmp_path_factory.mktemp("releases")
    old, said = lay_previous(top / "old")
    if said:
        print(said)
    mark_launcher(old)
    return {"old": old, "new": lay_present(top / "new")}


@pytest.fixture
def new_kept() -> Iterator[Callable[[Laid], KeptHost]]:
    """A factory of nodes whose agent is that of a release, kept as on a machine."""
    with ExitStack() as stack:

        def make(release: Laid) -> KeptHost:
            name = f"kept-{os.getpid()}-{next(_number)}"
            wires = wiring.lay(name, tied=True)
            stack.callback(wiring.remove, wires)
            node = nodes.start(f"{name}-n1")
            stack.callback(nodes.stop, node)
            wiring.connect(wires, node, 0)
            host = KeptHost(node, wires, release)
            stack.callback(host.close)
            host.start()
            return host

        yield make
