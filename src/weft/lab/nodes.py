"""A lab node: a process that holds namespaces, and the ways to put commands into them.

The holder forks, unshares network, mounts, host name and cgroup, builds the node's private file
systems and becomes `sleep`. A node is named by the holder's pid and start time, so a stale
record never means another process. Stopping kills what is inside the node's mount namespace,
and the kernel takes the rest back. Functions of Python run inside by `calls`.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from weft.lab import entering, libc, private
from weft.model.errors import NotReady, WeftError

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GROUP = "weft-lab"  # the cgroup above all nodes
_TITLE = "weft-lab-node:"  # how a holder shows in a list of processes
_ORDER = (
    ("cgroup", libc.CLONE_NEWCGROUP),
    ("uts", libc.CLONE_NEWUTS),
    ("net", libc.CLONE_NEWNET),
    ("mnt", libc.CLONE_NEWNS),
)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A running lab node. `start` is the holder's start time in clock ticks since boot."""

    name: str
    pid: int
    start: int
    cgroup: str = ""

    @property
    def network(self) -> Path:
        """The node's network namespace, as seen from the machine."""
        return Path(f"/proc/{self.pid}/ns/net")

    def path(self, inside: str | Path) -> Path:
        """A path of the node's own file tree, as seen from the machine."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def pod_network(self, pod: str) -> Path:
        """The network namespace of a pod of this node, as seen from the machine."""
        return self.path(f"/run/netns/{pod}")

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.start

    def enter(self) -> None:
        """Move the calling process into the node, for good. Needs a process of one thread."""
        if not self.is_alive:
            raise NotReady(f"lab node {self.name} is gone; make it again with `weft lab up`")
        if self.cgroup:
            Path(self.cgroup, "cgroup.procs").write_text(str(os.getpid()))
        doors = [
            (os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
            for name, kind in _ORDER
        ]
        for fd, kind in doors:
            libc.setns(fd, kind)
            os.close(fd)
        os.chdir("/")

    def popen(self, argv: Sequence[str], *, pod: str | None = None, **how: Any) -> Any:
        """Start a command inside the node (or a pod of it); `how` goes to subprocess.Popen."""

        def inside() -> None:
            self.enter()
            if pod is not None:
                with open(f"/run/netns/{pod}", "rb") as there:
                    libc.setns(there.fileno(), libc.CLONE_NEWNET)

        how.setdefault("env", {"PATH": CLEAN_PATH})
        # the child only makes system calls prepared before the fork
        return subprocess.Popen(argv, preexec_fn=inside, **how)  # noqa: PLW1509

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 30.0,
        pod: str | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside to its end; its exit status is the caller's to judge."""
        with self.popen(
            argv,
            pod=pod,
            env=dict(env) if env is not None else {"PATH": CLEAN_PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            try:
                out, err = child.communicate(stdin, timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        return subprocess.CompletedProcess(list(argv), child.returncode, out, err)


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else int(fields[19])


def start(
    name: str,
    *,
    mounts: bool = True,
    tied: bool = True,
    keep: Sequence[str] = (),
    group: str = GROUP,
) -> Node:
    """Make a node. `tied`: it ends with the calling thread's process, also when that is killed.

    `mounts` False gives only a network and a host name: enough for a switch or an outside host.
    """
    cgroup = _make_cgroup(group, name)
    ready, report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        _hold(name, report, mounts=mounts, tied=tied, keep=keep, cgroup=cgroup)
    os.close(report)
    with open(ready, "rb") as pipe:
        said = pipe.read()
    began = start_time(pid)
    if said != b"ready" or began is None:
        os.waitpid(pid, 0)
        _drop_cgroup(cgroup)
        raise WeftError(f"lab node {name} could not be made: {said.decode(errors='replace')}")
    return Node(name=name, pid=pid, start=began, cgroup=cgroup)


def _hold(
    name: str, report: int, *, mounts: bool, tied: bool, keep: Sequence[str], cgroup: str
) -> None:
    """The holder's whole life; never returns."""
    try:
        if tied:
            libc.die_with_parent(signal.SIGKILL)
        os.setsid()
        if cgroup:
            Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
        libc.unshare(
            libc.CLONE_NEWNET | libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWCGROUP
        )
        libc.sethostname(name)
        if mounts:
            private.build(keep)
        else:
            libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
        entering.ip_batch(entering.OWN, "link set lo up\n")
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        # the pipe is closed by exec, which is what the parent's read waits for
        os.write(report, b"ready")
        os.execv("/bin/sleep", [f"{_TITLE}{name}", "infinity"])  # noqa: S606
    except BaseException as failure:  # a forked child must never run its parent's cleanup
        os.write(report, f"{type(failure).__name__}: {failure}".encode())
    finally:
        os._exit(1)


def _make_cgroup(group: str, name: str) -> str:
    top = private.unified_mount()
    if top is None:
        return ""
    own = top / group / name
    try:
        own.mkdir(parents=True)
    except FileExistsError:
        pass
    except OSError:  # a container without write access to its cgroups: do without
        return ""
    return str(own)


def _clear_cgroup(path: str) -> None:
    """Kill all of a cgroup, then remove it."""
    with suppress(OSError):  # none was made, or it is gone
        Path(path, "cgroup.kill").write_text("1")
    _drop_cgroup(path)


def _drop_cgroup(path: str) -> None:
    if not path:
        return
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        _drop_below(Path(path))
        try:
            Path(path).rmdir()
            break
        except FileNotFoundError:
            break
        except OSError:  # EBUSY: the dead are not buried yet
            time.sleep(0.01)
    with suppress(OSError):  # other nodes of the group may still be there
        Path(path).parent.rmdir()


def _drop_below(path: Path) -> None:
    """Groups that programs inside made, e.g. a container runtime."""
    below = (Path(top, name) for top, names, _ in os.walk(path, topdown=False) for name in names)
    for each in below:
        with suppress(OSError):
            each.rmdir()


def stop(node: Node) -> None:
    """End everything inside the node and give it back; a node that is gone is not an error."""
    if node.is_alive:
        mounts = os.readlink(f"/proc/{node.pid}/ns/mnt")
        holder = os.pidfd_open(node.pid)
        try:
            for pid in _occupants(mounts):
                if pid != node.pid:
                    _kill(pid, mounts)
            signal.pidfd_send_signal(holder, signal.SIGKILL)
            # until it is dead it counts as running, and its cgroup as another node's
            dead = select.poll()
            dead.register(holder, select.POLLIN)
            dead.poll(10_000)
        except ProcessLookupError:
            pass
        finally:
            os.close(holder)
        with suppress(ChildProcessError):  # made by an earlier process: init buries it
            os.waitpid(node.pid, 0)
    if not running(re.escape(node.name)):  # or the name is another node's by now
        _clear_cgroup(node.cgroup)


def sweep(pattern: str, group: str = GROUP) -> None:
    """End what outlived holders of these names: their cgroups tell it from everything else."""
    top = private.unified_mount()
    held = {node.name for node in running(pattern)}
    for left in (top / group).glob("*") if top is not None else ():
        if left.is_dir() and re.fullmatch(pattern, left.name) and left.name not in held:
            _clear_cgroup(str(left))


def bury(prefix: str, group: str = GROUP) -> None:
    """Sweep the nodes named `PREFIX-PID-...` whose process is dead: what a kit that was killed
    leaves are cgroups, everything else of it ends by itself."""
    top = private.unified_mount()
    for left in (top / group).glob(f"{prefix}-*-*") if top is not None else ():
        pid = left.name.removeprefix(f"{prefix}-").partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            sweep(re.escape(left.name), group)


def running(pattern: str) -> list[Node]:
    """The holders whose name matches the pattern entirely, whoever made them."""
    found = []
    top = private.unified_mount()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            name = title.removeprefix(_TITLE)
            if name == title or not re.fullmatch(pattern, name):
                continue
            pid = int(entry.name)
            lines = (entry / "cgroup").read_text().splitlines()
            group = next((line[4:] for line in lines if line.startswith("0::/")), "")
            cgroup = str(top / group) if top is not None and group else ""
            began = start_time(pid)
            if began is not None:
                found.append(Node(name=name, pid=pid, start=began, cgroup=cgroup))
    return found


def _occupants(mounts: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.readlink(entry / "ns/mnt") == mounts:
                    found.append(int(entry.name))
    return found


def _kill(pid: int, mounts: str) -> None:
    """Kill `pid` only if it is in that mount namespace now: pids are used again."""
    with suppress(ProcessLookupError, FileNotFoundError):
        handle = os.pidfd_open(pid)
        try:
            if os.readlink(f"/proc/{pid}/ns/mnt") == mounts:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
