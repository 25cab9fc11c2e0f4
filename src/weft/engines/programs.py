"""Running a program of the host: its own directories, no input, a bound on time and output.

Never on the way of a container: a start costs milliseconds, an interpreter's a hundred times that.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from weft.model.errors import PeerFault, Unsupported

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 8.0  # seconds; less than a service manager waits for the agent to stop
LARGEST = 16 << 20  # octets of output that are read as an answer


def find(name: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(name, path=SEARCH)


def run(argv: Sequence[str], *, patience: float = PATIENCE) -> str:
    """What it prints. Raises Unsupported where it is not installed, PeerFault where it fails."""
    program = find(argv[0])
    if program is None:
        raise Unsupported(f"{argv[0]} is not installed")
    shown = " ".join(argv)
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            env={"PATH": SEARCH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerFault(f"`{shown}` did not end within {patience:g} s") from None
    except OSError as error:
        raise PeerFault(f"`{shown}` cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace")
        raise PeerFault(f"`{shown}` failed: {said.strip()[:300]}")
    if len(done.stdout) > LARGEST:
        raise PeerFault(f"`{shown}` printed more than {LARGEST >> 20} MiB")
    return done.stdout.decode(errors="replace")
