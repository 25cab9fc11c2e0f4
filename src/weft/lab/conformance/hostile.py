"""Hostile input: whatever comes, an answer in time, one JSON object on failure, nothing changed.

A corpus of known troublemakers, one test each, then random damage to good requests. A request
may succeed only where the row says so; then it is undone. The time limit is there to find
hangs, not to measure.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from weft.lab import entering, truth
from weft.lab.conformance.case import Case, Failed, case, none_of
from weft.lab.conformance.station import Station, error_problems
from weft.lab.invocation import Call
from weft.lab.runtime import Attachment

Env = dict[str, str]
Spoil = Callable[[Env, dict[str, Any]], "bytes | None"]


def _hostile(station: Station, spoil: Spoil, lenient: bool, plugins: int | None) -> None:
    before = station.host_links()
    problems = []
    for plugin in station.runtime.plugins[:plugins]:
        attachment = station.fresh()
        with station.namespace(attachment) as network:
            env, config = station.request(plugin, "ADD", attachment)
            raw = spoil(env, config)
            sent = config if raw is None else raw
            call = station.send(plugin, env, sent, undo=True, timeout=station.sizes.limit)
            problems += _answer(call, lenient)
            if call.status != 0:  # as every runtime does after a failed ADD
                station.runtime.delete(attachment)
            left = set(truth.links(network)) - {"lo"}
            if left:
                problems.append(f"{plugin['type']} left {left} in the namespace")
    made = station.new_links(before)
    if made:
        problems.append(f"left on the node: {', '.join(sorted(made))}")
    none_of(problems)


def _answer(call: Call, lenient: bool) -> list[str]:
    if lenient and call.status == 0:
        return []
    return error_problems(call) + _traceback(call)


def _traceback(call: Call) -> list[str]:
    said = call.stderr + call.stdout
    words = (b"Traceback (most recent", b"goroutine 1 [", b"panic: ")
    return [f"{call.plugin} crashed: {said[:120]!r}"] if any(w in said for w in words) else []


def _env(**values: str) -> Spoil:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        env.update(values)

    return spoil


def _keys(**values: Any) -> Spoil:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        config.update(values)

    return spoil


def _text(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda env, config: change(json.dumps(config).encode())


def _deep(raw: bytes) -> bytes:
    return b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def _other_previous(env: Env, config: dict[str, Any]) -> None:
    config["prevResult"] = {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": "eth0", "mac": "x", "sandbox": "/proc/self/ns/net"}],
        "ips": [{"address": "not an address", "interface": 99}],
    }


_IDS = {
    "id-dots": "..",
    "id-dash": "-rf",
    "id-path": "a/../b",
    "id-newline": "abc\n",
    "id-huge": "/" * 4096,
    "id-digits": "\u0661\u0662\u0663",
    "id-override": "abc\u202edef",
    "id-combining": "a\u0301b",
    "id-space": "a b",
}
_NAMES = {
    "if-path": "../x",
    "if-tab": "a\tb",
    "if-newline": "eth0\n",
    "if-dot": ".",
    "if-slash": "/",
}
_STDIN: dict[str, tuple[Spoil, bool]] = {
    "in-empty": (lambda env, config: b"", False),
    "in-100mb": (lambda env, config: b" " * (100 << 20), False),
    "in-open": (_text(lambda raw: raw[:-1]), False),
    "in-bom": (_text(lambda raw: b"\xef\xbb\xbf" + raw), False),
    "in-utf16": (_text(lambda raw: raw.decode().encode("utf-16")), False),
    "in-nul": (_text(lambda raw: raw[:5] + b"\0" + raw[5:]), False),
    "in-nan": (_text(lambda raw: raw[:-1] + b', "mtu": NaN}'), False),
    "in-deep": (_text(_deep), False),
    "in-twice": (_text(lambda raw: raw + raw), False),
    "in-huge-int": (_text(lambda raw: raw[:-1] + b', "x": ' + b"9" * 100_000 + b"}"), True),
    "in-version-digits": (_keys(cniVersion="1" * 1_000_000), False),
    "in-version-number": (_keys(cniVersion=1.0), False),
    "in-version-negative": (_keys(cniVersion="-1.0.0"), False),
    "in-name-nul": (_keys(name="a\0b"), False),
    "in-name-newline": (_keys(name="net\n"), False),
    "in-previous": (_other_previous, True),
    "in-previous-list": (_keys(prevResult=[1, 2]), False),
    "in-ipam-list": (_keys(ipam=[1]), True),
    "in-ipam-path": (_keys(ipam={"type": "../../../bin/true"}), True),
    "in-duplicate": (_text(lambda raw: b'{"name": "zzz", ' + raw[1:]), True),
    "in-unknown-keys": (_keys(**{f"kit{n}": n for n in range(5000)}), True),
    "in-surrogate": (_text(lambda raw: raw[:-1] + b', "x": "\\ud800"}'), True),
}
_ARGS = {
    "args-empty-items": ";;=",
    "args-no-value": "IgnoreUnknown=1;IP",
    "args-zero-length": "IgnoreUnknown=1;IP=10.0.0.1/0",
    "args-mac": "IgnoreUnknown=1;MAC=ff:ff:ff:ff:ff:ff",
    "args-equals": "IgnoreUnknown=1;K8S_POD_NAME=a=b",
    "args-huge": "IgnoreUnknown=1;X=" + "x" * 60_000,
    "args-unknown": "NOBODY_KNOWS=1",
}
_PATHS = {
    "path-empty": "",
    "path-relative": "./bin:.",
    "path-many": ":".join(f"/nowhere/{n}" for n in range(8000)),
}


def _own_network(station: Station, path: str) -> None:
    """The node's own namespace as the container's, also behind a link or another mount."""
    before = truth.links(entering.OWN).keys()
    held = truth.addresses(entering.OWN, "eth0")
    plugin = station.runtime.plugins[0]
    attachment = Attachment(container="kit-own-network", netns=path, ifname="cnf0")
    link = Path("/run/kit-link")
    link.unlink(missing_ok=True)
    link.symlink_to("/proc/self/ns/net")
    env, config = station.request(plugin, "ADD", attachment)
    call = station.send(plugin, env, config, timeout=station.sizes.limit)
    after = truth.links(entering.OWN).keys()
    station.send(plugin, {**env, "CNI_COMMAND": "DEL"}, config, timeout=station.sizes.limit)
    link.unlink()
    problems = error_problems(call)
    if after - before:
        problems.append(f"{', '.join(after - before)} was made on the node before it failed")
    if truth.addresses(entering.OWN, "eth0") != held:
        raise Failed("the node's own addresses changed")
    none_of(problems)


def _pipe(station: Station) -> None:
    """A FIFO as the namespace: opening it must not block."""
    path = Path("/run/kit-fifo")
    os.mkfifo(path)
    try:
        attachment = Attachment(container="kit-fifo", netns=str(path))
        plugin = station.runtime.plugins[0]
        env, config = station.request(plugin, "ADD", attachment)
        none_of(error_problems(station.send(plugin, env, config, timeout=station.sizes.limit)))
    finally:
        path.unlink()


def _refusals(station: Station) -> None:
    """An ADD that is refused has done nothing, also before DEL comes."""
    plugin = station.runtime.plugins[0]
    problems = []
    for name, spoil in (
        ("a plugin path in ipam.type", _keys(ipam={"type": "../../../bin/true"})),
        ("an address of length 0", _env(CNI_ARGS="IgnoreUnknown=1;IP=10.0.0.1/0")),
        ("an empty CNI_PATH", _env(CNI_PATH="")),
        ("a number as ipam", _keys(ipam=7)),
    ):
        attachment = station.fresh()
        with station.namespace(attachment) as network:
            before = station.host_links()
            env, config = station.request(plugin, "ADD", attachment)
            spoil(env, config)
            if (
                station.send(plugin, env, config, undo=True, timeout=station.sizes.limit).status
                == 0
            ):
                continue
            left = (set(truth.links(network)) - {"lo"}) | (station.host_links() - before)
            if left:
                problems.append(f"{name}: left {', '.join(sorted(left))}")
    none_of(problems)


def _busy_name(station: Station) -> None:
    """A network namespace with the node's own interface name is nothing special."""
    with station.pod(station.fresh(ifname="eth0")) as pod:
        if not truth.is_up(pod.network, "eth0"):
            raise Failed("eth0 is not up")


