"""T34's file cases as data: what is planted where, and what has to become of it.

A trick puts something of its own at a path that agent, launcher or installer open. `victim` is a
file of the same file system with content that nobody may change, follow or wait for. Everything
here runs inside a lab node.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

PRECIOUS = b"root:x:0:0:precious\n"
STRANGER = 54321
RUN, STATE, ETC = Path("/run/weft"), Path("/var/lib/weft"), Path("/etc/weft")

Plant = Callable[[Path, Path], None]


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("nowhere"))


def _circle(path: Path, victim: Path) -> None:
    path.symlink_to(path)


def _name(path: Path, victim: Path) -> None:
    os.link(victim, path)


def _pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o600)


def _directory(path: Path, victim: Path) -> None:
    (path / "inside").mkdir(parents=True)


def _device(path: Path, victim: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which never ends


def _socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _strangers(path: Path, victim: Path) -> None:
    path.write_bytes(b"600\n")
    os.chown(path, STRANGER, STRANGER)


def _writable(path: Path, victim: Path) -> None:
    path.write_bytes(b"600\n")
    path.chmod(0o666)


def _link_to_directory(path: Path, victim: Path) -> None:
    elsewhere = victim.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    path.symlink_to(elsewhere)


def _open_directory(path: Path, victim: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _strangers_directory(path: Path, victim: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, STRANGER, STRANGER)


TRICKS: dict[str, Plant] = {
    "link": _link,
    "dangling link": _dangling,
    "link in a circle": _circle,
    "second name": _name,
    "pipe": _pipe,
    "directory": _directory,
    "device": _device,
    "socket": _socket,
    "stranger's file": _strangers,
    "writable file": _writable,
    "link to a directory": _link_to_directory,
    "directory of mode 0777": _open_directory,
    "stranger's directory": _strangers_directory,
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One trick at one path. `says` None: the agent starts all the same; else it refuses, within
    seconds, with a message that names the path and holds these words."""

    path: str
    trick: str
    says: str | None = None
    queues: bool = True  # whether a DEL without agent is still done and answered with 0

    def __str__(self) -> str:
        return f"{self.path}: {self.trick}"


def _cases(path: str, says: str | None, *tricks: str, queues: bool = True) -> list[Case]:
    return [Case(path=path, trick=each, says=says, queues=queues) for each in tricks]


UNSAFE = "not safe to use"
CASES: list[Case] = [
    # the store: what people asked for is never guessed at, so the agent does not start
    *_cases("/var/lib/weft/store.db", UNSAFE, "link", "dangling link", "link in a circle"),
    *_cases("/var/lib/weft/store.db", UNSAFE, "second name", "pipe", "directory", "device"),
    *_cases("/var/lib/weft/store.db", UNSAFE, "socket", "stranger's file", "writable file"),
    *_cases("/var/lib/weft/store.db-wal", UNSAFE, "link", "second name", "pipe", "directory"),
    *_cases("/var/lib/weft/store.db-shm", UNSAFE, "link", "dangling link"),
    # the journal: set aside, and read back from the kernel
    *_cases("/run/weft/journal.db", None, "link", "dangling link", "link in a circle", "pipe"),
    *_cases("/run/weft/journal.db", None, "second name", "directory", "device", "socket"),
    *_cases("/run/weft/journal.db", None, "stranger's file", "writable file"),
    *_cases("/run/weft/journal.db-wal", None, "link", "second name", "pipe", "directory"),
    *_cases("/run/weft/journal.db-shm", None, "link", "dangling link"),
    # directories
    *_cases("/run/weft", UNSAFE, "link to a directory", "pipe", queues=False),
    *_cases("/run/weft", UNSAFE, "directory of mode 0777", queues=False),
    *_cases("/run/weft", UNSAFE, "stranger's directory", "link in a circle", queues=False),
    # the queue: the launcher makes place for one of its own
    *_cases("/run/weft/queue", None, "link to a directory", "pipe", "stranger's directory"),
    *_cases("/run/weft/queue", None, "directory of mode 0777", "dangling link", "device"),
    # the socket
    *_cases("/run/weft/agent.sock", "not a socket", "link", "pipe", "directory", "device"),
    *_cases("/run/weft/agent.sock", None, "socket"),
    # small files
    *_cases("/run/weft/add-timeout", None, "link", "second name", "pipe", "writable file"),
    *_cases("/run/weft/add-timeout", UNSAFE, "directory"),
    *_cases("/run/weft/boot-id", UNSAFE, "pipe", "link", "stranger's file"),
    # settings may be a link, as mounted volumes have it, but only to a file of root's
    *_cases("/etc/weft/weft.yaml", UNSAFE, "pipe", "directory", "device", "stranger's file"),
    *_cases("/etc/weft/weft.yaml", UNSAFE, "writable file", "link in a circle"),
    *_cases("/etc/weft/weft.yaml", "a document must be a mapping", "link", "second name"),
]

INSTALLED = ("/opt/cni/bin/weft", "/etc/cni/net.d/10-weft.conflist")
KEPT = ("link", "dangling link", "link in a circle", "pipe", "directory", "socket")


def victim_of(path: str) -> Path:
    """A file that a second name at `path` can be given to."""
    for top in ("/var/lib/weft", "/etc/weft", "/etc/cni", "/opt/cni"):
        if path.startswith(f"{top}/"):
            return Path(top, "victim")
    return Path("/run/victim")


def kept(path: str) -> Path:
    """Where what belongs at `path` lies meanwhile."""
    return victim_of(path).with_name("kept")


def plant(path: str, trick: str) -> None:
    """Take away what is at `path`, and put the trick there."""
    victim = victim_of(path)
    victim.write_bytes(PRECIOUS)
    victim.chmod(0o600)
    if os.path.lexists(path):
        Path(path).rename(kept(path))
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    TRICKS[trick](Path(path), victim)


def harm(path: str) -> str:
    """What the victim came to, or ""."""
    victim = victim_of(path)
    found = victim.read_bytes() if victim.is_file() else b"gone"
    mode = stat.S_IMODE(victim.stat().st_mode)
    elsewhere = victim.with_name("elsewhere")
    if elsewhere.is_dir() and list(elsewhere.iterdir()):
        return f"something was written behind the link: {list(elsewhere.iterdir())}"
    return "" if (found, mode) == (PRECIOUS, 0o600) else f"{victim} holds {found!r}, mode {mode:o}"


def tidy(path: str) -> None:
    """Remove the trick, its victim, and what was set aside for it; put back what was there."""
    victim = victim_of(path)
    place = Path(path)
    for left in (place, victim, victim.with_name("elsewhere")):
        clear(str(left))
    for aside in place.parent.glob("*.unsafe-*"):
        clear(str(aside))
    if kept(path).exists():
        kept(path).rename(path)


def clear(path: str) -> None:
    """Remove whatever is there."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
