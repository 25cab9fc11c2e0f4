"""This machine as `weft doctor` sees it: files below one root, others' packet filters, and the
agent's health.

Only reads. The root can be any directory, which is how tests describe machines that they do not
have. What is judged from it: `checks_*.py`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weft.kernel import files
from weft.model.errors import Invalid
from weft.model.listening import Listening, Unix, read_listening
from weft.wire.status import Status

if TYPE_CHECKING:
    from weft.agent.foreign import Survey

PAGE_PATIENCE = 3.0
PAGE_LIMIT = 1 << 20
LARGEST = 64 << 20
"""Octets of a file that are read; /proc/kallsyms has about 15 MiB."""


def look_around() -> Survey:
    """Others' packet filters; only `doctor` pays for the import."""
    from weft.agent.foreign import survey

    return survey()


def page(address: str, path: str) -> tuple[int, str]:
    """Status and text of a page of the agent's endpoint. Raises OSError, also for what is no
    HTTP. (http.client would cost every command 15 ms of imports.)"""
    try:
        where = read_listening(address, "metrics.address")
    except Invalid as error:
        raise OSError(error.message) from error
    if where is None:
        raise OSError("it is off")
    with _connected(where) as peer:
        peer.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        said = b""
        while len(said) < PAGE_LIMIT and (part := peer.recv(65536)):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 3 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("no HTTP is spoken there")
    return int(words[1]), body.decode(errors="replace").strip()


def _connected(where: Listening) -> socket.socket:
    if isinstance(where, Unix):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PAGE_PATIENCE)
        peer.connect(where.path)
        return peer
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104
    return socket.create_connection((host, where.port), timeout=PAGE_PATIENCE)


class Machine:
    """What can be read. `status` is the agent's answer, None where no agent answered."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        status: Status | None = None,
        socket: str = "",
        look: Callable[[], Survey] = look_around,
        now: Callable[[], float] = time.time,
        page: Callable[[str, str], tuple[int, str]] = page,
    ) -> None:
        self.root = root
        self.status = status
        self.socket = socket
        self._look = look
        self._survey: Survey | None = None
        self.now = now
        self.page = page

    def at(self, path: str) -> Path:
        """Where the machine's `path` is."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        """The content of a file, None where there is none or it may not be read; never waits."""
        found = files.glance(self.at(path), LARGEST)
        return None if found is None else found.decode(errors="replace")

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none where there is no such directory."""
        try:
            return sorted(os.listdir(self.at(path)))
        except OSError:
            return []

    def survey(self) -> Survey:
        """What can be seen of others' packet filters; looked for once."""
        if self._survey is None:
            self._survey = self._look()
        return self._survey

    def runs(self, program: str) -> bool:
        """Whether a process of this name runs."""
        return any(
            (self.text(f"/proc/{entry}/comm") or "").strip() == program[:15]
            for entry in self.names("/proc")
            if entry.isdigit()
        )

    def kernel(self) -> str:
        """The kernel's release."""
        return (self.text("/proc/sys/kernel/osrelease") or "").strip()

    def free(self, path: str) -> tuple[int, int] | None:
        """Free octets and files at `path` or the nearest directory above it that exists."""
        place = self.at(path)
        while not place.exists() and place not in (self.root, place.parent):
            place = place.parent
        try:
            found = os.statvfs(place)
        except OSError:
            return None
        files = found.f_favail if found.f_files else 1 << 30  # some file systems count none
        return found.f_bavail * found.f_frsize, files
