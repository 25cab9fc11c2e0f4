"""Peers that are not root, for T34: processes that give up who they are and then knock.

Everything here runs inside a lab node, in a process of its own (`weft.lab.calls`), so that giving
up root costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import socket
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from weft.lab import libc
from weft.wire.local import ApiRequest, CniRequest, Frames, encode_api, encode_cni_request

USER = 4242
GROUP = 4343
CLONE_NEWUSER = 0x10000000
MAIN, QUERY = "/run/weft/agent.sock", "/run/weft-query/query.sock"
LIMIT = 5.0


def become(uid: int = USER, gid: int = USER, groups: Sequence[int] = ()) -> None:
    """Be somebody else, for good."""
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def become_root_elsewhere(outside: int) -> None:
    """Root of a user namespace of one's own, who is the user `outside` in this one."""
    ready, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # the child is who goes on
        if outside == USER:  # what anybody may do
            become()
        libc.unshare(CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.read(told[0], 1)
        if outside != USER:  # what a runtime does for a container with a user namespace
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        assert os.getuid() == 0
        return
    os.read(ready[0], 1)
    for name in ("gid_map", "uid_map"):
        _write(f"/proc/{child}/{name}", f"0 {outside} {1 if outside == USER else 65536}")
    os.write(told[1], b"x")
    os.waitpid(child, 0)
    os._exit(0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def knock(path: str, frame: bytes, descriptors: int = 0) -> str:
    """Send one frame; "refused: ERRNO", "closed" without an answer, or what was answered."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT)
        try:
            sock.connect(path)
            if descriptors:
                passed = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
                socket.send_fds(sock, [frame], passed)
            else:
                sock.sendall(frame)
        except BrokenPipeError:
            pass  # closed at once; an answer may be there all the same
        except OSError as error:
            return f"refused: {os.strerror(error.errno or 0)}"
        return _heard(sock)


def _heard(sock: socket.socket) -> str:
    frames = Frames(limit=64 << 20)
    try:
        while data := sock.recv(1 << 16):
            if found := frames.feed(data):
                return found[0].payload.decode(errors="replace")
    except TimeoutError:
        return "no answer in time"
    except OSError:
        pass
    return "closed"


def call(method: str, params: dict[str, Any] | None = None) -> bytes:
    """The frame of an API call."""
    return encode_api(ApiRequest(method=method, params=params or {}))


def verb(name: str) -> bytes:
    """The frame of a CNI call."""
    environment = (("CNI_COMMAND", name), ("CNI_CONTAINERID", "x"), ("CNI_IFNAME", "eth0"))
    stdin = b'{"cniVersion":"1.1.0","name":"weft","type":"weft","cni.dev/valid-attachments":[]}'
    return encode_cni_request(CniRequest(program="weft", environment=environment, stdin=stdin))


def as_stranger(path: str, frame: bytes) -> str:
    """A user who is in no group of the agent's."""
    become()
    return knock(path, frame)


def as_member(path: str, frame: bytes, primary: bool = False) -> str:
    """A user who has the group, as first or as supplementary one."""
    become(gid=GROUP) if primary else become(groups=[77, GROUP])
    return knock(path, frame)


def as_root_elsewhere(path: str, frame: bytes, outside: int) -> Any:
    """Root of another user namespace."""
    become_root_elsewhere(outside)
    return knock(path, frame)


def as_root(path: str, frame: bytes, descriptors: int = 0) -> str:
    """The agent's own master."""
    return knock(path, frame, descriptors)


def hold(path: str, member: bool, count: int, part: bytes, seconds: float) -> list[int]:
    """Connect so often, send a part of a frame each and stay; how many were connected, and how
    many of them the agent had closed at the end."""
    if member:
        become(gid=GROUP)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096) if member else _files())
    held = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the backlog may be full
            sock.connect(path)
            sock.send(part)
            held.append(sock)
    time.sleep(seconds)
    closed = 0
    for sock in held:
        with contextlib.suppress(BlockingIOError):
            with contextlib.suppress(ConnectionError):
                while sock.recv(1 << 16):
                    pass
            closed += 1
    return [len(held), closed]


def _files() -> tuple[int, int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard, hard


def watch_without_reading(count: int, seconds: float) -> list[int]:
    """Ask for everything again and again and never read."""
    return hold(QUERY, True, count, call("watch", {"kind": "pods"}), seconds)


def program(arguments: list[str], member: bool) -> tuple[int, str]:
    """The command line as somebody who is not root; status, and what was printed."""
    from weft.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main(["status"])  # loads what a stranger may not read from where it is installed
        out.truncate(0)
        become(groups=[GROUP] if member else [])
        code = main(arguments)
    return code, out.getvalue() + err.getvalue()


def abstract_sockets() -> list[str]:
    """Names that need no permission to connect to, listened on in this namespace."""
    with open("/proc/net/unix") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [row[7] for row in rows if len(row) > 7 and row[7].startswith("@")]


def error_of(answer: str) -> dict[str, Any]:
    """An error's members; {} for anything else."""
    try:
        found = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) and "reason" in found else {}
