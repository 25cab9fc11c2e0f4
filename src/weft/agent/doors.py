"""Who may enter by which socket, and how much room is there.

A door makes its directory and its socket so that others cannot reach them, and asks the kernel who
each peer is: `SO_PEERCRED` gives the ids that the peer had when it connected, as this process's
user namespace sees them, so root of another user namespace is not root here (unix(7)). The root
door lets in everything; the group door is a smaller room beside it, whose callers may only read
(`wire.api`) and cannot take what root's calls need. Next: `agent.server`, which serves a door.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from weft.kernel import files
from weft.wire.local import MAX_REQUEST, ApiError, encode_api

SO_PEERGROUPS = 59
"""Supplementary groups of the peer, from Linux 4.13 (include/uapi/asm-generic/socket.h)."""
MAX_GROUPS = 256
"""Python asks for at most 1024 octets of a socket option; who is in more groups is not let in."""
OVERFLOW = 65534
"""What stands for every id that this user namespace does not have (user_namespaces(7))."""

_CREDENTIALS = struct.Struct("=iII")


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end. `group`: by which he was let in, "" for root. `refusal`: what to
    answer before closing, for one who is not let in."""

    uid: int
    group: str = ""
    refused: bool = False
    refusal: bytes = b""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much one door may take of the agent. Times in seconds, sizes in octets."""

    at_once: int = 8  # connections accepted in one turn, so that a burst cannot starve timers
    breath: float = 0.0  # between two such turns
    idle: float = 10.0  # in which a peer must have sent its whole request
    stall: float = 60.0  # in which a peer must have taken something of its answer
    stall_streams: bool = False  # whether that holds for streams too, or BACKLOG_LIMIT alone
    request: int = MAX_REQUEST
    connections: int | None = None  # None: as many as descriptors allow
    takes_descriptors: bool = True


class Door(Protocol):
    """One way in."""

    @property
    def room(self) -> Room:
        """What its callers may take."""

    def prepare(self, path: Path) -> None:
        """Make the socket's directory. Raises Conflict where it is not safe."""

    def bind(self, sock: socket.socket, path: Path) -> None:
        """Bind the socket so that at no moment anybody else can connect."""

    def admit(self, sock: socket.socket, present: Iterable[int]) -> Guest:
        """Who this is, given the user ids of those who are inside."""


class RootDoor:
    """Root's alone: a socket of mode 0600 in a directory that only root may enter."""

    room = Room()

    def prepare(self, path: Path) -> None:
        """The directory has mode 0700 where it is made here."""
        files.make_directory(path.parent, 0o700)

    def bind(self, sock: socket.socket, path: Path) -> None:
        """Mode 0600 from the first moment."""
        _bind_closed(sock, path)

    def admit(self, sock: socket.socket, present: Iterable[int]) -> Guest:
        """User 0, or the agent's own where it is another."""
        uid, _ = peer_ids(sock)
        return Guest(uid=uid, refused=uid not in (0, os.geteuid()))


class GroupDoor:
    """A group's: mode 0660 in a directory of 0750, both root's and the group's."""

    room = Room(
        at_once=4,
        breath=0.05,
        idle=3.0,
        stall=10.0,
        stall_streams=True,
        request=64 << 10,
        connections=64,
        takes_descriptors=False,
    )
    each = 8
    """Connections that one user may have."""

    def __init__(self, gid: int, name: str) -> None:
        self.gid = gid
        self.name = name

    def prepare(self, path: Path) -> None:
        """Make the directory, or give an empty one of ours to this group."""
        directory = path.parent
        files.make_directory(directory, 0o700)
        if set(os.listdir(directory)) <= {path.name}:  # nobody else's, then
            _give(directory, self.gid, 0o750)

    def bind(self, sock: socket.socket, path: Path) -> None:
        """Closed first, then opened to the group."""
        _bind_closed(sock, path)
        _give(path, self.gid, 0o660)

    def admit(self, sock: socket.socket, present: Iterable[int]) -> Guest:
        """Root, or who has the group as first or supplementary one."""
        uid, gid = peer_ids(sock)
        if uid != 0 and self.gid not in {gid, *peer_groups(sock)}:
            refusal = _error(
                "not-permitted",
                f"user {uid} is not in the group {self.name}, which socket.group lets in; run it "
                "as root, or join the group and log in again",
            )
            return Guest(uid=uid, refused=True, refusal=refusal)
        if Counter(present)[uid] >= self.each:
            refusal = _error(
                "busy",
                f"user {uid} has {self.each} calls open on this socket already; end one of them",
            )
            return Guest(uid=uid, refused=True, refusal=refusal)
        return Guest(uid=uid, group=self.name)


def peer_ids(sock: socket.socket) -> tuple[int, int]:
    """User and group of the process that connected, or that listens (unix(7), SO_PEERCRED)."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(packed)
    return uid, gid


def peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """The peer's supplementary groups; none where the kernel does not say."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_GROUPS * 4)
    except OSError:
        return ()
    return struct.unpack(f"={len(packed) // 4}I", packed)


def _bind_closed(sock: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _give(path: Path, gid: int, mode: int) -> None:
    """Hand to a group what is ours and in a directory of root's: nobody can swap it meanwhile."""
    if stat.S_ISLNK(os.lstat(path).st_mode):
        return
    with suppress(PermissionError):  # an agent that is not root, in a test
        os.chown(path, -1, gid)
    os.chmod(path, mode)


def _error(reason: str, message: str) -> bytes:
    return encode_api(ApiError(reason=reason, message=message))
