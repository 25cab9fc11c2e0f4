"""A throw-away machine on which `./dev up` may do as it likes.

A lab node with an uplink, plus overlays over the directories that `up` writes and lab nodes do not
need. The checkout and its Python environment are the ones that run the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from weft.lab import calls, nodes, private, snapshot, wiring
from weft.lab.nodes import CLEAN_PATH, Node

CHECKOUT = Path(__file__).resolve().parents[2]
WRITTEN = ("/usr/local", "/usr/lib/cni", "/var/log")
STATE = (*snapshot.STATE, *WRITTEN[1:], "/usr/local/bin", "/opt", "/etc/systemd", "/run/weft-query")
RUNTIMES_GROUPS = ("default", "k8s.io", "libpod_parent")
ENVIRONMENT = {"PATH": CLEAN_PATH, "WEFT_VENV": sys.prefix, "HOME": "/root", "TERM": "dumb"}


def _state() -> dict[str, dict[str, int]]:
    found = {name: dict(items) for name, items in snapshot.take(state=STATE).items()}
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return found | {"mounts": dict(Counter(mounts))}


class Machine:
    """What a test may ask of it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def run(
        self, argv: Sequence[str], *, timeout: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """A command in the checkout, as root of the machine."""
        with self.popen(argv) as child:
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        return subprocess.CompletedProcess(list(argv), child.returncode, out, err)

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """The same, started only; output is captured as text."""
        # entering a mount namespace moves the working directory to its root
        there = ("sh", "-c", 'cd "$0" && exec "$@"', str(CHECKOUT))
        return self.node.popen(
            [*there, *argv],
            env=ENVIRONMENT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def dev(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`./dev ...`"""
        return self.run(["./dev", *arguments])

    def state(self) -> snapshot.Snapshot:
        """Everything that can be compared: kernel, sysctls, files."""
        found = calls.call(self.node, _state)
        return {name: Counter(items) for name, items in found.items()}

    def changes_since(self, before: snapshot.Snapshot) -> list[str]:
        """What differs once the kernel has finished what it does late."""
        return snapshot.settled(before, self.state)


def _wait_for_addresses(node: Node) -> None:
    """Until duplicate address detection of the uplink's link-local address is over (1 to 2 s)."""
    deadline = time.monotonic() + 5
    while node.run(["ip", "-6", "address", "show", "tentative"]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _groups() -> set[Path]:
    """What runtimes make in the hierarchies of cgroup version 1, which all machines share."""
    found = (Path("/sys/fs/cgroup").glob(f"*/{name}") for name in RUNTIMES_GROUPS)
    return {each for several in found for each in several}


def _drop_groups(new: set[Path]) -> None:
    for each in new:
        for top, _, _ in os.walk(each, topdown=False):
            with suppress(OSError):  # another machine's runtime is at work in it
                os.rmdir(top)


@contextmanager
def machine(name: str, *, uplink: bool = True) -> Iterator[Machine]:
    """A machine, with an uplink of both families and default routes, or with none at all."""
    node = nodes.start(f"{name}-{os.getpid()}")
    wires = wiring.lay(f"{name}-{os.getpid()}", tied=True) if uplink else None
    groups = _groups()
    try:
        if wires is not None:
            wiring.connect(wires, node, 0)
            _wait_for_addresses(node)
        calls.call(node, private.hide, WRITTEN)
        yield Machine(node)
    finally:
        nodes.stop(node)
        _drop_groups(_groups() - groups)
        if wires is not None:
            wiring.remove(wires)
