"""The launcher as a hook of an OCI runtime: what it makes of a state, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher, stay_silent, succeed

from weft.cni.queue import read_queue
from weft.model.attachment import AttachmentKey
from weft.wire.cni import parse_request
from weft.wire.local import FLAG_QUEUED, CniAnswer, CniRequest, encode_cni_answer

STATE = {"ociVersion": "1.0.2", "id": "c1", "bundle": "/b", "annotations": {"weft.dev/mac": "é"}}
LIST = {"cniVersion": "1.0.0", "name": "weft", "plugins": [{"type": "weft", "mtu": 1400}]}


@pytest.fixture(scope="module")
def sanitized() -> Iterator[Launcher]:
    launcher = Launcher(sanitize=True)
    launcher.clear()
    yield launcher
    launcher.remove()


@pytest.fixture
def launcher(sanitized: Launcher) -> Launcher:
    """With sanitizers only: the same calls of the shipped one are those of the runtimes' tests."""
    sanitized.clear()
    return sanitized


def state(status: str | None = "creating", pid: Any = 1, **changed: Any) -> bytes:
    said = {**STATE, "pid": pid, **changed}
    if status is not None:
        said["status"] = status
    return json.dumps(said).encode()


def write(launcher: Launcher, name: str, content: Any) -> Path:
    place = launcher.networks / name
    place.write_text(content if isinstance(content, str) else json.dumps(content))
    return place


@pytest.mark.parametrize("status", ["creating", "created", None])
def test_a_process_is_attached_with_its_network_and_annotations(
    launcher: Launcher, status: str | None
) -> None:
    write(launcher, "10-weft.conflist", LIST)
    env = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "other", "TRACEPARENT": "00-1", "HOME": "/"}
    with launcher.agent(succeed(b"{}")) as agent:
        run = launcher.hook(state(status, os.getpid()), env=env)
    assert (run.status, run.stdout, run.stderr) == (0, b"", b"")
    (request,) = agent.requests
    assert request.variables() == {
        "TRACEPARENT": "00-1",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": f"/proc/{os.getpid()}/ns/net",
    }
    assert request.netns_errno == 0
    assert json.loads(request.stdin) == {
        "type": "weft",
        "mtu": 1400,
        "cniVersion": "1.1.0",
        "name": "weft",
        "runtimeConfig": {"weft.dev/oci-annotations": STATE["annotations"]},
    }


@pytest.mark.parametrize(("status", "pid"), [("stopped", 0), ("stopped", 77), (None, 0)])
def test_what_has_stopped_is_detached_without_any_file(
    launcher: Launcher, status: str | None, pid: int
) -> None:
    options = ("--network", "blue", "--conf=/no/such", "--ifname", "net1")
    with launcher.agent(succeed()) as agent:
        run = launcher.hook(state(status, pid), *options)
    assert (run.status, run.stderr) == (0, b"")
    (request,) = agent.requests
    asked = parse_request(request.variables(), request.stdin)
    assert asked.key == AttachmentKey("blue", "c1", "net1")


def test_keys_of_the_list_win_over_those_of_its_plugin(launcher: Launcher) -> None:
    plugin = {"type": "weft", "name": "x", "cniVersion": "9", "runtimeConfig": {"mac": "y"}}
    write(launcher, "a.conflist", {"name": "weft", "plugins": [plugin]})
    with launcher.agent(succeed()) as agent:
        assert launcher.hook(state(annotations=None, pid=os.getpid())).status == 0
    asked = parse_request(agent.requests[0].variables(), agent.requests[0].stdin)
    assert (asked.network, asked.spec_version, asked.wishes.mac) == ("weft", "1.1.0", "")
    assert asked.hooked


