"""The private file systems of a lab node.

Runs in the node's holder, after `unshare`, and makes the machine's own files unreachable for
writing: /etc, /opt and /var/lib become overlays whose upper layer is a tmpfs of the node, and
the directories with state start empty. So a node never needs a mount point that the machine
lacks, and everything ends with the last process inside.

    /run          tmpfs, with netns/ for pods and lock/
    /etc          overlay; cni/ and weft/ empty; machine-id of its own
    /opt /var/lib overlay; cni/ and weft/ empty
    /sys          sysfs of the node's network namespace, the cgroup tree moved back in, bpffs
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from weft.lab import libc
from weft.model.errors import KernelRefused

LAYERS = "/run/.layers"
OVERLAID = ("/etc", "/opt", "/var/lib")
EMPTY = ("/etc/cni", "/etc/weft", "/opt/cni", "/var/lib/cni", "/var/lib/weft")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def build(keep: Sequence[str] = ()) -> None:
    """Make the mounts; directories in `keep` show what the machine has there."""
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in keep}
    libc.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    for name in (LAYERS, "/run/netns", "/run/lock"):
        Path(name).mkdir()
    hide(OVERLAID)
    for path in EMPTY:
        Path(path).mkdir(parents=True, exist_ok=True)
        libc.mount("tmpfs", path, "tmpfs", options="mode=755")
    for path, fd in held.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        libc.mount(f"/proc/self/fd/{fd}", path, "", libc.MS_BIND | libc.MS_REC)
        os.close(fd)
    _sys()
    _identity()


def hide(paths: Sequence[str]) -> None:
    """Lay an overlay over each of these directories that there is: what is written to it stays in
    the node. Runs inside the node."""
    for path in paths:
        if not Path(path).is_dir():
            continue
        upper, work = (f"{LAYERS}{path.replace('/', '-')}-{part}" for part in ("upper", "work"))
        Path(upper).mkdir(mode=0o755)
        Path(work).mkdir()
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        libc.mount("weft-lab", path, "overlay", 0, options)


def _sys() -> None:
    """A new sysfs shows the new network namespace, but hides what was mounted below the old."""
    aside = f"{LAYERS}/cgroup"
    Path(aside).mkdir()
    below = unified_mount()
    if Path("/sys/fs/cgroup").is_mount():
        libc.mount("/sys/fs/cgroup", aside, "", libc.MS_BIND | libc.MS_REC)
        libc.mount("none", aside, "", libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("sysfs", "/sys", "sysfs")
    if Path(aside).is_mount():
        libc.mount(aside, "/sys/fs/cgroup", "", libc.MS_MOVE)
    if below is not None:
        # a fresh mount has the node's own cgroup as its root; on top of the old one it is EBUSY
        libc.unmount(str(below))
        libc.mount("cgroup2", str(below), "cgroup2")
    with suppress(KernelRefused):  # a kernel without BPF has no bpffs, and then none is needed
        libc.mount("bpf", "/sys/fs/bpf", "bpf")


def _identity() -> None:
    """Every node has its own machine and boot identity, as different machines would have."""
    Path("/etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    boot = Path("/run/.boot-id")
    boot.write_text(f"{uuid.uuid4()}\n")
    libc.mount(str(boot), BOOT_ID, "", libc.MS_BIND)


def unified_mount() -> Path | None:
    """Where the cgroup v2 tree is mounted; None where it is not."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    return None
