"""T34: files that are not what they seem, and peers that are not who they should be."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import strangers
from acceptance import SLACK, Answer, Host, ask, pool, problems, watched
from strangers import GROUP, MAIN, QUERY
from tricks import CASES, INSTALLED, KEPT, PRECIOUS, Case, harm, plant, tidy, victim_of
from weft.cni.install import place_launcher, write_conflist
from weft.lab import calls, cluster
from weft.model.errors import Conflict

AT_ONCE = 1.0 * SLACK
"""Seconds in which everything here ends: nothing may wait for a pipe's other end."""
SEED = 34
ASK = strangers.call("status")


def _begun(host: Host) -> subprocess.CompletedProcess[bytes]:
    """An agent that is expected to end by itself."""
    return host.node.run(
        cluster.agent_command(),
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
        timeout=3 * AT_ONCE,
    )


def _attached_and_detached(host: Host) -> list[Answer]:
    host.make(["tricked"])
    said = host.storm([ask("ADD", "tricked"), ask("DEL", "tricked")], workers=1)
    host.unmake(["tricked"])
    return said


def _tried(host: Host, case: Case) -> list[str]:
    """What is wrong with how one case ends."""
    calls.call(host.node, plant, case.path, case.trick)
    wrong = []
    alone = host.send(ask("DEL", "nobody"))
    if alone.seconds > AT_ONCE:
        wrong.append(f"DEL without agent took {alone.seconds:.1f} s")
    if case.queues:
        wrong += problems([alone])
    elif alone.code != 11 or b"/run/weft" not in alone.stdout:
        wrong.append(f"DEL without agent and queue says {alone.stdout!r}")
    began = time.monotonic()
    if case.says is not None:
        done = _begun(host)
        said = (done.stdout + done.stderr).decode()
        if done.returncode != 1 or case.path not in said or case.says not in said:
            wrong.append(f"the agent ends with {done.returncode} and says {said[-500:]!r}")
        if "Traceback" in said or PRECIOUS.decode().strip() in said:
            wrong.append(f"the agent shows too much: {said!r}")
    else:
        host.start()
        wrong += problems(_attached_and_detached(host))
        host.end(signal.SIGTERM)
    if time.monotonic() - began > 2 * AT_ONCE:
        wrong.append(f"took {time.monotonic() - began:.1f} s")
    done_harm = calls.call(host.node, harm, case.path)
    calls.call(host.node, tidy, case.path)
    return wrong + ([done_harm] if done_harm else [])


@pytest.mark.matrix(id="T34", full=len(CASES), reduced=12)
def test_no_trick_with_a_file_is_followed_waited_for_or_written_through(
    host: Host, count: int
) -> None:
    """All cases, or of each path some, by seed."""
    chosen = CASES
    if count < len(CASES):
        print(f"seed {SEED}")
        chosen = sorted(random.Random(SEED).sample(CASES, count), key=CASES.index)
    host.end(signal.SIGTERM)
    found = {str(case): wrong for case in chosen if (wrong := _tried(host, case))}
    host.start()
    assert not found
    assert not problems(_attached_and_detached(host))


def _installed(path: str) -> str:
    """Install at one path; "" if it was done, else why not."""
    place = Path(path)
    try:
        if place.suffix == ".conflist":
            write_conflist(place)
        else:
            place_launcher(place.parent)
    except Conflict as refused:
        return refused.message
    return ""


def _install_cases() -> list[str]:
    """Every trick at what is installed; what is wrong with how it ends. Runs inside the node."""
    wrong = []
    for path in INSTALLED:
        ours = Path(path).read_bytes()
        for trick in (*KEPT, "second name", "device"):
            plant(path, trick)
            said = _installed(path)
            if path not in said or harm(path):
                wrong.append(f"{path}, {trick}: {said!r} {harm(path)}")
            tidy(path)
        for mode in (0o777, 0o775):
            place = Path(path)
            place.unlink(missing_ok=True)
            place.parent.chmod(mode)
            if "lets others write" not in _installed(path) or place.exists():
                wrong.append(f"{path}: written to a directory of mode {mode:o}")
            place.parent.chmod(0o755)
        if _installed(path) or Path(path).read_bytes() != ours:
            wrong.append(f"{path}: not installed where all is well")
        victim_of(path).unlink(missing_ok=True)
    return wrong


def test_nothing_is_installed_over_what_is_not_ours(host: Host) -> None:
    assert calls.call(host.node, _install_cases) == []


# -- peers -----------------------------------------------------------------------------------------

