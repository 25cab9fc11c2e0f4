"""DEL without an agent: queued before anything is done, the host link removed, exit status 0."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import ATTACHMENT, CONFIG, Launcher

from weft.cni.queue import Queued, drop, queued_path, read_queue
from weft.model.attachment import AttachmentKey
from weft.wire.local import FLAG_QUEUED, NETNS_NONE, CniAnswer, CniRequest, encode_cni_answer

KEY = AttachmentKey("weft", "c1", "eth0")


def only_queued(launcher: Launcher) -> Queued:
    assert [path.name for path in launcher.queue.iterdir()] == [f"{KEY.digest.hex()}.req"]
    (waiting,) = read_queue(launcher.queue)
    return waiting


def test_an_absent_agents_delete_waits_in_the_queue(launcher: Launcher) -> None:
    env = {**ATTACHMENT, "CNI_NETNS": "/proc/self/ns/net", "CNI_ARGS": "K=v"}
    begun = time.monotonic()
    run = launcher.call("DEL", env)
    assert time.monotonic() - begun < 2
    assert (run.status, run.stdout) == (0, b"")
    waiting = only_queued(launcher)
    assert waiting.path == queued_path(launcher.queue, KEY)
    assert waiting.request.variables() == {**env, "CNI_COMMAND": "DEL"}
    assert waiting.request.stdin == CONFIG
    assert (waiting.request.flags, waiting.request.netns_errno) == (FLAG_QUEUED, NETNS_NONE)
    assert waiting.path.stat().st_mode & 0o777 == 0o600
    assert launcher.queue.stat().st_mode & 0o777 == 0o700
    drop(waiting.path)
    assert read_queue(launcher.queue) == []


def test_the_run_directory_is_made_where_no_agent_ever_ran(launcher: Launcher) -> None:
    launcher.run_dir.rmdir()
    assert launcher.call("DEL").status == 0
    assert only_queued(launcher).request.stdin == CONFIG


def test_repeated_deletes_do_not_pile_up(launcher: Launcher) -> None:
    for number in range(3):
        launcher.call("DEL", {**ATTACHMENT, "CNI_ARGS": f"N={number}"})
    assert only_queued(launcher).request.variables()["CNI_ARGS"] == "N=2"


def test_a_pod_id_serves_where_the_container_id_is_absent(launcher: Launcher) -> None:
    assert launcher.call("DEL", {"CNI_PODID": "c1", "CNI_IFNAME": "eth0"}).status == 0
    only_queued(launcher)


@pytest.mark.parametrize("version", ["9.9.9", "x", "1.0.0"])
def test_a_delete_of_any_version_is_queued(launcher: Launcher, version: str) -> None:
    stdin = b'{"cniVersion":"%s","name":"weft"}' % version.encode()
    assert launcher.call("DEL", stdin=stdin).status == 0
    only_queued(launcher)


@pytest.mark.parametrize(
    ("env", "stdin", "code", "message"),
    [
        ({}, CONFIG, 4, "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"),
        ({"CNI_IFNAME": "eth0"}, CONFIG, 4, "required env variables [CNI_CONTAINERID] missing"),
        ({"CNI_CONTAINERID": "c"}, CONFIG, 4, "required env variables [CNI_IFNAME] missing"),
        *(
            ({"CNI_CONTAINERID": bad, "CNI_IFNAME": "eth0"}, CONFIG, 4, "CNI_CONTAINERID")
            for bad in (".", "..", "-rf", "a/../b", "a\n", "٣", "a\u202eb", "e\u0301", "a b")
        ),
        *(
            ({"CNI_CONTAINERID": "c", "CNI_IFNAME": bad}, CONFIG, 4, "CNI_IFNAME")
            for bad in ("x" * 16, "lo", "all", "default", "eth0%d", "../x", "a:b", "a\t", ".", "..")
        ),
        (ATTACHMENT, b"", 6, "not a JSON object"),
        (ATTACHMENT, b"[1]", 6, "not a JSON object"),
        (ATTACHMENT, b'{"name":"weft"', 6, "not a JSON object"),
        (ATTACHMENT, b'{"name":NaN}', 6, "not a JSON object"),
        (ATTACHMENT, b'{"x":' * 100_000, 6, "not a JSON object"),
        (ATTACHMENT, b'\xef\xbb\xbf{"name":"weft"}', 6, "not a JSON object"),
        (ATTACHMENT, '{"name":"weft"}'.encode("utf-16"), 6, "not a JSON object"),
        (ATTACHMENT, b'{"name":7}', 6, "no string"),
        (ATTACHMENT, b'{"cniVersion":"1.0.0"}', 7, "missing network name"),
        (ATTACHMENT, b'{"name":"x","NAME":null}', 7, "missing network name"),
        (ATTACHMENT, b'{"name":"../etc"}', 7, "name"),
        (ATTACHMENT, b'{"name":"a\\u0000b"}', 7, "name"),
    ],
)
def test_a_delete_that_names_no_attachment_is_refused(
    launcher: Launcher, env: dict[str, str], stdin: bytes, code: int, message: str
) -> None:
    error = launcher.call("DEL", env, stdin).error()
    assert error["code"] == code
    assert message in error["msg"]
    assert not launcher.queue.exists()


def with_link(alias: str | None, *, kind: str = "veth", name: str = KEY.host_link) -> list[str]:
    """Wraps a call: makes a link first, and after it shows on standard error what is left."""
    peer = " peer name other" if kind == "veth" else ""
    aliased = f"ip link set {name} alias '{alias}'" if alias is not None else "true"
    script = (
        f'ip link add {name} type {kind}{peer} && {aliased} && "$@"; r=$?; ip -o link >&2; exit $r'
    )
    return ["sh", "-c", script, "sh"]


def test_the_host_link_is_removed(launcher: Launcher) -> None:
    run = launcher.call("DEL", before=with_link("weft:1 weft c1 eth0 0a00 - -"))
    assert (run.status, run.stdout) == (0, b"")
    assert b"other" not in run.stderr and KEY.host_link.encode() not in run.stderr
    only_queued(launcher)


@pytest.mark.parametrize(
    ("alias", "kind"), [(None, "veth"), ("wef", "veth"), ("x weft:1", "veth"), ("weft:1", "bridge")]
)
def test_a_link_that_is_not_ours_stays(launcher: Launcher, alias: str | None, kind: str) -> None:
    run = launcher.call("DEL", before=with_link(alias, kind=kind))
    assert run.status == 0
    assert KEY.host_link.encode() in run.stderr


def test_another_attachments_link_stays(launcher: Launcher) -> None:
    other = AttachmentKey("weft", "c2", "eth0").host_link
    run = launcher.call("DEL", before=with_link("weft:1", name=other))
    assert other.encode() in run.stderr


def test_an_agents_refusal_of_the_second_knock_is_told_and_not_queued(launcher: Launcher) -> None:
    told = b'{"code":999}'
    answers = [b"", encode_cni_answer(CniAnswer(status=1, stdout=told))]

    def lose_first(request: CniRequest, descriptors: list[int]) -> bytes:
        return answers.pop(0)

    with launcher.agent(lose_first):
        run = launcher.call("DEL")
    assert (run.status, run.stdout) == (1, told)
    assert list(launcher.queue.iterdir()) == []


def spoil_with_link(launcher: Launcher, at: Path) -> None:
    target = launcher.home / "elsewhere"
    target.mkdir(exist_ok=True)
    at.symlink_to(target)


def spoil_with_open_mode(launcher: Launcher, at: Path) -> None:
    at.mkdir()
    at.chmod(0o777)


def spoil_with_owner(launcher: Launcher, at: Path) -> None:
    at.mkdir(mode=0o700)
    os.chown(at, 65534, 65534)


def spoil_with_fifo(launcher: Launcher, at: Path) -> None:
    os.mkfifo(at)


SPOILERS = [spoil_with_link, spoil_with_open_mode, spoil_with_owner, spoil_with_fifo]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_an_untrustworthy_queue_is_set_aside_and_the_delete_not_lost(
    launcher: Launcher, spoil: Callable[[Launcher, Path], None]
) -> None:
    spoil(launcher, launcher.queue)
    run = launcher.call("DEL")
    assert (run.status, run.stdout) == (0, b"")
    assert b"set aside" in run.stderr
    only_queued(launcher)
    assert os.path.lexists(launcher.run_dir / "queue.unsafe-1")
    assert list((launcher.home / "elsewhere").glob("*")) == []


@pytest.mark.parametrize("spoil", SPOILERS)
def test_an_untrustworthy_run_directory_is_not_used_and_the_delete_not_lost(
    launcher: Launcher, spoil: Callable[[Launcher, Path], None]
) -> None:
    launcher.run_dir.rmdir()
    spoil(launcher, launcher.run_dir)
    error = launcher.call("DEL").error()
    assert error["code"] == 11
    assert "could not be queued" in error["msg"]
    assert list((launcher.home / "elsewhere").glob("*")) == []
    if launcher.run_dir.is_symlink() or not launcher.run_dir.is_dir():
        launcher.run_dir.unlink()


def test_a_directory_in_place_of_a_queued_delete_makes_place(launcher: Launcher) -> None:
    launcher.queue.mkdir(mode=0o700)
    blocking = queued_path(launcher.queue, KEY)
    (blocking / "full").mkdir(parents=True)
    assert launcher.call("DEL").status == 0
    blocking.with_name(blocking.name + ".unsafe-1").rename(launcher.home / "was")
    only_queued(launcher)


def test_a_run_directory_in_one_that_others_may_change_is_not_used(launcher: Launcher) -> None:
    launcher.home.chmod(0o777)
    try:
        assert launcher.call("DEL").error()["code"] == 11
        launcher.home.chmod(0o1777)  # each his own, as in /tmp
        assert launcher.call("DEL").status == 0
    finally:
        launcher.home.chmod(0o700)


def _listen_as_stranger(path: Path, ready: int) -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        os.write(ready, b"x")
        while True:
            peer, _ = listener.accept()
            peer.sendall(encode_cni_answer(CniAnswer(status=0, stdout=b"{}")))
            peer.close()


def test_an_agent_that_is_not_roots_is_not_asked(launcher: Launcher) -> None:
    launcher.run_dir.chmod(0o777)
    launcher.home.chmod(0o755)
    ready, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _listen_as_stranger(launcher.socket, report)
        finally:
            os._exit(1)
    try:
        os.close(report)
        assert os.read(ready, 1) == b"x"
        launcher.run_dir.chmod(0o700)
        assert launcher.call("ADD").error()["code"] == 11
        assert launcher.call("STATUS").error()["code"] == 50
        assert launcher.call("DEL").status == 0
        only_queued(launcher)
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        launcher.home.chmod(0o700)


def test_a_symbolic_link_in_the_queue_is_replaced_and_never_followed(launcher: Launcher) -> None:
    launcher.queue.mkdir(mode=0o700)
    target = launcher.home / "target"
    target.write_bytes(b"precious")
    queued_path(launcher.queue, KEY).symlink_to(target)
    assert launcher.call("DEL").status == 0
    assert target.read_bytes() == b"precious"
    assert not only_queued(launcher).path.is_symlink()


def test_a_socket_in_place_of_the_namespace_does_not_hinder(launcher: Launcher) -> None:
    path = launcher.run_dir / "s"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        assert launcher.call("DEL", {**ATTACHMENT, "CNI_NETNS": str(path)}).status == 0
    only_queued(launcher)
