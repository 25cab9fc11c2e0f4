"""STATUS, asked as a runtime asks it: by executing the launcher.

So everything on the way is tried, too: the directory's mount options, the launcher, the socket.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

PATIENCE = 20.0
"""Seconds; the launcher itself answers within 10."""


def refusal(launcher: Path) -> str:
    """What stands against attaching containers now; empty where nothing does."""
    conf = {"cniVersion": "1.1.0", "name": "weft", "type": launcher.name}
    environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(launcher.parent)}
    try:
        done = subprocess.run(
            [launcher],
            input=json.dumps(conf).encode(),
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{launcher} cannot be executed: {error}"
    if done.returncode == 0:
        return ""
    try:
        said = json.loads(done.stdout)
        return ": ".join(str(said[key]) for key in ("msg", "details") if said.get(key))
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{launcher} ended with {done.returncode} and said nothing"
