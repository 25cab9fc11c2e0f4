"""The agent on this machine: a systemd unit where systemd runs, else deploy/weft-supervise.

Ready means that STATUS, asked through the installed launcher, succeeds: the same question a
runtime asks. Waiting is bounded; a failure shows the end of the agent's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial

from weft.kernel import files
from weft.lab.demo import containers, places
from weft.lab.demo.record import Record
from weft.lab.nodes import start_time
from weft.model.errors import NotFound, NotReady

READY_WITHIN = 60.0
GONE_WITHIN = 15.0
AGENT_UNIT = "weft.service"
AGENT_UNITS = ("weft.socket", AGENT_UNIT)  # the socket first: it would start the agent again


def has_systemd() -> bool:
    """Whether systemd is process 1 here (sd_booted(3))."""
    return places.SYSTEMD.is_dir()


def start(record: Record) -> None:
    """Start the agent, or start it anew with the code of this checkout; returns when ready."""
    record.tree(places.RUN)
    record.tree(places.LOGS)
    stop()
    if has_systemd():
        _install_units(record)
        _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", *places.UNIT_NAMES)
        _systemctl("start", AGENT_UNIT)
    else:
        _supervise()
    _wait_ready()


def stop() -> None:
    """Stop the agent and wait until it is gone; one that does not run is not an error."""
    if has_systemd():
        # not weft-boot.service: started anew it would close the node to attached containers
        present = [name for name in AGENT_UNITS if (places.UNITS / name).exists()]
        if present:
            _systemctl("stop", *present)
        return
    pid, began = _supervisor()
    if pid and start_time(pid) == began:
        _end(pid, began)
    places.SUPERVISOR.unlink(missing_ok=True)


def forget() -> None:
    """Have systemd forget the units that there are, before `down` removes their files."""
    present = [name for name in places.UNIT_NAMES if (places.UNITS / name).exists()]
    if has_systemd() and present:
        _systemctl("disable", "--quiet", "--now", *present)


def log_tail(lines: int = 15) -> str:
    """The end of the agent's log, for a person."""
    if has_systemd():
        command = ["journalctl", "--unit", "weft", "--lines", str(lines), "--no-pager"]
        return subprocess.run(command, capture_output=True, text=True).stdout
    text = files.glance(places.LOG, 64 << 20) or b""
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])


def _install_units(record: Record) -> None:
    for name in places.UNIT_NAMES:
        content = (places.CHECKOUT / "deploy" / name).read_bytes()
        path = places.UNITS / name
        record.file(path, content, partial(files.replace, path, content, 0o644))


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise NotReady(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")


def _supervise() -> None:
    keeper = places.CHECKOUT / "deploy" / "weft-supervise"
    with files.append(places.LOG) as log:
        subprocess.Popen(
            [str(keeper), str(places.SUPERVISOR), str(places.ON_PATH), "agent"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )


def _supervisor() -> tuple[int, int]:
    try:
        pid, began = files.read(places.SUPERVISOR, 100).split()
        return int(pid), int(began)
    except (NotFound, ValueError):  # never started, or killed while writing
        return 0, 0


def _end(pid: int, began: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GONE_WITHIN
    while start_time(pid) == began:
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)  # the session's leader: nothing else is in its group
            break
        time.sleep(0.02)


def _wait_ready() -> None:
    deadline = time.monotonic() + READY_WITHIN
    while refusal := containers.refusal():
        if time.monotonic() > deadline:
            raise NotReady(
                f"the agent is not ready after {READY_WITHIN:.0f} s ({refusal}); "
                f"the end of its log:\n{log_tail()}"
            )
        time.sleep(0.05)
