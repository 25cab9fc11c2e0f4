"""Files that nobody but root may have touched.

Everything weft keeps lies in directories that only root can change, all the way up to `/`. That is
checked first, and what is checked then stays so: nobody else can put a link, a pipe or a file of
theirs in between. What lies there is opened without following links and without waiting for a
pipe's other end, and looked at before it is read. What is written appears whole under its name or
not at all, and never through what was there before.

Root, here, is user 0 or the user of this process. Next: `agent.places` for the agent's own paths.
"""

from __future__ import annotations

import fcntl
import glob
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from weft.model.errors import Conflict, NotFound

MAX_LINKS = 40
"""Symbolic links on the way to a directory, as the kernel has it (path_resolution(7))."""


_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE = 1 << 16
_COMPANIONS = ("", "-wal", "-shm", "-journal")
"""What SQLite opens beside a database, following links (sqlite.org/tempfiles.html)."""


def check_directory(path: Path) -> None:
    """Raise Conflict unless `path` is a directory, no link, that only root can change, and only
    root can put another in its place; NotFound where there is none."""
    parent, name = _holder(path)
    try:
        found = _lstat(parent, name, path)
    finally:
        os.close(parent)
    if not stat.S_ISDIR(found.st_mode):
        raise _unsafe(path, f"it is {kind_of(found.st_mode)}, and must be a directory")
    _check_owner(found, path)
    if found.st_mode & _OTHERS:
        raise _unsafe(path, f"its mode {stat.S_IMODE(found.st_mode):04o} lets others write")


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make the directory and its parents where they are missing; raises Conflict where what is
    there is not safe."""
    refused: OSError | None = None
    for each in (*reversed(path.parents), path):
        try:
            each.mkdir(mode=mode if each == path else 0o755)
        except OSError as error:
            if not isinstance(error, FileExistsError):
                refused = error
    try:
        check_directory(path)
    except NotFound:
        if refused is None:
            raise
        raise refused from None


def check_file(path: Path, *, names: int | None = 1) -> bool:
    """Whether there is a regular file of root's that nobody else can write; False: there is
    nothing. Raises Conflict for anything else, and for a file of more than `names` names.

    Its directory is the caller's to check, once for all files in it.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    _check_regular(found, path, names)
    return True


def check_database(path: Path) -> None:
    """`check_file` for an SQLite database and the files that SQLite opens beside it."""
    for each in companions(path):
        check_file(each)


def companions(path: Path) -> list[Path]:
    """A database and the files that SQLite keeps beside it, whether they are there or not."""
    return [path.with_name(path.name + suffix) for suffix in _COMPANIONS]