GROUPED = f"socket:\n  group: {GROUP}\n"
CHANGES: dict[str, dict[str, Any]] = {
    "apply": {"object": pool("stolen", "10.9.0.0/16")},
    "delete": {"kind": "IPPool", "name": "default-ipv4", "force": True},
    "label": {"kind": "Pod", "name": "x", "set": {"a": "b"}},
    "ipam.release": {"address": "10.0.0.1", "force": True},
}
BROKEN = {
    "wrong magic": b"GET / HTTP/1.1\r\n\r\n",
    "newer version": struct.pack("<4sHHI", b"WFT1", 9, 3, 2) + b"{}",
    "oversized": struct.pack("<4sHHI", b"WFT1", 1, 3, (1 << 32) - 1) + b"x" * 4096,
    "unknown kind": struct.pack("<4sHHI", b"WFT1", 1, 99, 2) + b"{}",
    "an answer": struct.pack("<4sHHI", b"WFT1", 1, 2, 5) + bytes(5),
    "no JSON": struct.pack("<4sHHI", b"WFT1", 1, 3, 4) + b"\xff\xfe{}",
    "deep JSON": struct.pack("<4sHHI", b"WFT1", 1, 3, 100_000) + b"[" * 100_000,
}


@pytest.fixture(scope="module")
def grouped(_site: Any) -> Iterator[Host]:
    """A host whose socket.group is set, with its agent; given back as it was."""
    made = _site.make(GROUPED)
    with watched(made) as host:
        for _ in range(100):
            if host.node.path(QUERY).exists():
                break
            time.sleep(0.02)
        yield host


def _here(host: Host, function: Callable[..., Any], *arguments: Any) -> Any:
    return calls.call(host.node, function, *arguments, timeout=60.0)


@contextmanager
def _open_to_all(host: Host) -> Iterator[None]:
    """Modes as a careless person would leave them: now only the peers' credentials decide."""
    places = [(MAIN, 0o666), (QUERY, 0o666), ("/run/weft", 0o711), ("/run/weft-query", 0o711)]
    before = [(path, host.node.path(path).stat().st_mode & 0o7777) for path, _ in places]
    for path, mode in places:
        host.node.path(path).chmod(mode)
    try:
        yield
    finally:
        for path, mode in before:
            host.node.path(path).chmod(mode)


def test_sockets_are_where_and_what_only_those_meant_can_reach(grouped: Host) -> None:
    shown = grouped.shell(f"stat -c '%a %U %g' {MAIN} /run/weft {QUERY} /run/weft-query")
    assert shown.splitlines() == [
        "600 root 0",
        "700 root 0",
        f"660 root {GROUP}",
        f"750 root {GROUP}",
    ]
    assert not [name for name in _here(grouped, strangers.abstract_sockets) if "weft" in name]
    for path in (MAIN, QUERY):
        assert _here(grouped, strangers.as_stranger, path, ASK) == "refused: Permission denied"
    assert _here(grouped, strangers.as_member, MAIN, ASK) == "refused: Permission denied"


def test_who_is_neither_root_nor_a_member_is_not_answered_whatever_the_modes(
    grouped: Host,
) -> None:
    with _open_to_all(grouped):
        assert _here(grouped, strangers.as_stranger, MAIN, ASK) == "closed"
        assert _here(grouped, strangers.as_member, MAIN, ASK) == "closed"
        told = strangers.error_of(_here(grouped, strangers.as_stranger, QUERY, ASK))
        assert told["reason"] == "not-permitted" and str(strangers.USER) in told["message"]
        for frame in (ASK, strangers.verb("GC")):
            for outside in (strangers.USER, 100_000):  # root inside, nobody here
                for path in (MAIN, QUERY):
                    said = _root_elsewhere(grouped, path, frame, outside)
                    assert said in ("closed", "refused: Permission denied") or (
                        strangers.error_of(said).get("reason") == "not-permitted"
                    ), said
    assert '"ready"' in _here(grouped, strangers.as_root, MAIN, ASK)


def _root_elsewhere(host: Host, path: str, frame: bytes, outside: int) -> str:
    return str(_here(host, strangers.as_root_elsewhere, path, frame, outside))


