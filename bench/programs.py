"""Programs of the bench in C, compiled on the node where they run and linked like the launcher."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from weft.model.errors import WeftError

RUN = Path("/run")


def compiled(name: str, source: str) -> str:
    """The path of the program. Raises WeftError with the compiler's words."""
    text, program = RUN / f"{name}.c", RUN / name
    text.write_text(source)
    compiler = shutil.which("musl-gcc") or "gcc"
    done = subprocess.run(
        [compiler, "-static", "-Os", "-Wall", "-Wextra", "-o", str(program), str(text)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise WeftError(f"{name}.c does not compile: {done.stderr[-500:]}")
    return str(program)
