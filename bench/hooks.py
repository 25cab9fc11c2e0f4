"""Benchmark `hook`: what weft as an OCI hook costs a container of runc.

Whole containers, from `runc run` to its end, with a program that only shows its interfaces: without
hooks, with weft's at createRuntime and poststop - an interface with addresses of both families,
made and given back - and with an interpreter in its place that starts and ends without doing
anything. The last is why the hook is a C program.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.figures import added, median, pooled, ratio
from bench.lines import line, peer
from bench.run import Block, Measure, Run, interleaved, times
from weft.lab import cluster
from weft.lab.nodes import CLEAN_PATH
from weft.model.errors import WeftError

BUSYBOX = "/bin/busybox"
INTERPRETER = "/usr/bin/python3"
OF_IDLE = 1.0
"""A container with weft's hooks, in multiples of one with interpreters that do nothing."""
BARE, HOOKED, IDLE = "no hook", "weft's hooks", "an interpreter that does nothing"
_HOOKS: dict[str, dict[str, Any] | None] = {
    BARE: None,
    HOOKED: {"path": str(cluster.BINS / "weft"), "args": ["weft", "oci-hook"]},
    IDLE: {"path": INTERPRETER, "args": ["python3", "-I", "-S", "-c", "pass"]},
}


def hook(run: Run) -> None:
    """The three in turn."""
    for program, package in (("runc", "runc"), (BUSYBOX, "busybox-static"), (INTERPRETER, "")):
        if shutil.which(program, path=CLEAN_PATH) is None:
            raise WeftError(f"{program} is needed; install Debian's {package or 'python3'}")
    run.calm()
    worker = run.scene.within(run.scene.with_agent((4, 6)), Containers)

    def measured(name: str) -> Measure:
        def measure(check: bool) -> Block:
            return {"run": [worker.ask("run", name, check)]}

        return measure

    sides = {name: measured(name) for name in _HOOKS}
    for measure in sides.values():
        measure(True)
    found = {name: times(blocks, "run") for name, blocks in
             interleaved(sides, run.effort, "containers of runc").items()}  # fmt: skip
    bare, hooked, idle = found[BARE], found[HOOKED], found[IDLE]
    more = added(hooked, bare, bare)
    run.lines += [
        line("hook", "runc run with weft's hooks", hooked, void=run.void,
             peer=peer(BARE, bare, ratio(hooked, bare))),
        line("hook", "runc run with weft's hooks", hooked, target=OF_IDLE, void=run.void,
             peer=peer("idle python3", idle, ratio(hooked, idle))),
        line("hook", "what weft's hooks add", [[a - median(pooled(bare)) for a in each]
                                               for each in hooked],
             note=f"{more.value:.2f} ({more.low:.2f}-{more.high:.2f}) of runc run"),
    ]  # fmt: skip


class Containers:
    """Bundles on a node, and runs of them."""

    def __init__(self) -> None:
        self._place = Path("/run/bundles")
        for number, (name, entry) in enumerate(_HOOKS.items()):
            bundle = self._place / str(number)
            for part in ("bin", "dev", "proc"):
                (bundle / "rootfs" / part).mkdir(parents=True)
            shutil.copy(BUSYBOX, bundle / "rootfs" / "bin")
            (bundle / "config.json").write_text(json.dumps(_config(name, entry)))

    def run(self, name: str, check: bool) -> float:
        """Seconds of one container; `check`: it must have the interface it should have."""
        number = list(_HOOKS).index(name)
        words = ["runc", "--root", "/run/runc", "run", "--bundle", f"{self._place}/{number}", "c1"]
        begun = time.perf_counter()
        done = subprocess.run(
            words, env={"PATH": CLEAN_PATH}, capture_output=True, stdin=subprocess.DEVNULL
        )
        took = time.perf_counter() - begun
        if done.returncode != 0:
            raise WeftError(f"runc with {name} failed: {done.stderr.decode()[-400:]}")
        if check and (b"eth0" in done.stdout) is not (name == HOOKED):
            raise WeftError(f"a container with {name} has {done.stdout.decode()!r}")
        return took


def _config(name: str, entry: dict[str, Any] | None) -> dict[str, Any]:
    hooks = {} if entry is None else {"createRuntime": [entry], "poststop": [entry]}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/busybox", "cat", "/proc/net/dev"],
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("network", "pid", "mount")],
            "cgroupsPath": f"/weft-bench-{os.getpid()}",
        },
        "hooks": hooks,
    }
