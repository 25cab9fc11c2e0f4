"""One execution of a CNI plugin, and the record of it.

Apart from `runtime` because black-box tests execute plugins in ways that no runtime would:
without variables, with broken input, many at once.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from weft.lab.nodes import CLEAN_PATH
from weft.model.errors import NotFound


class Spawn(Protocol):
    """Runs a program to its end somewhere: on this side, or inside a lab node."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]: ...


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What went into a plugin and what came out. `status` None: killed at the time limit."""

    plugin: str
    env: dict[str, str]
    stdin: bytes
    stdout: bytes = b""
    stderr: bytes = b""
    status: int | None
    seconds: float

    @property
    def verb(self) -> str:
        return self.env.get("CNI_COMMAND", "")

    @property
    def json(self) -> dict[str, Any] | None:
        """Standard output when it is exactly one JSON object, else None."""
        return one_object(self.stdout)

    @property
    def code(self) -> int | None:
        """The error code that was answered."""
        code = (self.json or {}).get("code")
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.status is None:
            return f"{self.plugin} {self.verb}: no answer within {self.seconds:.0f} s"
        said = (self.json or {}).get("msg") or self.stderr.decode(errors="replace").strip()
        details = (self.json or {}).get("details") or ""
        code = f" code {self.code}" if self.code is not None else ""
        return f"{self.plugin} {self.verb}: exit {self.status}{code} {said} {details}"[:400].strip()


def one_object(output: bytes) -> dict[str, Any] | None:
    """The JSON object that the output is, None where it is anything else."""
    try:
        found = json.loads(output)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def find(kind: str, bins: Sequence[Path], root: Path = Path("/")) -> Path:
    """The plugin's executable: the first regular file of that name in the path's order.

    `root`: where the plugins' file tree is, as the caller sees it.
    """
    for directory in bins:
        if (root / str(directory).lstrip("/") / kind).is_file():
            return directory / kind
    places = ", ".join(str(path) for path in bins)
    raise NotFound(f"there is no plugin {kind!r} in {places}; give its directory with --bin")


def local(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    """Spawn on this side, in the calling thread's network namespace."""
    return subprocess.run(
        list(argv), env=dict(env), input=stdin, capture_output=True, timeout=timeout
    )


def execute(
    spawn: Spawn, program: Path, env: Mapping[str, str], stdin: bytes, timeout: float
) -> Call:
    """Run the plugin; PATH is all that is added to the protocol's variables."""
    began = time.monotonic()
    full = {"PATH": CLEAN_PATH, **env}
    try:
        done = spawn([str(program)], env=full, stdin=stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        took = time.monotonic() - began
        return Call(plugin=program.name, env=dict(env), stdin=stdin, status=None, seconds=took)
    return Call(
        plugin=program.name,
        env=dict(env),
        stdin=stdin,
        stdout=done.stdout,
        stderr=done.stderr,
        status=done.returncode,
        seconds=time.monotonic() - began,
    )
