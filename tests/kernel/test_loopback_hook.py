"""The hook that leads ::1 to containers: several network namespaces may share one cgroup tree."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

from weft.kernel import bpf
from weft.kernel.loopback_hook import Goal, Hook, Port, remove
from weft.lab import calls
from weft.lab.nodes import Node

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
GOAL = {Port(6, 80): Goal(socket.inet_pton(socket.AF_INET6, "fd00::5"), 80)}


def _attached() -> int:
    """Programs at the hook of connect(2) of the node's cgroup tree, anybody's."""
    found = 0
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if " - cgroup2 " in line and fields[3] == "/":
            root = os.open(fields[4], os.O_RDONLY | os.O_DIRECTORY)
            programs = bpf.attached(root, bpf.CONNECT6)
            found = len(programs)
            for each in (root, *programs):
                os.close(each)
    return found


def _both() -> list[int]:
    counts = [_attached()]
    Hook(GOAL).close()
    counts.append(_attached())
    Hook(GOAL).close()  # an agent that starts again: in the place of the first
    counts.append(_attached())

    def neighbour() -> None:
        assert ctypes.CDLL(None).unshare(NEW_NETWORK) == 0
        Hook(GOAL).close()
        counts.append(_attached())
        remove()
        counts.append(_attached())

    thread = threading.Thread(target=neighbour)
    thread.start()
    thread.join()
    remove()
    counts.append(_attached())
    return counts


def test_each_network_namespace_has_a_hook_of_its_own(node: Node) -> None:
    assert calls.call(node, _both) == [0, 1, 1, 2, 1, 0]
