"""Who keeps the agent running: systemd, or deploy/weft-supervise.

An upgrade never starts an agent itself. It lets the keeper's command lead to another program and
ends the agent; so there is somebody who starts one at any moment, whatever becomes of the upgrade.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from weft.lab.nodes import start_time
from weft.model.errors import NotFound, NotReady, WeftError
from weft.upgrade.units import PLACES

UNIT = "weft.service"
SYSTEMD = Path("/run/systemd/system")
END_WITHIN = 15.0
"""Seconds that an agent has to finish what runs; it is killed then. The unit's are 10."""
LOG_LINES = 15
_PATH = re.compile(r"path=([^ ;]+)")
_ARGV = re.compile(r"argv\[\]=([^;]*)")
_FRAGMENT = re.compile(r"^FragmentPath=(.+)$", re.MULTILINE)


class Keeper(Protocol):
    """What an upgrade needs of it."""

    name: str
    command: tuple[str, ...]  # what it starts: program, `agent`, options
    units: Path | None  # where systemd's units of ours lie; None where there are none to replace

    def agent(self) -> int | None:
        """The agent's process id; None while none runs."""

    def restart(self) -> None:
        """End the agent; another is started at once or after a moment. Returns when the old one
        is gone."""

    def reload(self) -> bool:
        """Take up units that changed; whether there were any."""

    def log(self) -> str:
        """The end of the agent's log, for a person; empty where it cannot be told."""


class Systemd:
    """The unit weft.service."""

    name = f"systemd ({UNIT})"

    def __init__(self) -> None:
        shown = _systemctl("show", UNIT, "--property=LoadState,ExecStart,FragmentPath").stdout
        if "LoadState=loaded" not in shown or (found := _PATH.search(shown)) is None:
            raise NotFound(
                f"systemd has no unit {UNIT}; install it and start it: docs/install.md",
                reason="upgrade-refused",
            )
        words = _ARGV.search(shown)
        rest = words[1].split()[1:] if words is not None else ["agent"]
        self.command = (found[1], *rest)
        fragment = _FRAGMENT.search(shown)
        place = Path(fragment[1]).parent if fragment is not None else Path()
        self.units: Path | None = place if place in PLACES else None

    def agent(self) -> int | None:
        shown = _systemctl("show", UNIT, "--property=MainPID").stdout.strip()
        pid = int(shown.rpartition("=")[2] or 0)
        return pid or None

    def restart(self) -> None:
        # one job of systemd's: it goes on also when we are killed
        before = self.agent()
        began = start_time(before) if before is not None else None
        _systemctl("restart", "--no-block", UNIT)
        if before is not None and began is not None:
            _wait_gone(before, began, END_WITHIN)

    def reload(self) -> bool:
        shown = _systemctl("show", UNIT, "--property=NeedDaemonReload").stdout
        _systemctl("daemon-reload")
        return "=yes" in shown

    def log(self) -> str:
        argv = ["journalctl", "--unit", UNIT, "--lines", str(LOG_LINES), "--no-pager"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
            return done.stdout
        return ""


class Supervisor:
    """A running deploy/weft-supervise, by the pid file that it wrote."""

    units: Path | None = None

    def __init__(self, pidfile: Path) -> None:
        pid, began = _read_pid(pidfile)
        argv = _argv(pid)
        if not pid or start_time(pid) != began or "agent" not in argv:
            raise NotFound(
                f"nobody keeps the agent running: no systemd, and no weft-supervise in {pidfile}; "
                "an upgrade needs one that starts the agent again (docs/install.md)",
                reason="upgrade-refused",
            )
        place = argv.index("agent")
        self.pid, self.name = pid, f"weft-supervise (pid {pid})"
        self.command = tuple(argv[place - 1 :])

    def agent(self) -> int | None:
        children = [pid for pid in _children(self.pid) if "agent" in _argv(pid)]
        return children[0] if children else None

    def restart(self) -> None:
        pid = self.agent()
        began = start_time(pid) if pid is not None else None
        if pid is None or began is None:
            return  # it is about to be started
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if not _wait_gone(pid, began, END_WITHIN) and start_time(pid) == began:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait_gone(pid, began, END_WITHIN)

    def reload(self) -> bool:
        return False

    def log(self) -> str:
        """What its standard error goes to, if that is a file."""
        with suppress(OSError):
            path = Path(f"/proc/{self.pid}/fd/2")
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                    lines = file.read().decode(errors="replace").splitlines()
                return "\n".join(lines[-LOG_LINES:])
        return ""


def find(run: Path) -> Keeper:
    """Who keeps the agent of this node; `run`: where its socket is. Raises NotFound."""
    if SYSTEMD.is_dir():
        return Systemd()
    return Supervisor(run / "supervisor.pid")


def is_running(keeper: Keeper, program: str) -> bool:
    """Whether the agent that runs now is the one of this program's environment: its interpreter
    lies beside the program."""
    pid = keeper.agent()
    argv = _argv(pid) if pid is not None else []
    return bool(argv) and _home(argv[0]) == _home(program)


def _home(program: str) -> str:
    return os.path.realpath(os.path.dirname(program))


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotReady(f"systemctl {' '.join(arguments)} failed: {error}") from error
    if done.returncode != 0:
        raise WeftError(
            f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}",
            reason="upgrade-failed",
        )
    return done


def _read_pid(path: Path) -> tuple[int, int]:
    try:
        pid, began = path.read_text().split()[:2]
        return int(pid), int(began)
    except (OSError, ValueError):
        return 0, 0


def _argv(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def _wait_gone(pid: int, began: int, patience: float) -> bool:
    """Whether the process ended in time. By a descriptor of it: pids are used again."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if start_time(pid) != began:
            return True
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return bool(ended.poll(int(patience * 1000)))
    finally:
        os.close(descriptor)