def _mutants(station: Station) -> None:
    """Random damage: bytes of the input, values of the environment."""
    problems = []
    plugin = station.runtime.plugins[0]
    for seed in range(station.sizes.mutants):
        dice = random.Random(seed)  # noqa: S311 - the same damage every time
        attachment = station.fresh()
        with station.namespace(attachment):
            env, config = station.request(plugin, "ADD", attachment)
            raw = _damage(dice, json.dumps(config).encode())
            if _is_another(raw, config):
                raw = raw[: dice.randrange(len(raw))]
            name = dice.choice(sorted(env))
            if dice.random() < 0.3 and name not in {"CNI_COMMAND", "CNI_NETNS"}:
                env[name] = _damage(dice, env[name].encode()).decode("latin-1").replace("\0", "x")
            call = station.send(plugin, env, raw, undo=True, timeout=station.sizes.limit)
            problems += [f"seed {seed}: {p}" for p in _answer(call, lenient=True)]
            if call.status == 0:
                _undo(station, plugin, attachment, env, raw)
    none_of(problems)


def _is_another(raw: bytes, config: dict[str, Any]) -> bool:
    """Whether the damage made another good configuration, which may leave other traces."""
    try:  # as lenient as a decoder that replaces broken characters
        read = json.loads(raw.decode(errors="replace"))
    except ValueError:
        return False
    free = {"cniVersion", "prevResult", "type"}
    return isinstance(read, dict) and any(
        read.get(key) != config.get(key) for key in (read.keys() | config.keys()) - free
    )


