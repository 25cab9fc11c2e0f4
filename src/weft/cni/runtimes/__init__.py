"""Which runtimes this machine has, where they look for plugins and networks, and what they take.

Only reads, below one root, so that the tree of an image is read like a machine. A further runtime
is one file and one line in `READERS`.

    found       what is known of a runtime, and the tree that it is read from
    settings    TOML, merged as a runtime merges it
    containerd, crio, podman, rancher    one runtime each
    choice      the configurations of a directory, and which of them a runtime takes first

`weft install` and `weft doctor` ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from weft.cni.runtimes import containerd, crio, podman, rancher
from weft.cni.runtimes.found import Runtime, Tree

READERS: tuple[Callable[[Tree], Iterator[Runtime]], ...] = (
    containerd.read,
    crio.read,
    podman.read,
    rancher.read,
)


def find(tree: Tree) -> list[Runtime]:
    """Every runtime of the machine that `tree` shows."""
    return [runtime for reader in READERS for runtime in reader(tree)]
