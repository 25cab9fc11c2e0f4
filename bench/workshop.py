"""Benchmark `up`, on request: from `./dev up` to two containers that talk, cold and warm.

Works on a copy of the checkout. Its Python environment is made on the machine, which has the
network that pip needs; `up` itself runs on a lab node that takes everything the demo writes. The
cold figure is the sum of both. Packages of Debian that are missing count as well, so on a fresh
machine it is the whole way from a clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.lines import line
from bench.run import Run
from bench.scene import Place, say
from weft.lab import calls, private
from weft.lab.nodes import CLEAN_PATH
from weft.model.errors import WeftError

CHECKOUT = Path(__file__).resolve().parents[1]
WRITTEN = ("/usr/local", "/usr/lib/cni", "/var/log")
COLD_WITHIN = 120.0
WARM_WITHIN = 10.0
PATIENCE = 600.0
_LEFT_OUT = (".git", ".venv", "build", "dist", "__pycache__")
_ENVIRONMENT = {"PATH": CLEAN_PATH, "HOME": "/root", "TERM": "dumb", "LANG": "C.UTF-8"}


def up(run: Run) -> None:
    """Cold once, then warm a few times, with a `down` after each."""
    place = run.scene.node()
    calls.call(place.node, private.hide, WRITTEN)
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as directory:
        checkout = Path(directory, "checkout")
        _copy(checkout)
        say("up: cold")
        begin = time.monotonic()
        # the machine's own environment: it may say where pip finds packages
        own = {name: value for name, value in os.environ.items() if name != "WEFT_VENV"}
        done = subprocess.run(
            ["./dev", "shell", "true"], cwd=checkout, env=own, capture_output=True, timeout=PATIENCE
        )
        _judge("shell true", done)
        cold = time.monotonic() - begin + _timed(place, checkout)
        warm = []
        for number in range(run.effort.bursts):
            say(f"up: warm, {number + 1} of {run.effort.bursts}")
            warm.append(_timed(place, checkout))
    run.lines += [
        line("up", "./dev up, cold", [[cold]], target=COLD_WITHIN),
        line("up", "./dev up, warm", [warm], target=WARM_WITHIN),
    ]


def _timed(place: Place, checkout: Path) -> float:
    begin = time.monotonic()
    _dev(place, checkout, "up")
    took = time.monotonic() - begin
    _dev(place, checkout, "down", "--force")
    return took


def _dev(place: Place, checkout: Path, *arguments: str) -> None:
    done = place.node.run(
        ["/bin/sh", "-c", 'cd "$0" && exec ./dev "$@"', str(checkout), *arguments],
        env=_ENVIRONMENT,
        timeout=PATIENCE,
    )
    _judge(" ".join(arguments), done)


def _judge(what: str, done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-800:]
        raise WeftError(f"./dev {what} failed:\n{said}")


def _copy(target: Path) -> None:
    """The checkout as a clone would have it."""
    shutil.copytree(
        CHECKOUT, target, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT, "*.egg-info")
    )
    (target / "src/weft/cni/launcher").unlink(missing_ok=True)
