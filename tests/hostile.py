"""Hostile CNI requests: the troublemakers of old bug reports, and damage to good requests.

A seed is a request with the codes it may be answered with; None stands for success. Damage is
derived from a number, so that a finding can be had again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from acceptance import Ask, ask

Codes = tuple[int | None, ...]
EARLY: Codes = (None, 1, 2, 3, 4, 5, 6, 7, 8, 11)
"""What damage may end in: success, or a refusal before the first effect."""
POD = "hostile"
VALID = "cni.dev/valid-attachments"


def _env(request: Ask, **values: str) -> Ask:
    return msgspec.structs.replace(request, env={**request.env, **values})


def _raw(request: Ask, stdin: bytes) -> Ask:
    return msgspec.structs.replace(request, stdin=stdin)


def seeds() -> Iterator[tuple[Codes, Ask]]:
    """The corpus, for a pod whose namespace is there."""
    good = ask("ADD", POD)
    yield from (
        ((4,), _env(good, CNI_CONTAINERID=value))
        for value in (".", "..", "-rf", "a/../b", "abc\n", "/" * 4096, "\u0661\u0662\u0663")
    )
    yield from (
        ((4,), _env(good, CNI_CONTAINERID=value))
        for value in ("abc\u202edef", "a\u0301b", " ", "a" * 5000, "a;reboot", "$(id)", "\x1b[2J")
    )
    yield ((4,), _env(good, CNI_CONTAINERID=""))
    yield from (
        ((4,), _env(good, CNI_IFNAME=value))
        for value in ("sixteen-octets-x", "lo", "all", "default", "eth0%d", "../x", "a:b", "a\tb")
    )
    yield ((None,), _env(good, CNI_IFNAME="fifteen-octets-"))
    yield from (
        ((8,), _env(good, CNI_NETNS=value))
        for value in (
            "/proc/self/ns/net",
            "/run/hostile/own",  # a symbolic link to it
            "/run/hostile/fifo",
            "/run/hostile/file",
            "/run/hostile",
            "/run/netns/removed",
            "/proc/self/ns/mnt",
            "/dev/zero",
            "/dev/ptmx",
        )
    )
    yield from _inputs(good)
    yield from _arguments(good)
    yield from _paths(good)


def _inputs(good: Ask) -> Iterator[tuple[Codes, Ask]]:
    text = good.stdin
    inner = text[1:-1]
    yield ((6,), _raw(good, b""))
    yield ((5,), _raw(good, b" " * (4 << 20)))
    yield ((6,), _raw(good, text[:-1]))
    yield ((6,), _raw(good, b"\xef\xbb\xbf" + text))
    yield ((6,), _raw(good, text.decode().encode("utf-16")))
    yield ((6,), _raw(good, text + text))
    yield ((6,), _raw(good, text[:9] + b"\0" + text[9:]))
    yield ((6,), _raw(good, b'{"a":' * 100_000 + b"1" + b"}" * 100_000))
    yield ((6,), _raw(good, b"[" * 100_000))
    yield ((6,), _raw(good, b"{" + inner + b', "mtu": NaN}'))
    yield ((6,), _raw(good, b"{" + inner + b', "mtu": Infinity}'))
    yield ((6,), _raw(good, b"{" + inner + b', "x": ' + b"9" * 100_000 + b"}"))
    yield ((6,), _raw(good, b"{" + inner + b', "mtu": 1e400}'))
    yield ((2, 6, 7), _raw(good, b"{" + inner + b', "ipam": {}, "ipam": {"type": "x"}}'))
    yield ((6,), ask("ADD", POD, version="1" * 1_000_000))
    yield ((6, 7), ask("ADD", POD, network="a\0b"))
    yield ((7,), ask("ADD", POD, network="net\n"))
    yield ((6,), ask("ADD", POD, prevResult=[1, 2]))
    other = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "x", "sandbox": "/proc/self/ns/net"}],
        "ips": [{"address": "10.1.2.3/32", "interface": 99}],
    }
    yield ((7,), ask("ADD", POD, prevResult=other))
    many = {f"key{n}": n for n in range(5000)}
    yield ((6,), ask("ADD", POD, **many))


def _arguments(good: Ask) -> Iterator[tuple[Codes, Ask]]:
    for value in (
        ";;=",
        "IP=10.0.0.1/0",
        "IP=169.254.1.1",
        "IP=::ffff:10.0.0.1",
        "IP=fe80::1%eth0",
        "MAC=ff:ff:ff:ff:ff:ff",
        "IgnoreUnknown=perhaps;X=1",
        "IP",
        "=1",
        "K8S_POD_NAME=a=b",
    ):
        yield ((4, 7), _env(good, CNI_ARGS=value))
    yield ((None, 4), _env(good, CNI_ARGS="IgnoreUnknown=1;X=" + "x" * 60_000))
    yield ((7,), _env(good, CNI_ARGS="IP=192.0.2.77"))


def _paths(good: Ask) -> Iterator[tuple[Codes, Ask]]:
    """CNI_PATH is of no use to a plugin that executes nothing."""
    for value in ("", "./bin:.", "/tmp", ":".join(f"/nowhere/{n}" for n in range(8000))):
        yield ((None,), _env(good, CNI_PATH=value))


def damaged(number: int) -> Ask:
    """A good request with up to four things broken, the same for the same number."""
    dice = random.Random(number)
    verb = dice.choice(("ADD", "ADD", "ADD", "DEL", "CHECK", "STATUS", "GC"))
    keys: dict[str, Any] = {}
    if verb == "GC":
        keys[VALID] = [{"containerID": POD, "ifname": "eth0"}]
    if verb == "CHECK" or dice.random() < 0.2:
        keys["prevResult"] = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.1.1/32"}]}
    if dice.random() < 0.3:
        keys |= {"mtu": 1400, "ipMasq": True, "pools": ["default-ipv4"], "ipam": {}}
    if dice.random() < 0.3:
        keys["runtimeConfig"] = {"ips": ["10.244.0.9"], "mac": "0a:00:00:00:00:01"}
    request = ask(verb, POD, version=dice.choice(("1.1.0", "1.0.0", "0.4.0", "0.1.0")), **keys)
    stdin = request.stdin
    if dice.random() < 0.5:
        stdin = json.dumps(_bent(json.loads(stdin), dice)).encode()
    if dice.random() < 0.5:
        stdin = _bytes(stdin, dice)
    env = dict(request.env)
    if dice.random() < 0.4:
        name = dice.choice([n for n in env if n != "CNI_COMMAND"])
        # an environment cannot hold NUL, and a path to a device is not damage but another test
        broken = _bytes(env[name].encode(), dice).replace(b"\0", b"x").decode("latin-1")
        env[name] = broken
    if dice.random() < 0.3:
        env["CNI_ARGS"] = (
            _bytes(b"IgnoreUnknown=1;IP=10.244.0.9", dice).decode("latin-1").replace("\0", "x")
        )
    return Ask(env=env, stdin=stdin)


_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64, 1.5, "", " ", "\ud800", "x" * 5000, [], {}, [[]], {"": 0},
)  # fmt: skip


def _bent(value: Any, dice: random.Random) -> Any:
    """The same value with one part of another type, or gone."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        if dice.random() < 0.2:
            return {k: v for k, v in value.items() if k != name}
        return {**value, name: _bent(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], _bent(value[place], dice), *value[place + 1 :]]
    return dice.choice(_ODD)


def _bytes(raw: bytes, dice: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(data) + 1)
        kind = dice.randrange(4)
        if kind == 0 and place < len(data):
            data[place] = dice.randrange(256)
        elif kind == 1:
            del data[place : place + dice.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = dice.randbytes(dice.randrange(1, 9))
        else:
            data[place:place] = data[: dice.randrange(1, 40)]
    return bytes(data)
