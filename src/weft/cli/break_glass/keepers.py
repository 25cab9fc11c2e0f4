"""Who would put the rules back: agents, who starts them again, and whoever owns the tables.

Found in /proc and by systemctl alone. An agent counts when it is in our network namespace, because
a machine may have others; so does its supervisor. Nobody is ended by a number only: pids are used
again, so a process is known by its start time and waited for by a descriptor.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from weft.lab.nodes import start_time

SYSTEMD = Path("/run/systemd/system")
PROCESSES = Path("/proc")
UNIX = Path("/proc/thread-self/net/unix")
RUNNING_UNITS = ("weft.socket", "weft.service")  # in the order in which they are stopped
BOOT_UNITS = ("weft-boot.service", *RUNNING_UNITS)
ASK_LIMIT = 10.0  # seconds for an answer of systemd
STOP_LIMIT = 40.0  # seconds for stopping units; TimeoutStopSec of ours is 10, TimeoutAbortSec 5
END_WITHIN = 10.0  # seconds from SIGTERM to SIGKILL
KILLED_WITHIN = 10.0  # seconds from SIGKILL to the end
ROUNDS = 3  # looks for those whom somebody started meanwhile

Role = Literal["agent", "supervisor", "owner of the tables"]
_PROGRAMS = frozenset(("weft", "weft.main"))
_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_IDLE = frozenset(("inactive", "failed"))


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that keeps the rules there. `began` in clock ticks since boot."""

    pid: int
    began: int
    role: Role
    command: str


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of systemd. `active`: it runs or listens; `enabled`: it is started at boot."""

    name: str
    active: bool
    enabled: bool


class Keepers(msgspec.Struct, frozen=True, kw_only=True):
    """All of them at one moment. `unasked`: why systemd could not be asked, or ""."""

    processes: tuple[Process, ...] = ()
    units: tuple[Unit, ...] = ()
    unasked: str = ""

    @property
    def living(self) -> bool:
        """Whether the rules would come back, or cannot be removed."""
        return bool(self.processes) or any(self.running())

    def running(self) -> Iterator[str]:
        """Units that have to be stopped."""
        return (
            unit.name for unit in self.units if unit.active and unit.name != "weft-boot.service"
        )

    def at_boot(self) -> list[str]:
        """Units that load rules when the machine starts again."""
        return [unit.name for unit in self.units if unit.enabled]


def look(owners: Collection[int] = ()) -> Keepers:
    """Everybody. `owners`: processes whose sockets own the tables."""
    units, unasked = _units()
    return Keepers(processes=tuple(_processes(owners)), units=units, unasked=unasked)


def end(found: Keepers) -> list[str]:
    """Stop units, then end processes; what was done, one line each. Who does not end on SIGTERM
    within END_WITHIN seconds is killed. Who is gone already is no matter."""
    done = []
    units = [name for name in RUNNING_UNITS if name in set(found.running())]
    if units:
        trouble = _systemctl(["stop", *units], STOP_LIMIT)[1]
        done.append(f"systemctl stop {' '.join(units)}" + (f": {trouble}" if trouble else ""))
    # a supervisor first: it starts no other while it ends
    order = sorted(found.processes, key=lambda each: each.role != "supervisor")
    for process in order:
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)  # one that was stopped can hear it
    deadline = time.monotonic() + END_WITHIN
    for process in order:
        if _gone(process, deadline - time.monotonic()):
            done.append(f"ended {process.role} {process.pid}")
            continue
        _signal(process, signal.SIGKILL)
        killed = _gone(process, KILLED_WITHIN)
        how = "killed" if killed else "could not even be killed:"
        done.append(f"{how} {process.role} {process.pid}")
    return done


# -- processes


def _processes(owners: Collection[int]) -> Iterator[Process]:
    here = _namespace(os.getpid())
    for entry in sorted(PROCESSES.iterdir(), key=lambda path: path.name):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        pid = int(entry.name)
        argv = _argv(pid)
        role = role_of(argv)
        if pid in owners:
            role = role or "owner of the tables"
        elif role is None or _namespace(pid) != here:
            continue
        began = start_time(pid)
        if began is not None and role is not None:
            yield Process(pid=pid, began=began, role=role, command=" ".join(argv) or "?")


def role_of(argv: Sequence[str]) -> Role | None:
    """What a command line runs: `weft agent`, also by an interpreter, or who keeps it running."""
    words = list(argv)
    if words and os.path.basename(words[0]).startswith("python"):
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[1:]
    if not words:
        return None
    name = os.path.basename(words[0])
    if name == "weft-supervise":
        return "supervisor"
    return "agent" if name in _PROGRAMS and words[1:2] == ["agent"] else None


def _argv(pid: int) -> list[str]:
    try:
        raw = (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


def _namespace(pid: int) -> str:
    try:
        return os.readlink(PROCESSES / str(pid) / "ns/net")
    except OSError:
        return ""


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if start_time(process.pid) == process.began:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _gone(process: Process, patience: float) -> bool:
    """Whether it ends within so many seconds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if start_time(process.pid) != process.began:
            return True
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return bool(ended.poll(max(0, int(patience * 1000))))
    finally:
        os.close(descriptor)


def listened_to(path: str) -> bool:
    """Whether somebody of our network namespace listens on this Unix socket, also where the process
    cannot be seen. Nobody is called: that would start an agent whose socket systemd holds."""
    try:
        lines = UNIX.read_text(errors="replace").splitlines()
    except OSError:
        return False
    found = (line.split(maxsplit=7) for line in lines[1:])
    return any(len(each) == 8 and each[7] == path and int(each[3], 16) & _ACCEPTS for each in found)


# -- systemd


def _units() -> tuple[tuple[Unit, ...], str]:
    if not SYSTEMD.is_dir():
        return (), ""
    argv = ["show", *BOOT_UNITS, "--property=Id,LoadState,ActiveState,UnitFileState"]
    said, trouble = _systemctl(argv, ASK_LIMIT)
    return tuple(read_units(said)), trouble


def read_units(said: str) -> Iterator[Unit]:
    """What `systemctl show` says: blocks of NAME=VALUE lines, an empty line between them."""
    for block in said.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if values.get("LoadState") == "loaded":
            yield Unit(
                name=values.get("Id", ""),
                active=values.get("ActiveState") not in _IDLE,
                enabled=values.get("UnitFileState", "").startswith("enabled"),
            )


def _systemctl(arguments: Sequence[str], limit: float) -> tuple[str, str]:
    """What it printed, and what went wrong in words."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=limit, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", str(error)
    return done.stdout, done.stderr.strip() if done.returncode != 0 else ""
