"""Running a CNI plugin of somebody else's, as libcni does: variables, standard input, one verb.

Only programs that root alone can have written, found by a plain name in directories of root's: what
is asked for came out of a file. A plugin that does not end is killed with what it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from weft.engines.programs import SEARCH
from weft.kernel import files
from weft.model.errors import PeerFault, Unsupported

SAID = 300
"""Characters of a plugin's error that are told."""


def find(name: str, directories: Sequence[str]) -> Path:
    """The plugin's path: the first that is there. Raises Unsupported where there is none, and
    Conflict where somebody else than root could have written it."""
    if not name or "/" in name or name in (".", ".."):
        raise Unsupported(f"{name[:40]!a} is not the name of a plugin")
    for directory in directories:
        path = Path(os.path.realpath(Path(directory, name)))
        if path.is_file():
            files.check_directory(path.parent)
            files.check_file(path, names=None)
            return path
    raise Unsupported(f"the plugin {name} is in none of {', '.join(directories) or 'no directory'}")


def call(
    program: Path, variables: Mapping[str, str], conf: Mapping[str, object], *, patience: float
) -> None:
    """Run it with these CNI_ variables and this configuration. Raises PeerFault with what it says,
    also where it does not end within `patience` seconds."""
    try:
        child = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": SEARCH, **variables},
            cwd="/",
            umask=0o022,  # as where runtimes run; its files are not ours
            start_new_session=True,
        )
    except OSError as error:
        raise PeerFault(f"{program} cannot be started: {error.strerror}") from error
    try:
        out, err = child.communicate(msgspec.json.encode(conf), timeout=patience)
    except subprocess.TimeoutExpired:
        raise PeerFault(f"{program} did not end within {patience:.0f} s") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        # not until their end: what has left the plugin's session may hold them for ever
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with suppress(OSError):  # closing writes what the plugin has not read
                    pipe.close()
    if child.returncode:
        raise PeerFault(f"{program} failed: {_said(out, err)}")


def _said(out: bytes, err: bytes) -> str:
    """A plugin's error object, or what it wrote otherwise."""
    with suppress(ValueError, AttributeError):
        told = json.loads(out)
        words = ": ".join(str(told[key]) for key in ("msg", "details") if told.get(key))
        if words:
            return words[:SAID]
    return (err or out).decode(errors="replace").strip()[:SAID] or "it said nothing"
