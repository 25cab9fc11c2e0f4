"""What is known of a runtime, and the tree of files that it is read from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

NETWORKS = "/etc/cni/net.d"
PLUGINS = "/opt/cni/bin"
"""Where runtimes look that are told nothing else (libcni's and go-cni's defaults)."""
_PROGRAMS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin")


class Tree(Protocol):
    """Files below some root, by the path that they have on the machine."""

    def at(self, path: str) -> Path:
        """Where the machine's `path` is."""

    def text(self, path: str) -> str | None:
        """The content of a file; None where there is none or it cannot be read."""

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none where there is no such directory."""


class Rule(StrEnum):
    """How a runtime chooses among the configurations of its directory."""

    FIRST = "first"  # by name; one that cannot be read stops it: containerd (go-cni)
    VALID = "valid"  # the first that can be read and whose plugins are there: CRI-O (ocicni)
    NAMED = "named"  # lists only, each called by its network's name: podman


class Runtime(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One runtime. `problem`: why its settings cannot be told."""

    name: str
    settings: tuple[str, ...] = ()  # the files they were read from
    plugins: tuple[str, ...]
    networks: str
    rule: Rule = Rule.FIRST
    count: int = 1  # of networks that it attaches a container to; 0: all
    network: str = ""  # the name of the only one it takes, where it is told one
    notes: tuple[str, ...] = ()
    problem: str = ""


def has_program(tree: Tree, name: str) -> bool:
    """Whether a program of this name is where packages put it."""
    return any(name in tree.names(place) for place in _PROGRAMS)


def clean(path: str) -> str:
    """A directory's path without slashes at its end; runtimes' own settings have them."""
    return path.rstrip("/") or "/"
