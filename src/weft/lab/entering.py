"""Being in another network namespace for the length of a `with` block.

The kernel keeps the network namespace per thread, so one process can hold sockets of many pods:
open them inside the block and use them outside of it. A child process inherits the namespace of
the thread that starts it. Mount namespaces belong to the whole process: see `calls`.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from weft.lab import libc
from weft.model.errors import KernelRefused, WeftError

OWN = "/proc/thread-self/ns/net"


@contextmanager
def network(path: str | Path) -> Iterator[None]:
    """Run the block in the network namespace at `path`, and come back whatever happens."""
    back = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(there, libc.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            libc.setns(back, libc.CLONE_NEWNET)
    finally:
        os.close(back)


def socket_in(path: str | Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in the namespace at `path`."""
    with network(path):
        return socket.socket(family, kind, protocol)


def output(path: str | Path, argv: Sequence[str]) -> str:
    """What a command prints inside the namespace at `path`; WeftError when it fails."""
    with network(path):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise WeftError(f"`{' '.join(argv)}` failed in {path}: {done.stderr.strip()}")
    return done.stdout


def ip_batch(path: str | Path, lines: str) -> None:
    """Run several `ip` commands in one process inside the namespace at `path`."""
    with network(path):
        done = subprocess.run(
            ["ip", "-batch", "-"], input=lines, capture_output=True, text=True, timeout=20
        )
    if done.returncode != 0:
        raise WeftError(f"setting up the links of {path} failed: {done.stderr.strip()}")


def create(path: Path) -> Path:
    """A new network namespace, held by a bind mount on `path`; loopback is left down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(exist_ok=False)
    back = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(libc.CLONE_NEWNET)
        try:
            libc.mount(OWN, str(path), "", libc.MS_BIND)
        finally:
            libc.setns(back, libc.CLONE_NEWNET)
    except KernelRefused:
        path.unlink()
        raise
    finally:
        os.close(back)
    return path


def remove(path: Path) -> None:
    """Give a namespace made by `create` back; what is already gone is not an error."""
    with suppress(KernelRefused):
        libc.unmount(str(path))
    path.unlink(missing_ok=True)