def test_members_read_and_change_nothing(grouped: Host) -> None:
    before = grouped.snapshot()
    for primary in (True, False):
        assert '"ready"' in _here(grouped, strangers.as_member, QUERY, ASK, primary)
    reading = {"list": {"kind": "ippools"}, "ipam.show": {}, "ipam.check": {}, "findings": {}}
    for method, params in reading.items():
        said = _here(grouped, strangers.as_member, QUERY, strangers.call(method, params))
        assert not strangers.error_of(said), said
    for method, params in CHANGES.items():
        said = _here(grouped, strangers.as_member, QUERY, strangers.call(method, params))
        told = strangers.error_of(said)
        assert told["reason"] == "not-permitted"
        assert str(GROUP) in told["message"] and method in told["message"]
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        said = _here(grouped, strangers.as_member, QUERY, strangers.verb(verb))
        assert strangers.error_of(said)["reason"] == "not-permitted"
    said = _here(grouped, strangers.as_member, QUERY, strangers.call("reboot"))
    assert strangers.error_of(said)["reason"] == "unknown-method"
    assert grouped.settled(before) == []


def test_the_command_line_finds_the_socket_it_may_use(grouped: Host) -> None:
    code, said = _here(grouped, strangers.program, ["status"], True)
    assert code == 0 and "ready" in said, said
    code, said = _here(grouped, strangers.program, ["label", "pod", "x", "a=b"], True)
    assert code == 1 and "may not call label" in said and "sudo" in said
    code, said = _here(grouped, strangers.program, ["status"], False)
    assert code == 1 and "socket.group" in said


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_frame_costs_its_sender_the_connection_and_nobody_else_anything(
    grouped: Host, name: str
) -> None:
    files = grouped.descriptors
    for path, knock in ((MAIN, strangers.as_root), (QUERY, strangers.as_member)):
        said = _here(grouped, knock, path, BROKEN[name])
        assert said == "closed" or strangers.error_of(said), said
    assert '"ready"' in _here(grouped, strangers.as_root, MAIN, ASK)
    assert grouped.descriptors_left(files) <= files


def test_descriptors_that_nobody_asked_for_are_not_kept(grouped: Host) -> None:
    files = grouped.descriptors
    for descriptors in (1, 3, 100, 253):  # SCM_MAX_FD
        for path in (MAIN, QUERY):
            said = _here(grouped, strangers.as_root, path, ASK, descriptors)
            assert '"ready"' in said or "not-permitted" in said
    assert grouped.descriptors_left(files) <= files


@pytest.mark.parametrize(
    ("count", "part", "seconds"),
    [(1000, b"WFT1\x01", 3.5), (30, strangers.call("watch", {"kind": "events"}), 0.5)],
    ids=["half open", "slow reader"],
)
def test_members_who_hold_connections_do_not_keep_root_waiting(
    grouped: Host, count: int, part: bytes, seconds: float
) -> None:
    with ThreadPoolExecutor(1) as pool_:
        held = pool_.submit(_here, grouped, strangers.hold, QUERY, True, count, part, seconds)
        time.sleep(0.3)
        said = _attached_and_detached(grouped)
        status = grouped.send(ask("STATUS"))
        connected, closed = held.result()
    assert not problems([*said, status])
    assert max(each.seconds for each in (*said, status)) < 1.0 * SLACK
    assert connected >= min(count, 8)
    assert closed >= connected - 8  # those beyond a user's share at once, the others in time
    if seconds > 3:
        assert closed == connected


def test_a_thousand_half_open_connections_of_roots_leave_room(grouped: Host) -> None:
    files = grouped.descriptors
    with ThreadPoolExecutor(1) as pool_:
        held = pool_.submit(_here, grouped, strangers.hold, MAIN, False, 1000, b"WFT1", 1.0)
        time.sleep(0.5)
        said = _attached_and_detached(grouped)
        assert held.result()[0] == 1000
    assert not problems(said)
    assert max(each.seconds for each in said) < 1.0 * SLACK
    assert grouped.descriptors_left(files) <= files


def test_a_socket_that_a_stranger_made_is_neither_used_nor_left(host: Host) -> None:
    """A dead one is replaced; one that somebody listens on ends the start with its name."""
    host.end(signal.SIGTERM)
    with socket.socket(socket.AF_UNIX) as listener:
        _here(host, os.chmod, "/run/weft", 0o755)
        listener.bind(str(host.node.path(MAIN)))
        os.chown(host.node.path(MAIN), strangers.USER, strangers.USER)
        listener.listen(1)
        done = _begun(host)
        assert done.returncode == 1 and MAIN.encode() in done.stderr + done.stdout
    _here(host, os.chmod, "/run/weft", 0o700)
    host.start()
    assert not problems(_attached_and_detached(host))
    assert host.node.path(MAIN).stat().st_uid == 0