def _undo(
    station: Station, plugin: dict[str, Any], attachment: Attachment, env: Env, raw: bytes
) -> None:
    """DEL with the damaged request itself: its network's or container's name may be another."""
    station.send(plugin, {**env, "CNI_COMMAND": "DEL"}, raw, timeout=station.sizes.limit)
    station.runtime.delete(attachment)


def _damage(dice: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(data) or 1)
        kind = dice.randrange(4)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] = dice.randrange(256)
        elif kind == 1:
            del data[place : place + dice.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 9)))
        else:
            data[place:place] = data[: dice.randrange(1, 40)]
    return bytes(data)


def _row(name: str, spoil: Spoil, title: str, lenient: bool, plugins: int | None = None) -> Case:
    run = partial(_hostile, spoil=spoil, lenient=lenient, plugins=plugins)
    return case(f"hostile.{name}", run, "2", title)


def _corpus() -> list[Case]:
    rows = [
        _row(name, _env(CNI_CONTAINERID=value), f"container ID {value[:12]!r}", False)
        for name, value in _IDS.items()
    ]
    rows += [
        _row(name, _env(CNI_IFNAME=value), f"interface name {value!r}", False)
        for name, value in _NAMES.items()
    ]
    # only who makes the interface can know that the kernel would expand this name
    rows.append(_row("if-percent", _env(CNI_IFNAME="eth0%d"), "interface name 'eth0%d'", False, 1))
    rows += [
        _row(name, spoil, f"standard input: {name[3:].replace('-', ' ')}", lenient)
        for name, (spoil, lenient) in _STDIN.items()
    ]
    rows += [
        _row(name, _env(CNI_ARGS=value), f"CNI_ARGS {value[:32]!r}", True)
        for name, value in _ARGS.items()
    ]
    rows += [
        _row(name, _env(CNI_PATH=value), f"CNI_PATH {value[:20]!r}", True)
        for name, value in _PATHS.items()
    ]
    return rows


CASES = (
    *_corpus(),
    case(
        "hostile.own-self",
        partial(_own_network, path="/proc/self/ns/net"),
        "2",
        "the plugin's own namespace as the container's",
    ),
    case(
        "hostile.own-link",
        partial(_own_network, path="/run/kit-link"),
        "2",
        "the same behind a symbolic link",
    ),
    case("hostile.refusals", _refusals, "Invariant I", "a refused ADD leaves nothing, before DEL"),
    case("hostile.fifo", _pipe, "2", "a FIFO as the namespace"),
    case("hostile.if-host", _busy_name, "2", "an interface name that the node has too"),
    case("hostile.mutants", _mutants, "2", "random damage to good requests"),
)