def read(path: Path, limit: int, *, linked: bool = False) -> bytes:
    """The content of a file that only root can have written, at most `limit` octets.

    Raises NotFound, or Conflict for what is not safe or too large. With `linked` the file may be
    a symbolic link, as configuration often is, if every directory on its way is root's.
    """
    parent, name = _holder(path)
    try:
        if linked:
            name = _follow(parent, name, path)
        found = _lstat(parent, name, path)
        _check_regular(found, path, None)
        descriptor = os.open(name, _READ, dir_fd=parent)
    finally:
        os.close(parent)
    with open(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Conflict(f"{path} is larger than {limit} octets", reason="unsafe-path")
    return content


def glance(path: Path, limit: int) -> bytes | None:
    """The first octets of a regular file, whoever wrote it; None for anything else. Follows
    links and never waits: for those who only report."""
    try:
        descriptor = os.open(path, _READ & ~os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = bytearray()
        try:
            # files below /proc/sys refuse a read of more than the kernel may allocate in one piece
            while len(content) < limit and (more := file.read1(min(_PIECE, limit - len(content)))):
                content += more
        except OSError:
            return None
    return bytes(content)


def replace(path: Path, content: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Write a file beside its place and rename it; what was there is not written to, whatever it
    was. `durable`: on the disk before it is seen. The unfinished name begins with a dot and ends
    in .tmp: nobody takes it for the file. Raises Conflict where the directory is not safe."""
    check_directory(path.parent)
    clear_unfinished(path)
    descriptor, lock, unfinished = _begin(path)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), 0, 0)
            if durable:
                os.fsync(file.fileno())
        # locked until it is in its place, and no longer open for writing when it is: nobody could
        # execute it (ETXTBSY)
        os.rename(unfinished, path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        if isinstance(error, IsADirectoryError):
            raise _unsafe(path, "it is a directory, and must be a file") from error
        raise
    finally:
        os.close(lock)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def replace_link(path: Path, target: Path) -> None:
    """Let `path` be a symbolic link to `target` from one moment to the next: there is none in which
    it is missing. Raises Conflict where something else than a link lies there."""
    check_directory(path.parent)
    if os.path.lexists(path) and not path.is_symlink():
        raise _unsafe(path, "it must be a symbolic link")
    clear_link(path)
    unfinished = _unfinished_link(path)
    unfinished.symlink_to(target)
    unfinished.rename(path)


def clear_link(path: Path) -> None:
    """Remove what a killed `replace_link` left; only one writer may be at work on `path`."""
    _unfinished_link(path).unlink(missing_ok=True)


def _unfinished_link(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.link.tmp")


def append(path: Path) -> BinaryIO:
    """A log to write at the end of, made where it is missing; raises Conflict where something
    else lies there."""
    check_directory(path.parent)
    check_file(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "ab", buffering=0)


def set_aside(paths: Iterable[Path]) -> list[Path]:
    """Rename what is there, whatever it is, to the first free name NAME.unsafe-N; the new names."""
    present = [path for path in paths if os.path.lexists(path)]
    number = 1
    while any(os.path.lexists(f"{path}.unsafe-{number}") for path in present):
        number += 1
    return [path.rename(f"{path}.unsafe-{number}") for path in present]


def kind_of(mode: int) -> str:
    """A file's type in words."""
    for test, words in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    ):
        if test(mode):
            return words
    return "a file"


def _begin(path: Path) -> tuple[int, int, str]:
    """A new file beside the path: a descriptor to write it, one for reading that has it locked, and
    its name. What nobody has locked is what a killed writer left. Another writer may clear it away
    in the moment before it is locked."""
    while True:
        descriptor, unfinished = tempfile.mkstemp(
            prefix=f".{path.name[:200]}.", suffix=".tmp", dir=path.parent
        )
        lock = -1
        with suppress(BlockingIOError, FileNotFoundError):
            lock = os.open(unfinished, _READ)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return descriptor, lock, unfinished
        os.close(descriptor)
        if lock >= 0:
            os.close(lock)


def clear_unfinished(path: Path) -> None:
    """Remove what writers left that were killed; one that is at work has its file locked."""
    for left in path.parent.glob(f".{glob.escape(path.name[:200])}.*.tmp"):
        # an error: it is being written, was renamed in this moment, or is no file at all
        with suppress(OSError), open(os.open(left, _READ), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _holder(path: Path) -> tuple[int, str]:
    """The directory that holds `path`, reached through directories of root's only, and the last
    part of the path."""
    if not path.is_absolute() or path.name in ("", ".."):
        raise Conflict(f"{path} is not the absolute path of a thing", reason="unsafe-path")
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _walk(here, list(path.parts[1:-1]), path)
    except BaseException:
        os.close(here)
        raise
    return here, path.name


def _walk(here: int, parts: list[str], path: Path, seen: Path = Path("/")) -> None:
    """Move the descriptor `here`, which stands for `seen`, down; each step is checked before it is
    taken. A link that root made in a directory of root's is followed: /var/run is one on many
    machines."""
    _check_holder(os.fstat(here), path, str(seen))
    links = 0
    while parts:
        part = parts.pop(0)
        found = _lstat(here, part, path)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MAX_LINKS:
                raise _unsafe(path, "its directories are links in a circle")
            _check_owner(found, path, str(seen / part))
            target = Path(os.readlink(part, dir_fd=here))
            parts = [*_steps(target), *parts]
            if target.is_absolute():
                _move(here, "/")
                seen = Path("/")
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise _unsafe(path, f"{seen / part} is {kind_of(found.st_mode)} and no directory")
        _check_holder(found, path, str(seen / part))
        _move(here, part)
        seen = seen / part


def _steps(target: Path) -> list[str]:
    return [part for part in target.parts if part != "/"]


def _move(here: int, part: str) -> None:
    """Let the descriptor `here` stand for the directory `part` in it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    there = os.open(part, flags, dir_fd=None if part == "/" else here)
    os.dup2(there, here, inheritable=False)
    os.close(there)


def _follow(parent: int, name: str, path: Path) -> str:
    """Move `parent` to the directory where a chain of links ends; the name there."""
    for _ in range(MAX_LINKS):
        found = _lstat(parent, name, path)
        if not stat.S_ISLNK(found.st_mode):
            return name
        _check_owner(found, path)
        target = Path(os.readlink(name, dir_fd=parent))
        steps = _steps(target)
        if not steps or steps[-1] == "..":
            raise _unsafe(path, "it is a link to a directory, and must be a file")
        if target.is_absolute():
            _move(parent, "/")
        _walk(parent, steps[:-1], path, Path("/") if target.is_absolute() else path.parent)
        name = steps[-1]
    raise _unsafe(path, "it is one of several links in a circle")


def _lstat(parent: int, name: str, path: Path) -> os.stat_result:
    try:
        descriptor = os.open(name, _LOOK, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist") from None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _check_holder(found: os.stat_result, path: Path, step: str) -> None:
    """A directory above: others may make their own entries in it (/tmp), but not change ours."""
    _check_owner(found, path, step)
    by_others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid)
    if by_others and not found.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(found.st_mode)
        raise _unsafe(path, f"the mode {mode:04o} of {step} lets others write")


def _check_owner(found: os.stat_result, path: Path, step: str = "") -> None:
    if found.st_uid not in (0, os.geteuid()):
        whose = f"{step} belongs" if step else "it belongs"
        raise _unsafe(path, f"{whose} to user {found.st_uid}")


def _check_regular(found: os.stat_result, path: Path, names: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(path, f"it is {kind_of(found.st_mode)}, and must be a file")
    _check_owner(found, path)
    if found.st_mode & _OTHERS:
        raise _unsafe(path, f"its mode {stat.S_IMODE(found.st_mode):04o} lets others write")
    if names is not None and found.st_nlink > names:
        raise _unsafe(path, f"the same file has {found.st_nlink} names")


def _unsafe(path: Path, why: str) -> Conflict:
    return Conflict(
        f"{path} is not safe to use: {why}; see who made it, then move it away or give it to root "
        "alone",
        reason="unsafe-path",
    )
