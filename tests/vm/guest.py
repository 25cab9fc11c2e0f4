"""Tests of this checkout, run on another kernel: Debian's, in a virtual machine.

virtme-ng boots the kernel with this machine's own file system below overlays, so the guest has
the same checkout and the same Python environment, and nothing that it does stays. The processor is
emulated, everywhere alike, and everything takes ten to forty times its time. So one boot runs all
tests, and their results come back as JUnit XML in a shared directory.

The guest's clock counts its instructions (QEMU's icount), one nanosecond each, while it computes:
a slow or busy host makes the guest take longer, but within it no time limit passes the sooner.
What it waits for takes the host's time, so what is read again and again - Python, its modules, the
checkout - is not read through the shared file system, but from the guest's memory.

Where tests/unit are run too, the guest begins beside them (see `conftest`): they need one
processor, and time is nothing to them.

`./dev test vm` unpacks the kernel's package to `build/guest-kernel`; nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import msgspec

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL = CHECKOUT / "build" / "guest-kernel"
MEMORY = "3G"
CLOCK = "-icount shift=0,sleep=on -rtc clock=vm"
BOOT_LIMIT = 120.0
UNREAD = ("pip", "setuptools", "virtme", "mypy", "mypyc", "ruff")
"""Of the Python environment, what no test in the guest reads."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one test in the guest. `words`: why it failed or was skipped."""

    name: str  # file::test[parameters]
    outcome: str  # passed, failed, skipped
    seconds: float
    words: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One boot. `output` is what the tests printed, for when there are no verdicts."""

    release: str
    verdicts: tuple[Verdict, ...]
    output: str


def kernel_image() -> Path | None:
    """The unpacked kernel; None where `./dev test vm` has not unpacked one."""
    return next(iter(sorted(KERNEL.glob("boot/vmlinuz-*"))), None)


def missing() -> str:
    """Why no guest can be started here; empty when it can."""
    if kernel_image() is None:
        return f"no kernel in {KERNEL}"
    for program in ("qemu-system-x86_64", "depmod"):
        if shutil.which(program) is None:
            return f"{program} is missing"
    return "" if (Path(sys.executable).parent / "vng").exists() else "virtme-ng is missing"


def _warm(shared: Path) -> list[str]:
    """Lines of a shell that lay what is read most over itself, from an archive."""
    python = Path(os.path.realpath(sys.executable))
    # not the whole checkout: the guest finds its kernel's modules below it
    read = (f"{CHECKOUT}/src", f"{CHECKOUT}/tests", sys.prefix, sysconfig.get_path("stdlib"))
    trees = [os.path.realpath(each) for each in read]
    tools = [str(python), *filter(None, map(shutil.which, ("ip", "nft", "sh", "sysctl", "mount")))]
    files = {str(Path(tool).resolve()) for tool in tools}
    for tool in tuple(files):
        said = subprocess.run(["ldd", tool], capture_output=True, text=True, check=False).stdout
        files |= {str(Path(each).resolve()) for each in re.findall(r"(/\S+) \(0x", said)}
    archive = shared / "warm.tar"
    exclude = [f"--exclude={trees[-1]}/{name}" for name in ("site-packages", "test", "config-*")]
    exclude += [f"--exclude={trees[-2]}/*/{name}" for name in UNREAD]
    subprocess.run(
        ["tar", "-P", "-cf", archive, *exclude, *trees, *sorted(files)], check=True, timeout=120
    )
    return [
        "mkdir -p /run/warm && mount -t tmpfs warm /run/warm",
        f"tar -xf {archive} -C /run/warm",
        *(f"mount --bind /run/warm{each} {each}" for each in (*trees, *sorted(files))),
    ]


class Guest:
    """A virtual machine that runs the tests one after another and powers off.

    Until `end` asks for what it found it gives way to everything else on this machine.
    """

    def __init__(self, tests: Sequence[str], *, limit: float, counts: str) -> None:
        image = kernel_image()
        assert image is not None, missing()
        self._directory = TemporaryDirectory(prefix="weft-guest-")
        self._shared = Path(self._directory.name)
        self._deadline = time.monotonic() + BOOT_LIMIT + limit
        self._machine = _boot(image, _script(tests, self._shared, limit, counts), self._shared)

    def end(self) -> Run:
        """Wait until it has powered off. Raises AssertionError with the console's last lines where
        the guest did not come to its end within its limit."""
        shared = self._shared
        os.setpriority(os.PRIO_PGRP, self._machine.pid, os.getpriority(os.PRIO_PROCESS, 0))
        with suppress(subprocess.TimeoutExpired):
            self._machine.wait(max(1.0, self._deadline - time.monotonic()))
        console = (shared / "console").read_text(errors="replace")
        assert (shared / "status").exists(), f"no end of the guest:\n{console[-3000:]}"
        output = (shared / "output").read_text(errors="replace")
        results = shared / "results.xml"
        return Run(
            release=(shared / "release").read_text().strip(),
            verdicts=tuple(_verdicts(results.read_text())) if results.exists() else (),
            output=output,
        )

    def close(self) -> None:
        """Whatever happened, the virtual machine is ended and its directory removed."""
        with suppress(ProcessLookupError):
            os.killpg(self._machine.pid, signal.SIGKILL)
        self._machine.wait()
        self._directory.cleanup()


def _script(tests: Sequence[str], shared: Path, limit: float, counts: str) -> Path:
    """What the guest does."""
    script = shared / "run"
    arguments = " ".join(f"'{test}'" for test in tests)
    script.write_text(
        "#!/bin/sh\n" + "".join(f"{line}\n" for line in _warm(shared)) + f"cd {CHECKOUT}\n"
        f"export PATH={os.environ['PATH']} WEFT_COUNTS={counts} WEFT_VENV={sys.prefix} HOME=/root\n"
        f"uname -r >{shared}/release\n"
        f"timeout --signal=INT --kill-after=30 {limit:.0f} "
        f"{sys.executable} -u -m pytest -v -p no:cacheprovider -p no:hypothesispytest "
        f"{arguments} --junitxml {shared}/results.xml >{shared}/output 2>&1\n"
        f"echo $? >{shared}/status\n"
    )
    script.chmod(0o755)
    return script


def _boot(image: Path, script: Path, shared: Path) -> subprocess.Popen[bytes]:
    binaries = Path(sys.executable).parent
    command = [
        "nice", "-n", "19",
        str(binaries / "vng"), "--run", str(image), "--disable-kvm", "--force-9p", "--verbose",
        "--cpus", "1", "--memory", MEMORY, f"--qemu-opts={CLOCK}",
        "--rwdir", str(shared), "--exec", str(script),
    ]  # fmt: skip
    # a file, not a pipe: nobody reads it meanwhile
    with (shared / "console").open("wb") as console:
        return subprocess.Popen(
            command,
            cwd=shared,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _verdicts(text: str) -> list[Verdict]:
    found = []
    for case in ElementTree.fromstring(text).iter("testcase"):  # our own pytest's
        outcome, words = "passed", ""
        for kind, name in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            element = case.find(kind)
            if element is not None:
                outcome, words = name, f"{element.get('message', '')}\n{element.text or ''}"
        module = case.get("classname", "").replace(".", "/")
        found.append(
            Verdict(
                name=f"{module}.py::{case.get('name', '')}",
                outcome=outcome,
                seconds=float(case.get("time", "0")),
                words=words,
            )
        )
    return found
