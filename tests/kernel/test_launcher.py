"""The launcher beside an agent: what it hands over, what it prints, when it gives up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import ATTACHMENT, COMPILE, CONFIG, Launcher, stay_silent, succeed

from weft.wire.local import (
    LAUNCHER_PROTOCOL,
    NETNS_NONE,
    CniAnswer,
    CniRequest,
    encode_cni_answer,
    encode_frame,
)


def test_hands_over_environment_input_and_type_name(launcher: Launcher) -> None:
    env = {**ATTACHMENT, "CNI_ARGS": "A=b;C=d", "TRACEPARENT": "00-1", "HOME": "/root", "CNIX": "1"}
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with launcher.agent(succeed(b'{"cniVersion":"1.0.0"}')) as agent:
        run = launcher.call("ADD", env)
    assert (run.status, run.stdout, run.stderr) == (0, b'{"cniVersion":"1.0.0"}', b"")
    (request,) = agent.requests
    assert request.program == "weft"
    assert request.stdin == CONFIG
    assert request.variables() == {
        **ATTACHMENT,
        "CNI_ARGS": "A=b;C=d",
        "TRACEPARENT": "00-1",
        "CNI_COMMAND": "ADD",
    }
    assert (request.netns_errno, request.flags) == (NETNS_NONE, 0)
    assert request.protocol == LAUNCHER_PROTOCOL
    assert before < request.started_ns < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_type_name_is_what_it_was_executed_as(launcher: Launcher) -> None:
    other = launcher.home / "weft-fast"
    other.unlink(missing_ok=True)
    other.symlink_to(launcher.program)
    with launcher.agent(succeed()) as agent:
        subprocess.run([other], env={"CNI_COMMAND": "STATUS"}, stdin=subprocess.DEVNULL, check=True)
    assert agent.requests[0].program == "weft-fast"


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_prints_the_agents_error_as_it_is_and_exits_1(launcher: Launcher, verb: str) -> None:
    told = b'{"code":7,"msg":"\xc3\xa9\\n"}\n'
    answer = encode_cni_answer(CniAnswer(status=7, stdout=told))
    with launcher.agent(lambda request, descriptors: answer):
        run = launcher.call(verb)
    assert (run.status, run.stdout) == (1, told)
    assert not launcher.queue.exists()


def test_large_input_and_answer_pass_whole(launcher: Launcher) -> None:
    stdin = b'{"name":"weft","x":"' + b"y" * (1024 * 1024 - 22) + b'"}'
    assert len(stdin) == 1024 * 1024
    result = b"z" * (1024 * 1024)
    with launcher.agent(succeed(result)) as agent:
        run = launcher.call("ADD", stdin=stdin)
    assert agent.requests[0].stdin == stdin
    assert run.stdout == result


def test_passes_the_namespace_itself(launcher: Launcher) -> None:
    seen: list[tuple[int, int]] = []

    def look(request: CniRequest, descriptors: list[int]) -> bytes:
        (descriptor,) = descriptors
        state = os.fstat(descriptor)
        seen.append((request.netns_errno, state.st_ino))
        os.set_inheritable(descriptor, True)
        entered = ["nsenter", f"--net=/proc/self/fd/{descriptor}", "readlink", "/proc/self/ns/net"]
        name = subprocess.run(entered, close_fds=False, capture_output=True, check=True).stdout
        assert name.strip() == f"net:[{state.st_ino}]".encode()
        return encode_cni_answer(CniAnswer(status=0, stdout=b""))

    pod = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        path = Path(f"/proc/{pod.pid}/ns/net")
        machine = Path("/proc/self/ns/net").stat().st_ino
        while path.stat().st_ino == machine:
            time.sleep(0.01)
        with launcher.agent(look):
            launcher.call("ADD", {**ATTACHMENT, "CNI_NETNS": str(path)})
        inode = path.stat().st_ino
    finally:
        pod.communicate()
    assert seen == [(0, inode)]


def test_a_fifo_as_namespace_neither_blocks_nor_wakes_its_writer(launcher: Launcher) -> None:
    fifo = launcher.run_dir / "fifo"
    os.mkfifo(fifo)
    woken: list[bool] = []

    def look(request: CniRequest, descriptors: list[int]) -> bytes:
        assert request.netns_errno == 0
        assert os.readlink(f"/proc/self/fd/{descriptors[0]}") == str(fifo)
        try:  # opens only while somebody reads
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            woken.append(True)
        except OSError:
            woken.append(False)
        return encode_cni_answer(CniAnswer(status=0, stdout=b""))

    with launcher.agent(look):
        launcher.call("ADD", {**ATTACHMENT, "CNI_NETNS": str(fifo)})
    assert woken == [False]


@pytest.mark.parametrize(
    ("path", "errno"), [("/no/such", 2), ("x" * 5000, 36), ("/dev/null/x", 20)]
)
def test_tells_why_the_namespace_could_not_be_opened(
    launcher: Launcher, path: str, errno: int
) -> None:
    with launcher.agent(succeed()) as agent:
        launcher.call("DEL", {**ATTACHMENT, "CNI_NETNS": path})
    assert agent.requests[0].netns_errno == errno


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_an_agent_that_hangs_is_given_up_and_sees_it(
    launcher: Launcher, verb: str, code: int
) -> None:
    (launcher.run_dir / "add-timeout").write_text("1\n")
    with launcher.agent(stay_silent) as agent:
        error = launcher.call(verb).error()
        assert agent.gone.wait(2)
    assert error["code"] == code
    assert error["cniVersion"] == "1.0.0"
    assert "no answer" in error["msg"]


def test_a_delete_that_an_agent_does_not_answer_is_queued_once(launcher: Launcher) -> None:
    with launcher.agent(stay_silent) as agent:
        run = launcher.call("DEL")
        assert agent.gone.wait(2)
    assert (run.status, run.stdout) == (0, b"")
    assert len(agent.requests) == 1
    assert len(list(launcher.queue.iterdir())) == 1


@pytest.mark.parametrize("text", ["2", "600\n"])
def test_add_waits_as_long_as_the_setting_says(launcher: Launcher, text: str) -> None:
    (launcher.run_dir / "add-timeout").write_text(text)

    def answer_late(request: CniRequest, descriptors: list[int]) -> bytes:
        time.sleep(0.6)  # twice the limit that these tests compile in
        return encode_cni_answer(CniAnswer(status=0, stdout=b"{}"))

    with launcher.agent(answer_late):
        assert launcher.call("ADD").status == 0


@pytest.mark.parametrize("text", ["0", "601", "x", "", "1e2", "-5", "0x10", "１", "1 ", "9" * 99])
def test_an_add_timeout_that_is_no_number_in_range_is_ignored(
    launcher: Launcher, text: str
) -> None:
    (launcher.run_dir / "add-timeout").write_text(text)
    begun = time.monotonic()
    with launcher.agent(stay_silent):
        assert launcher.call("ADD").error()["code"] == 11
    assert 0.25 < time.monotonic() - begun < 0.9


def _by_link(path: Path) -> None:
    path.with_name("other").write_text("600\n")
    path.symlink_to("other")


def _by_second_name(path: Path) -> None:
    path.with_name("other").write_text("600\n")
    os.link(path.with_name("other"), path)


def _writable(path: Path) -> None:
    path.write_text("600\n")
    path.chmod(0o666)


def _strangers(path: Path) -> None:
    path.write_text("600\n")
    os.chown(path, 65534, 65534)


def _zeros(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


@pytest.mark.parametrize(
    "plant",
    [_by_link, _by_second_name, _writable, _strangers, _zeros, Path.mkdir, os.mkfifo],
    ids=["link", "second name", "writable", "stranger's", "device", "directory", "pipe"],
)
def test_an_add_timeout_that_root_did_not_write_is_ignored(
    launcher: Launcher, plant: Callable[[Path], None]
) -> None:
    plant(launcher.run_dir / "add-timeout")
    begun = time.monotonic()
    with launcher.agent(stay_silent):
        assert launcher.call("ADD").error()["code"] == 11
    assert 0.25 < time.monotonic() - begun < 0.9


def test_a_runtime_that_asks_status_hears_early_that_the_agent_is_stuck(
    launcher: Launcher,
) -> None:
    with launcher.agent(stay_silent):
        error = launcher.call("STATUS").error()
    assert error["code"] == 50
    assert "within 0.4 s" in error["msg"]
    protocol = (COMPILE.parent / "launcher" / "protocol.h").read_text()
    limits = {
        name: int(value) for name, value in re.findall(r"#define (\w+_LIMIT) (\d+)", protocol)
    }
    assert limits["CONNECT_LIMIT"] + limits["STATUS_LIMIT"] <= 4500, "5 s with everything"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_launcher_that_is_ended_cancels_its_add(launcher: Launcher, sign: signal.Signals) -> None:
    with launcher.agent(stay_silent) as agent:
        with subprocess.Popen(
            [launcher.program],
            env={**ATTACHMENT, "CNI_COMMAND": "ADD"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # a shell starts what runs in the background with SIGINT ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(CONFIG)
            process.stdin.close()
            while not agent.requests:
                time.sleep(0.005)
            process.send_signal(sign)
            assert process.stdout.read() == b""
        assert agent.gone.wait(2)
    assert process.returncode == -sign


GARBAGE = {
    "nothing": b"",
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "torn header": b"WFT1\x01",
    "torn payload": encode_cni_answer(CniAnswer(status=0, stdout=b"{}"))[:-1],
    "other version": encode_cni_answer(CniAnswer(status=0, stdout=b"{}"), version=9),
    "other kind": encode_frame(4, b'{"result":1}'),
    "too large": b"WFT1\x01\0\x02\0\xff\xff\xff\xff",
    "too small": encode_frame(2, b"\0\0"),
    "lying length": encode_frame(2, b"\0\xff\0\0\0{}"),
    "failure without object": encode_frame(2, b"\1\0\0\0\0"),
}


@pytest.mark.parametrize("name", list(GARBAGE))
def test_what_is_no_answer_counts_as_an_absent_agent(launcher: Launcher, name: str) -> None:
    with launcher.agent(lambda request, descriptors: GARBAGE[name]) as agent:
        assert launcher.call("ADD").error()["code"] == 11
        assert launcher.call("STATUS").error()["code"] == 50
        run = launcher.call("DEL")
    assert (run.status, run.stdout) == (0, b"")
    assert len(list(launcher.queue.iterdir())) == 1
    assert len(agent.requests) == 4  # the DEL knocked twice


def test_a_full_backlog_is_waited_for_one_second(launcher: Launcher) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(launcher.socket))
        listener.listen(0)
        first.connect(str(launcher.socket))
        begun = time.monotonic()
        error = launcher.call("ADD").error()
    assert error["code"] == 11
    assert 0.9 < time.monotonic() - begun < 2


def test_an_answer_that_nobody_reads_fails_the_call(launcher: Launcher) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with launcher.agent(succeed(b"{}")):
        process = subprocess.run(
            [launcher.program],
            env={"CNI_COMMAND": "ADD"},
            input=CONFIG,
            stdout=writer,
            check=False,
        )
    os.close(writer)
    assert process.returncode == 1


def test_a_slow_reader_gets_the_whole_answer_over_a_non_blocking_pipe(launcher: Launcher) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    result = json.dumps(["x" * 1000] * 900).encode()
    with launcher.agent(succeed(result)):
        process = subprocess.Popen(
            [launcher.program], env={"CNI_COMMAND": "ADD"}, stdin=subprocess.DEVNULL, stdout=writer
        )
        os.close(writer)
        got = b""
        while part := os.read(reader, 4096):
            got += part
        assert process.wait(5) == 0
    os.close(reader)
    assert got == result
