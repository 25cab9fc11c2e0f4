"""A journal of systemd's in a lab node: the real journald, fed as it is by units."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.lab import private
from weft.lab.nodes import CLEAN_PATH, Node

JOURNALD = "/lib/systemd/systemd-journald"
# neither the kernel's log nor its audit is taken from the machine
JOURNALD_CONF = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n"


@contextmanager
def journal(node: Node) -> Iterator[Callable[[str, str], None]]:
    """A journal of the node's own; what a unit prints is written to it by what is yielded."""
    node.path("/etc/systemd").mkdir(exist_ok=True)
    node.path("/etc/systemd/journald.conf").write_text(JOURNALD_CONF)
    daemon = node.popen([JOURNALD], env={"PATH": CLEAN_PATH}, stdin=subprocess.DEVNULL)
    made: list[Path] = []

    def write(unit: str, text: str) -> None:
        group = Path(node.cgroup, "system.slice", unit)
        if group not in made:
            group.mkdir(parents=True)
            made.append(group)
        node.path("/run/text").write_text(text)
        # the journal takes a line's unit from the cgroup of who writes it, and asks for it when it
        # gets to the line: the shell writes it itself, and stays until it is stored
        inside = Path(str(private.unified_mount()), "system.slice", unit, "cgroup.procs")
        words = "printf '%s\\n' \"$(cat /run/text)\"; exec journalctl --sync"
        line = f"echo $$ >{inside}; exec systemd-cat sh -c {shlex.quote(words)}"
        done = node.run(["sh", "-ec", line])
        assert done.returncode == 0, done.stderr

    try:
        end = time.monotonic() + 10
        while not node.path("/run/systemd/journal/stdout").exists():
            assert daemon.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        yield write
    finally:
        daemon.terminate()
        daemon.wait(10)
        for group in (*made, *{each.parent for each in made}):
            group.rmdir()
