"""Hostile requests: whatever a runtime sends becomes a Request or an Invalid, and soon.

Seeds are requests that real runtimes send and texts that have hurt CNI plugins before; a seeded
mutator cuts, repeats, swaps and splices them. The seed is printed with a failure.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.model.errors import Invalid
from weft.wire.cni import Request, caller_version, encode_error, parse_request

SEED = 20
LIMIT = 5 * 0.2  # seconds an input may cost, with fivefold slack for a busy machine
CODES = {1, 2, 4, 5, 6, 7}

PREV = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "wf1"}, {"name": "eth0", "sandbox": "/run/netns/other"}],
    "ips": [{"address": "10.244.0.2/32", "gateway": "169.254.1.1", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {},
}
CONFS: list[dict[str, Any]] = [
    {"cniVersion": "1.0.0", "name": "weft", "type": "weft"},
    {
        "cniVersion": "1.1.0",
        "name": "weft",
        "type": "weft",
        "mtu": 1450,
        "ipMasq": True,
        "ipam": {"type": "weft"},
        "dns": {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]},
        "pools": ["default-v4"],
        "capabilities": {"ips": True},
        "runtimeConfig": {
            "ips": ["10.244.0.9/24", "fd00::9"],
            "mac": "0a:58:0a:f4:00:02",
            "io.kubernetes.cri.pod-annotations": {"weft.dev/labels": "app=web"},
        },
        "args": {"cni": {"labels": [{"key": "app", "value": "web"}], "ips": ["10.244.0.7"]}},
        "prevResult": PREV,
        "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
        "cni.dev/attachments": [],
    },
    {"name": "legacy", "type": "weft", "prevResult": {"ip4": {"ip": "10.0.0.2/24"}}},
]
ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "f" * 64,
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;IP=10.244.0.8",
}
TEXTS = [
    "", ".", "..", "-rf", "a/../b", "c1\n", "a\0b", "x" * 4096, "\u0661\u0662", "a\u202eb",
    "a\u0301", "a" * 15, "a" * 16, "lo", "all", "default", "eth0%d", "../x", "a:b", "\t",
    "/proc/1/ns/net", "relative", ";;=", "IP=1;IP=2", "IP=gateway", "IP=10.0.0.1/0",
    "MAC=ff:ff:ff:ff:ff:ff", "K8S_POD_NAMESPACE=other", "IgnoreUnknown", "IgnoreUnknown=true",
    ":relative:" * 10_000, "\udcff", "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "update",
]  # fmt: skip
DOCUMENTS = [
    b"", b"{", b"null", b"[]", b"\xef\xbb\xbf{}", '{"name":"a"}'.encode("utf-16"),
    b'{"ipam":{"type":"weft"},"ipam":{"type":"x"},"name":"a"}',
    b'{"cniVersion":"' + b"1" * 10**6 + b'","name":"a"}', b'{"cniVersion":' + b"1" * 10**6 + b"}",
    b'{"mtu":NaN,"name":"a"}', b"[" * 100_000, b'{"a":' * 100_000, b'{"a":[' * 100_000,
    b'"' * 2**20, b'"\\' * 2**19, b'{"' + b"\\" * (2**20 - 4), b"[]" * 2**19, b"{}," * 300_000,
    b'{"' + b'":1,"'.join(b"%x" % n for n in range(100_000)) + b'":1}',
    b'{"name":"a","labels":{"' + b'":"1","'.join(b"%x" % n for n in range(60_000)) + b'":"1"}}',
    b'{"name":"a","runtimeConfig":{"ips":["' + b'","'.join([b"10.0.0.1"] * 80_000) + b'"]}}',
    b'{"name":"a","prevResult":{"cniVersion":"1.0.0","routes":['
    + b",".join([b'{"dst":"::/0"}'] * 60_000) + b"]}}",
    b'{"name":"a","cniVersion":"1.1.0","cni.dev/attachments":['
    + b",".join([b'{"containerID":"%d","ifname":"e"}' % n for n in range(20_000)]) + b"]}",
    b" " * (2**20 + 1), b"\xff" * 2**20, b"\0" * 2**20,
]  # fmt: skip
SPLICES = [
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"null", b"NaN", b"-1", b"1e999", b"\0",
    b"\xff", b"\\ud800", b"\\u0000", b"9" * 400, b'"name":"b"', b'"NAME":7', b"true", b"\xc5\xbf",
    b"0.4.0", b"1.1.0", b"::", b"/0", b"%eth0", b"\n",
]  # fmt: skip


def judge(env: dict[str, str], stdin: bytes) -> str:
    """Parses as the agent would; fails on anything but a Request or one error object."""
    started = time.perf_counter()
    try:
        outcome: Request | Invalid = parse_request(env, stdin)
    except Invalid as error:
        outcome = error
        answer = json.loads(encode_error(error, caller_version(stdin)))
        assert answer["code"] in CODES
        assert answer["msg"]
        assert answer["cniVersion"]
    assert time.perf_counter() - started < LIMIT
    return type(outcome).__name__


def mutated_env(rng: random.Random) -> dict[str, str]:
    env = {**ENV, "CNI_COMMAND": rng.choice(("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"))}
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        name = rng.choice(list(ENV))
        match rng.randrange(4):
            case 0:
                env.pop(name, None)
            case 1:
                env[name] = rng.choice(TEXTS)
            case 2:
                env[name] = env.get(name, "") + rng.choice(TEXTS)[:200]
            case 3:
                text = env.get(name, "")
                at = rng.randrange(len(text) + 1)
                env[name] = text[:at] + chr(rng.choice((0, 10, 32, 37, 59, 61, 0x661))) + text[at:]
    return env


def mutated_stdin(rng: random.Random) -> bytes:
    conf = dict(rng.choice(CONFS))
    if rng.random() < 0.4:
        conf["cniVersion"] = rng.choice(("0.1.0", "0.3.1", "0.4.0", "1.1.0", "9.9.9", "x", 7, None))
    if rng.random() < 0.4:
        key = rng.choice(list(CONFS[1]))
        conf[key] = rng.choice((None, 7, -1, "", [], {}, [7], {"type": "x"}, PREV, True, 2**63))
    data = bytearray(json.dumps(conf).encode())
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randrange(30))
        match rng.randrange(5):
            case 0:
                data[at:at] = rng.choice(SPLICES)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:end] = rng.choice(SPLICES)
            case 4 if at < len(data):
                data[at] = rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
@pytest.mark.parametrize("number", range(len(DOCUMENTS)))
def test_every_hostile_document_is_answered_at_once(number: int, command: str) -> None:
    judge({**ENV, "CNI_COMMAND": command}, DOCUMENTS[number])


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("name", list(ENV))
def test_every_hostile_variable_is_answered_at_once(name: str, text: str) -> None:
    judge({**ENV, name: text}, json.dumps(CONFS[1]).encode())


@pytest.mark.matrix(id="T32", full=100_000, reduced=5_000)
def test_mutated_requests_end_as_a_request_or_one_error(count: int) -> None:
    rng = random.Random(SEED)
    seen: dict[str, int] = {"Request": 0, "Invalid": 0}
    for number in range(count):
        env, stdin = mutated_env(rng), mutated_stdin(rng)
        try:
            seen[judge(env, stdin)] += 1
        except BaseException:
            print(f"seed {SEED}, input {number}: {env!r} {stdin!r}")
            raise
    assert min(seen.values()) > count // 10, "the mutator reaches only one kind of answer"


# an example's time says more of the machine than of the code: no deadline
unhurried = settings(deadline=None)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@unhurried
@given(
    st.sampled_from(("ADD", "DEL", "CHECK", "GC", "STATUS")),
    st.dictionaries(st.sampled_from(sorted(CONFS[1])), JSON_VALUES, max_size=4),
)
def test_any_value_under_any_key_is_judged(command: str, keys: dict[str, Any]) -> None:
    conf = {"cniVersion": "1.1.0", "name": "net", **keys}
    judge({**ENV, "CNI_COMMAND": command}, json.dumps(conf).encode())


@unhurried
@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(list(ENV)), st.text(max_size=30)))
def test_any_bytes_in_any_environment_are_judged(stdin: bytes, env: dict[str, str]) -> None:
    judge(env, stdin)
    judge(ENV, stdin)
