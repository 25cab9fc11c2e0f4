"""A lab node that systemd boots: PID 1 in namespaces of its own, which has nothing but our units.

Debian's own units are no part of it, and must not be: they would clean /tmp, set clocks and load
modules, and /tmp is the machine's. So systemd looks for units in one directory only, runs no
generators, has private file systems for all that it might clean, no capability to set the clock,
load modules or reboot, and /proc/sys read-only but for the network namespace's part.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from acceptance import READY_LIMIT
from releases import KeptHost, Laid
from weft.lab import calls, libc, nodes, wiring
from weft.lab.cluster import AGENT_LOG
from weft.lab.nodes import CLEAN_PATH, Node
from weft.lab.wiring import Wires

LOG = "/run/systemd.log"
UNITS = "/etc/systemd/system"
TARGETS = {
    "default.target": "Wants=multi-user.target\nAfter=multi-user.target",
    "multi-user.target": "Requires=basic.target\nAfter=basic.target\nAllowIsolate=yes",
    "basic.target": "Requires=sysinit.target\nWants=sockets.target\n"
    "After=sysinit.target sockets.target",
    "sysinit.target": "",
    "sockets.target": "",
    "local-fs.target": "",
    "network-pre.target": "",
    "shutdown.target": "DefaultDependencies=no",
}
"""Those that our units name, and what the manager itself needs to begin."""

_BOOT = r"""
set -eu
test $$ = 1
private=/run/booted
mkdir -p $private/dev $private/keep
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount --bind /run/.boot-id /proc/sys/kernel/random/boot_id
mount -o remount,bind,ro /proc/sys
# straight on top of itself, as where there is nothing but cgroup2, it is EBUSY
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $private/dev
for name in null zero full random urandom; do
    : >$private/dev/$name
    mount --bind /dev/$name $private/dev/$name
done
mkdir $private/dev/shm $private/dev/mqueue $private/dev/pts
mount --rbind $private/dev /dev
mount --bind "$1" $private/keep
for name in /tmp /var/tmp /var/log; do
    mount -t tmpfs -o mode=1777 tmpfs $name
    test "$(stat -f -c %T $name)" = tmpfs
    test -z "$(ls -A $name)"
done
mkdir -p "$1"
mount --bind $private/keep "$1"
none=/run/no-generators
exec env -i PATH="$PATH" container=weft-lab SYSTEMD_UNIT_PATH="$2" \
    SYSTEMD_GENERATOR_PATH=$none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=$none \
    setpriv --bounding-set=-sys_time,-sys_boot,-sys_module,-syslog,-mknod \
    /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=no
"""
_ENTER = r"""
set -eu
group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)/booted
mkdir $group
echo $$ >$group/cgroup.procs
exec unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts \
    sh -c "$0" boot "$@"
"""
_LOGGED = f"[Service]\nStandardOutput=append:{AGENT_LOG}\nStandardError=append:{AGENT_LOG}\n"


def _clear() -> None:
    libc.mount("tmpfs", "/etc/systemd", "tmpfs", options="mode=755")
    Path(UNITS).mkdir()


class BootedHost(KeptHost):
    """A host whose agent systemd keeps, by units that lie in UNITS when it is started."""

    def __init__(self, node: Node, wires: Wires, release: Laid) -> None:
        super().__init__(node, wires, release)
        self._visible = release.root.parent
        calls.call(node, _clear)
        node.path("/etc/hostname").write_text(f"{node.name}\n")
        for name, text in TARGETS.items():
            self.write(name, f"[Unit]\n{text}\n")
        for name in ("weft.service", "weft-boot.service"):
            self.write(f"{name}.d/log.conf", _LOGGED)

    def write(self, name: str, text: str) -> None:
        """A unit, or a drop-in of one."""
        path = self.node.path(UNITS) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def install(self, directory: Path) -> None:
        """Our units, from there."""
        for path in directory.glob("weft*.s*"):
            self.write(path.name, path.read_text())

    def start(self, *, wait: bool = True) -> float:
        """Boot."""
        began = time.monotonic()
        with self.node.path(LOG).open("ab") as log:
            self._agent = self.node.popen(
                ["sh", "-c", _ENTER, _BOOT, str(self._visible), UNITS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await(self.node.path("/run/systemd/private").exists)
        if wait:
            self._await(self.answers)
        return time.monotonic() - began

    def _await(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_LIMIT
        while not happened():
            assert self.is_running, self.node.path(LOG).read_text()
            assert time.monotonic() < deadline, self.node.path(LOG).read_text()
            time.sleep(0.02)

    @property
    def first(self) -> int:
        """systemd, as the machine counts."""
        (pid,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def beside(self, *argv: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command among systemd's processes, which sees its files."""
        return subprocess.run(
            ["nsenter", "--target", str(self.first), "--all", "--", *argv],
            env={"PATH": CLEAN_PATH, "COLUMNS": "200", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def systemctl(self, *arguments: str) -> str:
        done = self.beside("systemctl", *arguments)
        assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", unit, "--property", name, "--value").strip()

    def release(self, release: Laid, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.beside(release.program, *arguments)

    def agent_pid(self) -> int:
        """The agent's main process, as the machine counts; 0 while none runs."""
        inside = self.shown("weft.service", "MainPID")
        group = Path(self.node.cgroup, "booted/system.slice/weft.service/cgroup.procs")
        for pid in group.read_text().split() if inside != "0" and group.exists() else ():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if f"\t{inside}\n" in status.partition("NSpid:")[2].partition("\n")[0] + "\n":
                    return int(pid)
        return 0

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End systemd with all that it started, and give its control groups back."""
        if self._agent is None:
            return
        self._agent.kill()  # --kill-child: PID 1 ends with it, and all of its namespace
        self._agent.wait(20)
        top = Path(self.node.cgroup, "booted")
        deadline = time.monotonic() + 10
        while top.exists():
            for path in sorted(top.glob("**/"), reverse=True):
                with suppress(OSError):
                    path.rmdir()
            assert time.monotonic() < deadline, f"{top} cannot be removed"
            time.sleep(0.01)


@contextmanager
def booted(release: Laid) -> Iterator[BootedHost]:
    """A node that is not started yet, without units of ours."""
    with ExitStack() as stack:
        name = f"booted-{os.getpid()}"
        wires = wiring.lay(name, tied=True)
        stack.callback(wiring.remove, wires)
        node = nodes.start(f"{name}-n1")
        stack.callback(nodes.stop, node)
        wiring.connect(wires, node, 0)
        host = BootedHost(node, wires, release)
        stack.callback(host.close)
        yield host
