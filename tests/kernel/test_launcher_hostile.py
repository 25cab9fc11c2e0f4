"""The launcher, compiled with address and undefined-behaviour checks, under hostile input.

Whatever a runtime is made to pass: exit status 0 or 1, one JSON object or nothing on standard
output, in time, and nothing outside the queue is touched. No agent is there, so all of it is the
launcher's own code.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator

import pytest
from launching import ATTACHMENT, CONFIG, Launcher

SLOW = 5 * 0.2  # seconds: fivefold of what is promised

CONTAINERS = ["", ".", "..", "-rf", "a/../b", "a\n", "x" * 4096, "٣", "a\u202eb", "e\u0301", "c1"]
INTERFACES = ["", "x" * 15, "x" * 16, "lo", "all", "eth0%d", "../x", "a:b", "a\tb", "eth0", "é"]
NAMESPACES = ["", "/proc/self/ns/net", "/proc/1/ns/net", "/no/such", "/", "/dev/null", "x" * 9000]
ARGUMENTS = [
    "",
    ";;=",
    "A=1;A=2",
    "IP=10.0.0.1/0",
    "MAC=ff:ff:ff:ff:ff:ff",
    "\udcff\udcfe",
    "=" * 999,
]
PATHS = ["", ":", "relative", "/tmp", ":".join(["/opt/cni/bin"] * 5000)]
VERBS = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "add", "", "\x01", "\udcff", "X" * 5000]
INPUTS = [
    CONFIG,
    b"",
    b"{",
    b"\xef\xbb\xbf" + CONFIG,
    CONFIG.decode().encode("utf-16"),
    b'{"name":"weft","ipam":{},"ipam":{"type":"x"}}',
    b'{"cniVersion":"' + b"1" * 1_000_000 + b'","name":"weft"}',
    b'{"name":NaN}',
    b'{"a":' * 100_000,
    b'{"name":"' + b"n" * 200_000 + b'"}',
    b'{"name":"weft","prevResult":{"interfaces":[{"name":"eth0","sandbox":"/proc/1/ns/net"}]}}',
    b"\0" * 1000,
    b'{"name":"../x"}',
    b'{"cniVersion":"1.0.0"}',
]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher(sanitize=True)
    launcher.clear()
    yield launcher
    launcher.remove()


def damaged(rng: random.Random, data: bytes, keep: bytes = b"") -> bytes:
    """Some octets changed, lost or doubled; `keep` are those that may not appear."""
    text = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(3):
            case 0:
                text[at : at + 1] = rng.randbytes(1)
            case 1:
                del text[at : at + rng.randint(1, 5)]
            case 2:
                text[at:at] = text[: rng.randrange(1 + min(len(text), 20))]
    return bytes(octet for octet in text if octet not in keep)


def word(rng: random.Random, choices: list[str]) -> str:
    chosen = os.fsencode(rng.choice(choices))
    return os.fsdecode(damaged(rng, chosen, b"\0") if rng.random() < 0.3 else chosen)


@pytest.mark.matrix(id="T32 launcher", full=3_000, reduced=120)
def test_hostile_calls_end_in_one_object_and_in_time(launcher: Launcher, count: int) -> None:
    rng = random.Random(32)
    ends: dict[object, int] = {}
    for _ in range(count):
        env = {
            "CNI_CONTAINERID": word(rng, CONTAINERS),
            "CNI_IFNAME": word(rng, INTERFACES),
            "CNI_NETNS": word(rng, NAMESPACES),
            "CNI_ARGS": word(rng, ARGUMENTS),
            "CNI_PATH": word(rng, PATHS),
        }
        env = {name: value for name, value in env.items() if rng.random() < 0.9}
        if rng.random() < 0.6:  # else nearly all of them end at their identity
            env.update(ATTACHMENT)
        verb = word(rng, VERBS) if rng.random() < 0.5 else "DEL"
        stdin = damaged(rng, rng.choice(INPUTS))
        begun = time.monotonic()
        run = launcher.call(verb, env, stdin)
        assert time.monotonic() - begun < SLOW
        assert b"Sanitizer" not in run.stderr and b"runtime error" not in run.stderr, run.stderr
        if run.status == 0 and verb != "VERSION":
            assert run.stdout == b"", (verb, env)
            ends["quiet"] = ends.get("quiet", 0) + 1
            continue
        assert run.status in (0, 1), (verb, env, run.stderr)
        answer = json.loads(run.stdout)
        end = answer.get("code", "versions")
        ends[end] = ends.get(end, 0) + 1
    assert {"quiet", 4, 6, 7, 11} <= set(ends), ends
    assert {path.name for path in launcher.run_dir.iterdir()} <= {"queue"}
    assert all(len(path.name) == 68 for path in launcher.queue.iterdir())