def test_network_is_the_first_file_that_has_its_name(launcher: Launcher) -> None:
    write(launcher, "00-broken.conflist", "{")
    write(launcher, "05-other.conflist", {**LIST, "name": "other"})
    write(launcher, "30-weft.conflist", {**LIST, "plugins": [{"type": "weft", "mtu": 3}]})
    write(launcher, "20-weft.conf", {"name": "weft", "type": "weft", "mtu": 2})
    write(launcher, "10-weft.conflist.before-weft", LIST)
    os.mkfifo(launcher.networks / "01-pipe.conf")
    (launcher.networks / "02-directory.conf").mkdir()
    with launcher.agent(succeed()) as agent:
        assert launcher.hook(state()).status == 0
    assert json.loads(agent.requests[0].stdin)["mtu"] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**LIST, "plugins": [{"type": "weft"}, {"type": "portmap"}]}, "has the plugin portmap;"),
        ({**LIST, "plugins": [{"type": "bridge"}, {"type": "weft"}]}, "has the plugin bridge;"),
        ({**LIST, "plugins": [{"type": "weft"}] * 2}, "has the plugin weft twice;"),
        ({**LIST, "plugins": []}, "has no plugins"),
        ({**LIST, "plugins": {}}, "has no plugins"),
        ({**LIST, "plugins": [5]}, "a plugin of it has no `type`"),
        ({**LIST, "plugins": [{"type": 5}]}, "a plugin of it has no `type`"),
        ({"name": "weft"}, "has no plugins"),
        ({"name": "weft", "type": "bridge"}, "has the plugin bridge;"),
        ({**LIST, "name": "other"}, "is of the network other, not of weft"),
        ({"name": "../x"}, "is not the configuration of a network"),
        ("[]", "is not the configuration of a network"),
        (" " * (1 << 20) + "{}", "cannot be read: File too large"),
    ],
)
def test_lists_that_a_hook_cannot_serve_are_refused_by_name(
    launcher: Launcher, content: Any, words: str
) -> None:
    place = write(launcher, "x", content)
    run = launcher.hook(state(), "--network=weft", "--conf", str(place))
    assert (run.status, run.stdout) == (1, b"")
    said = run.stderr.decode()
    assert said.startswith("weft: ") and said.count("\n") == 1
    assert str(place) in said and words in said


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        (b"", (), "not the state of a container"),
        (b"[]", (), "not the state of a container"),
        (b'{"id":"c1"', (), "not the state of a container"),
        (b"{}", (), "has no `id`"),
        (state(id=""), (), "has no `id`"),
        (state(id=7), (), "has no `id`"),
        (state(id="a\0b"), (), "has no `id`"),
        (state(id="x" * 2000), (), "has no `id`"),
        (state("x" * 20), (), "has no `status`"),
        (state("running", 5), (), "the container is running; weft's hook belongs to"),
        (state("creating", 0), (), "the container is creating without a pid;"),
        (state("creating", "5"), (), "the container is creating without a pid;"),
        (state("creating", -5), (), "the container is creating without a pid;"),
        (state("creating", 10**12), (), "the container is creating without a pid;"),
        (state(), (), "no configuration in"),
        (state(), ("--conf", "/no/such"), "/no/such cannot be read: No such file or directory"),
        (state("stopped"), ("--conf", "/no/such"), "/no/such cannot be read"),
        (state(), ("--netwrok", "x"), "oci-hook: --netwrok cannot be understood"),
        (state(), ("--network",), "oci-hook: --network cannot be understood"),
        (state(), ("--network", ""), "oci-hook: --network cannot be understood"),
        (b" " * (1 << 20) + b"{}", (), "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_understood_is_said_in_one_line(
    launcher: Launcher, said: bytes, options: tuple[str, ...], words: str
) -> None:
    run = launcher.hook(said, *options)
    assert (run.status, run.stdout) == (1, b"")
    assert run.stderr.startswith(b"weft: ") and run.stderr.count(b"\n") == 1
    assert words in run.stderr.decode()


def test_an_agents_refusal_is_told_in_words(launcher: Launcher) -> None:
    write(launcher, "10-weft.conflist", LIST)
    told = {"cniVersion": "1.1.0", "code": 7, "msg": "no\nroom \x1b[1m\u00e9", "details": "do this"}
    long = {**told, "msg": "\u00e9" * 9000, "details": "d" * 9000}
    answers = (json.dumps(told), json.dumps({**told, "details": ""}), "?", json.dumps(long))
    left = iter(answers)

    def refuse(request: CniRequest, descriptors: list[int]) -> bytes:
        return encode_cni_answer(CniAnswer(status=1, stdout=next(left).encode()))

    with launcher.agent(refuse):
        runs = [launcher.hook(state()) for _ in answers]
    assert {(run.status, run.stdout) for run in runs} == {(1, b"")}
    said = [run.stderr.decode() for run in runs]
    assert said[:3] == [
        "weft: no room  [1m\u00e9 (do this)\n",
        "weft: no room  [1m\u00e9\n",
        "weft: the agent refused, and did not say why\n",
    ]
    assert len(runs[3].stderr) <= 4096
    assert said[3].endswith("d...)\n") and "\u00e9... (ddd" in said[3]


