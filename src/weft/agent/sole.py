"""One agent a network namespace, whatever paths the settings give it.

Two agents with paths of their own would each take the other's rules and links for what somebody
has left. So an agent locks (flock(2)) the file by which the kernel shows its network namespace,
/proc/self/ns/net: one file whoever opens it, without a place in any directory, and its locks go
with the process, however that ends. Who finds it locked learns from /proc/locks by whom.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from weft.model.errors import Conflict

_NAMESPACE = "/proc/self/ns/net"
_ATTEMPTS, _APART = 5, 0.1  # seconds; one that is ending has the lock for a moment


async def claim() -> int | None:
    """Lock this network namespace until the descriptor is closed. Raises Conflict, naming the
    agent that has it; None where somebody has it who is no agent: then a second one is not kept
    away."""
    for _ in range(_ATTEMPTS):
        descriptor = _open()
        if _lock(descriptor):
            return descriptor
        os.close(descriptor)
        await asyncio.sleep(_APART)
    refuse_beside()
    return None


def refuse_beside() -> None:
    """Raise Conflict if another agent runs in this network namespace. Anybody may lock the file,
    so only a process that root started counts, and one that cannot be seen."""
    descriptor = _open()
    try:
        if _lock(descriptor):
            return
        inode = os.fstat(descriptor).st_ino
        holders = _holders(inode)
    finally:
        os.close(descriptor)
    if not holders:
        raise _refused(" (in another pid namespace)")
    for pid in holders:
        with suppress(OSError):  # it has ended
            if _is_roots(pid) and _has_open(pid, inode):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                shown = b" ".join(words).decode(errors="replace")[:300]
                raise _refused(f": pid {pid}, `{shown}`")


def _open() -> int:
    return os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(inode: int) -> list[int]:
    """Processes that hold a flock on the file, of those that are seen from here (proc(5))."""
    found = []
    with open("/proc/locks", encoding="ascii") as lines:
        for line in lines:
            words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 00:04:4026531840 0 EOF
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                found.append(int(words[4]))
    return found


def _is_roots(pid: int) -> bool:
    """Whether root started a process. Its owner in /proc does not tell: that is root as soon as
    somebody's process executes a program with the set-user-ID bit."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    ids = {int(word) for word in status.partition("\nUid:")[2].split("\n")[0].split()}
    mode = Path(f"/proc/{pid}/exe").stat().st_mode
    return ids <= {0, os.geteuid()} and not mode & (stat.S_ISUID | stat.S_ISGID)


def _has_open(pid: int, inode: int) -> bool:
    """Whether a process has the file open itself: a lock that was passed on is still shown under
    the number of who made it, which may be another process's by now."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if path.stat().st_ino == inode and "net:" in str(path.readlink()):
                return True
    return False


def _refused(who: str) -> Conflict:
    return Conflict(
        f"an agent is running in this network namespace{who}; stop it first, whatever paths its "
        "settings name"
    )
