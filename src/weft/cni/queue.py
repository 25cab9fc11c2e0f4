"""The queue of DELs that launchers wrote while no agent was there.

A directory of files <digest of the attachment>.req, one frame of the local protocol each, so a
repeated DEL replaces its own file. The agent listens first, then drains this, then serves: a
launcher that found nobody listening writes its file and knocks once more, so no DEL falls between.
A file may outlive its purpose (an agent that hung, then worked on): before acting on one, compare
`request.started_ns` with the time of the attachment's ADD, and leave a later ADD alone.

A file is written beside its place, under a lock that its writer's death gives up, and renamed.
Reading trusts nothing: regular files of root (or our own user) only, never through links, bounded;
whatever else is there is renamed to .bad and left for a person; but a request of a newer launcher
stays as it is, for the newer agent. The writer is native/launcher/queue.c.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from weft.model.attachment import AttachmentKey
from weft.model.errors import Conflict, PeerFault
from weft.wire.local import (
    MAX_REQUEST,
    VERSION,
    CniRequest,
    Frames,
    Kind,
    OtherVersion,
    decode_cni_request,
)

SUFFIX = ".req"
_HEADER = 12


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """One DEL that waits, and the file to drop when it is done."""

    path: Path
    request: CniRequest


def queued_path(directory: Path, key: AttachmentKey) -> Path:
    """Where a DEL of this attachment waits."""
    return directory / f"{key.digest.hex()}{SUFFIX}"


def read_queue(directory: Path, newer: list[str] | None = None) -> list[Queued]:
    """All waiting DELs, oldest first; an absent directory is an empty queue. The names of those
    that a newer launcher wrote are added to `newer`; they stay byte for byte.

    Raises Conflict where the directory is not one that only root, or our own user, can change:
    then somebody else may have written what is in it.
    """
    try:
        holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Conflict(
            f"{directory} is not a directory of the agent's ({error.strerror}); remove it"
        ) from error
    try:
        state = os.fstat(holder)
        if state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o022:
            raise Conflict(f"{directory} can be changed by others than root; remove it")
        left: list[str] = [] if newer is None else newer
        names = sorted(os.listdir(holder))
        found = [_read_entry(holder, directory, name, left) for name in names]
    finally:
        os.close(holder)
    waiting = [one for one in found if one is not None]
    return sorted(waiting, key=lambda one: one.request.started_ns)


def changed_at(directory: Path) -> int:
    """When a file came or went, in nanoseconds; 0 where there is no queue. Cheap: one stat."""
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


def quarantine(path: Path) -> None:
    """Set aside a request that cannot be understood; a person may look at it."""
    path.rename(path.with_name(path.name + ".bad"))


def drop(path: Path) -> None:
    """Takes a file out of the queue; one that is gone already is fine."""
    path.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove the queue: its own files, and the directory if nothing else is in it."""
    try:
        names = os.listdir(directory) if not directory.is_symlink() else []
    except OSError:  # none, or no directory: not ours
        return
    for name in names:
        if name.endswith((SUFFIX, ".tmp", ".bad")):
            with suppress(OSError):  # a directory of that name is somebody else's
                os.unlink(directory / name)
    with suppress(OSError):
        directory.rmdir()


def _read_entry(holder: int, directory: Path, name: str, newer: list[str]) -> Queued | None:
    if name.endswith(".bad"):
        return None
    if name.endswith(".tmp"):
        _clear_unfinished(holder, name)
        return None
    try:
        request = _read_request(holder, name) if name.endswith(SUFFIX) else None
    except FileNotFoundError:  # its launcher reached an agent and took it back
        return None
    except OtherVersion as error:
        if error.version > VERSION:
            newer.append(name)
            return None
        request = None
    except (PeerFault, OSError):
        request = None
    if request is None:
        _quarantine(holder, name)
        return None
    return Queued(path=directory / name, request=request)


def _read_request(holder: int, name: str) -> CniRequest | None:
    """The request in a file; None where it is not one that a launcher wrote."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=holder)
    state = os.fstat(descriptor)
    if (
        not stat.S_ISREG(state.st_mode)
        or state.st_uid not in (0, os.geteuid())
        or state.st_nlink != 1
        or state.st_size > MAX_REQUEST + _HEADER
    ):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        content = file.read(MAX_REQUEST + _HEADER + 1)
    cutter = Frames()
    frames = cutter.feed(content)
    cutter.finish()
    if len(frames) != 1 or frames[0].kind != Kind.CNI_REQUEST:
        return None
    return decode_cni_request(frames[0].payload)


def _quarantine(holder: int, name: str) -> None:
    """Out of the way, not out of sight: a later one of the same name replaces it."""
    try:
        os.rename(name, f"{name}.bad", src_dir_fd=holder, dst_dir_fd=holder)
    except OSError:
        return  # gone, or a directory over a file: it is ignored again next time


def _clear_unfinished(holder: int, name: str) -> None:
    """Remove what a killed launcher left half written; one that lives has its file locked."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=holder)
    except OSError:
        return  # renamed into place in this moment, or no file at all
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=holder)
    except OSError:
        return  # being written, or just renamed into place
    finally:
        os.close(descriptor)
