"""The launcher without an agent: VERSION, errors of its own, bounds of standard input."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from launching import ATTACHMENT, Launcher, succeed

from weft import __version__
from weft.wire.local import CniAnswer, CniRequest, encode_cni_answer

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
VERBS = [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)]


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b"", "1.1.0"),
        (b'{"cniVersion":"0.4.0"}', "0.4.0"),
        (b'{"CNIVERSION":"0.3.1"}', "0.3.1"),
        (b'{"cniVersion":"9.9.9"}', "9.9.9"),
        (b'{"cniVersion":"0.4.0"', "0.4.0"),
        (b'{"cniVersion":4}', "1.1.0"),
        (b'{"cniVersion":"' + b"1" * 1_000_000 + b'"}', "1.1.0"),
        (b'{"cniVersion":"\\"1.0.0"}', "1.1.0"),
        (b"\xef\xbb\xbf{}", "1.1.0"),
    ],
)
def test_version_names_the_callers_and_all_supported(
    launcher: Launcher, stdin: bytes, version: str
) -> None:
    run = launcher.call("VERSION", env={}, stdin=stdin)
    assert (run.status, run.stderr) == (0, b"")
    assert json.loads(run.stdout) == {"cniVersion": version, "supportedVersions": VERSIONS}


def test_version_answers_with_standard_input_closed_or_open(launcher: Launcher) -> None:
    closed = launcher.call("VERSION", env={}, before=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert json.loads(closed.stdout)["cniVersion"] == "1.1.0"
    reader, writer = os.pipe()  # never written to, never closed while the call lasts
    done = subprocess.run(
        [launcher.program], env={"CNI_COMMAND": "VERSION"}, stdin=reader, capture_output=True
    )
    os.close(reader)
    os.close(writer)
    assert json.loads(done.stdout)["supportedVersions"] == VERSIONS


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
def test_without_a_verb_it_says_what_it_is_and_succeeds(
    launcher: Launcher, env: dict[str, str]
) -> None:
    run = launcher.call(None, env=env)
    assert (run.status, run.stdout) == (0, b"")
    assert run.stderr.startswith(b"weft: weft-launcher: ")
    # Nomad: the first word that is a semantic version
    assert run.stderr.split()[5].decode() == f"v{__version__}"


def test_the_agent_of_ecs_learns_what_it_asks_of_each_plugin(launcher: Launcher) -> None:
    def asked(*arguments: str) -> tuple[int, bytes]:
        done = subprocess.run([launcher.program, *arguments], env={}, capture_output=True)
        return done.returncode, done.stdout

    status, said = asked("--version")
    assert status == 0
    assert json.loads(said) == {"version": __version__, "dirty": False, "gitShortHash": ""}
    status, said = asked("--capabilities")
    assert (status, json.loads(said)) == (0, {"capabilities": []})
    assert asked("--else") == asked("--version", "more") == (0, b"")


def test_arguments_of_a_call_count_for_nothing(launcher: Launcher) -> None:
    done = subprocess.run(
        [launcher.program, "--version"],
        env={"CNI_COMMAND": "VERSION"},
        input=b"",
        capture_output=True,
    )
    assert json.loads(done.stdout)["supportedVersions"] == VERSIONS


@pytest.mark.parametrize("word", ["add", "ADDD", "UPDATE", "ADD ", '"\\\n', "x" * 9000, "é\udcff"])
def test_an_unknown_verb_is_an_invalid_variable(launcher: Launcher, word: str) -> None:
    error = launcher.call(word).error()
    assert error["code"] == 4
    assert error["cniVersion"] == "1.0.0"
    shown = word[:64].replace("\udcff", "�")
    assert error["msg"] == f"unknown CNI_COMMAND: {shown}"


@pytest.mark.parametrize(("verb", "code"), VERBS)
def test_an_absent_agent_is_told_within_two_seconds_and_what_to_do(
    launcher: Launcher, verb: str, code: int
) -> None:
    begun = time.monotonic()
    error = launcher.call(verb).error()
    assert time.monotonic() - begun < 2
    assert (error["code"], error["cniVersion"]) == (code, "1.0.0")
    assert "start the agent" in error["msg"]
    assert error["details"] == "weft explain agent-absent"
    assert not launcher.queue.exists()


def test_a_socket_that_nobody_listens_on_is_an_absent_agent(launcher: Launcher) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(launcher.socket))
    assert "refused" in launcher.call("ADD").error()["msg"]


@pytest.mark.parametrize("stdin", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"cniVersion":"\x01"}'])
def test_an_error_without_a_readable_version_carries_the_newest(
    launcher: Launcher, stdin: bytes
) -> None:
    assert launcher.call("ADD", stdin=stdin).error()["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_endless_input_is_refused_without_reading_it(launcher: Launcher, verb: str) -> None:
    begun = time.monotonic()
    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run(
            [launcher.program],
            env={**ATTACHMENT, "CNI_COMMAND": verb},
            stdin=zeros,
            capture_output=True,
        )
    assert time.monotonic() - begun < 1
    assert json.loads(done.stdout)["code"] == 5
    assert done.returncode == 1


def test_a_hundred_megabytes_are_refused_fast(launcher: Launcher) -> None:
    stdin = b'{"cniVersion":"1.0.0","x":"' + b"y" * 100_000_000 + b'"}'
    begun = time.monotonic()
    error = launcher.call("ADD", stdin=stdin).error()
    assert time.monotonic() - begun < 1
    assert (error["code"], error["cniVersion"]) == (5, "1.0.0")


def test_one_octet_above_the_bound_is_refused(launcher: Launcher) -> None:
    with launcher.agent(succeed()):
        assert launcher.call("ADD", stdin=b" " * (1024 * 1024)).status == 0
        assert launcher.call("ADD", stdin=b" " * (1024 * 1024 + 1)).error()["code"] == 5


def test_input_that_does_not_end_is_given_up(launcher: Launcher) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"cniVersion":"0.4.0",')
    done = subprocess.run(
        [launcher.program], env={"CNI_COMMAND": "ADD"}, stdin=reader, capture_output=True
    )
    os.close(reader)
    os.close(writer)
    error = json.loads(done.stdout)
    assert (error["code"], error["cniVersion"]) == (5, "0.4.0")


def test_closed_standard_input_is_an_io_failure(launcher: Launcher) -> None:
    run = launcher.call("ADD", before=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert run.error()["code"] == 5


def test_add_does_nothing_when_its_result_could_not_be_told(launcher: Launcher) -> None:
    with launcher.agent(succeed(b"{}")) as agent:
        run = launcher.call("ADD", before=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert run.status == 1
    assert agent.requests == []


def test_delete_needs_no_standard_descriptors(launcher: Launcher) -> None:
    with launcher.agent(succeed()) as agent:
        run = launcher.call("DEL", before=["sh", "-c", 'exec "$@" >&- 2>&-', "sh"])
    assert run.status == 0
    assert len(agent.requests) == 1


def test_its_connection_never_takes_the_place_of_a_closed_descriptor(launcher: Launcher) -> None:
    seen: list[str] = []

    def look(request: CniRequest, descriptors: list[int]) -> bytes:
        seen.extend(os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3))
        return encode_cni_answer(CniAnswer(status=0, stdout=b""))

    with (
        launcher.agent(look),
        subprocess.Popen(
            ["sh", "-c", 'read go; exec "$@" </dev/null >&- 2>&-', "sh", launcher.program],
            env={**ATTACHMENT, "CNI_COMMAND": "CHECK"},
            stdin=subprocess.PIPE,
        ) as process,
    ):
        process.communicate(b"go\n")
    assert seen == ["/dev/null", "/", "/"]


def test_an_environment_above_its_bound_is_refused(launcher: Launcher) -> None:
    env = {**ATTACHMENT, **{f"CNI_X{number}": "x" * 100_000 for number in range(6)}}
    assert launcher.call("ADD", env=env).error()["code"] == 4


def test_the_launchers_versions_are_those_of_the_source() -> None:
    text = (Path(__file__).parents[2] / "native/launcher/protocol.h").read_text()
    (line,) = re.findall(r"^#define CNI_VERSIONS (.*)$", text, re.MULTILINE)
    assert re.findall(r'"([^"]+)"', line) == VERSIONS


def test_the_program_is_static_and_small() -> None:
    launcher = Launcher(sanitize=False)
    image = launcher.program.read_bytes()
    launcher.remove()
    assert b"ld-linux" not in image and b"ld-musl" not in image
    assert len(image) < 1_000_000