def test_without_an_agent_creation_fails_and_deletion_is_queued(launcher: Launcher) -> None:
    write(launcher, "10-weft.conflist", LIST)
    begun = time.monotonic()
    run = launcher.hook(state())
    assert (run.status, run.stdout) == (1, b"")
    assert b"the agent does not answer" in run.stderr and b"start the agent" in run.stderr
    run = launcher.hook(state("stopped", 0))
    assert (run.status, run.stdout) == (0, b"")
    assert b"the DEL is queued" in run.stderr
    assert time.monotonic() - begun < 3
    (waiting,) = read_queue(launcher.queue)
    asked = parse_request(waiting.request.variables(), waiting.request.stdin)
    assert (asked.key, waiting.request.flags) == (AttachmentKey("weft", "c1", "eth0"), FLAG_QUEUED)


def test_an_agent_that_hangs_is_given_up(launcher: Launcher) -> None:
    write(launcher, "10-weft.conflist", LIST)
    with launcher.agent(stay_silent) as agent:
        run = launcher.hook(state())
        assert agent.gone.wait(5)
    assert run.status == 1 and b"gave no answer to ADD within 0.3 s" in run.stderr


@pytest.mark.parametrize("name", ["a+b", ".hidden", "a/b", "é", "-"])
def test_an_id_that_cni_does_not_know_was_never_attached(launcher: Launcher, name: str) -> None:
    run = launcher.hook(state("stopped", 0, id=name))
    assert (run.status, run.stdout, run.stderr) == (0, b"", b"")
    assert not launcher.queue.exists()


def test_a_state_that_does_not_end_is_given_up(launcher: Launcher) -> None:
    mine, its = socket.socketpair()
    with mine, its:
        begun = time.monotonic()
        child = os.posix_spawn(
            str(launcher.program),
            ["weft", "oci-hook"],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), 0)],
        )
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert time.monotonic() - begun < 5


SEEDS = [state(), state("stopped", 0), state(None, 1), state(annotations={"a": "b\\\"'", "é": ""})]
LISTS = [
    json.dumps(LIST).encode(),
    b'{"name":"weft","type":"weft"}',
    b'{"name":"weft","plugins":[]}',
]
PIECES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\u00", b"\0", b"\xff", b'"id":null,']


def damaged(rng: random.Random, data: bytes) -> bytes:
    text = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(3):
            case 0:
                text[at : at + 1] = rng.randbytes(1)
            case 1:
                del text[at : at + rng.randint(1, 9)]
            case 2:
                text[at:at] = rng.choice(PIECES)
    return bytes(text)


@pytest.mark.matrix(id="T32 OCI hook", full=3_000, reduced=60)
def test_hostile_states_and_networks_end_in_one_line_and_in_time(
    launcher: Launcher, count: int
) -> None:
    rng = random.Random(7)
    ends: dict[int, int] = {}
    with launcher.agent(succeed(b"{}")) as agent:
        for _ in range(count):
            (launcher.networks / "a.conflist").write_bytes(damaged(rng, rng.choice(LISTS)))
            options = [] if rng.random() < 0.8 else ["--conf", f"{launcher.networks}/a.conflist"]
            begun = time.monotonic()
            run = launcher.hook(damaged(rng, rng.choice(SEEDS)), *options)
            assert time.monotonic() - begun < 2
            assert run.status in (0, 1) and run.stdout == b"", run.stderr
            assert b"Sanitizer" not in run.stderr and b"runtime error" not in run.stderr, run.stderr
            assert run.stderr.count(b"\n") == run.status, run.stderr
            ends[run.status] = ends.get(run.status, 0) + 1
    assert ends[0] > count // 10 and ends[1] > count // 10, ends
    for request in agent.requests:  # whatever it was made from, it is JSON
        assert isinstance(json.loads(request.stdin), dict)
        assert request.variables()["CNI_COMMAND"] in ("ADD", "DEL")


def test_a_killed_hook_cancels_what_it_asked_for(launcher: Launcher) -> None:
    write(launcher, "10-weft.conflist", LIST)
    with launcher.agent(stay_silent) as agent:
        mine, its = socket.socketpair()
        with mine:
            child = os.posix_spawn(
                str(launcher.program),
                ["weft", "oci-hook"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), 0)],
            )
            its.close()
            mine.sendall(state())
        while not agent.requests:
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert agent.gone.wait(5)
