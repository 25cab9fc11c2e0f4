"""Bad requests: the right code, one JSON object on standard output, nothing done.

Each test breaks a good request in exactly one place, for every plugin of the chain. Codes are
those of section 5 of the specification; where it leaves a choice, all its answers are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from weft.lab.conformance.case import Case, case, none_of
from weft.lab.conformance.station import Station, error_problems
from weft.lab.invocation import Call
from weft.lab.runtime import VERB_SINCE

Env = dict[str, str]
Break = Callable[[Env, dict[str, Any]], "bytes | None"]
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
}


def _each(station: Station, verb: str, spoil: Break, plugins: int | None = None) -> list[Call]:
    """The answers of the (first so many) plugins to a request that `spoil` has changed."""
    if verb in VERB_SINCE:
        station.needs(VERB_SINCE[verb], verb)
    calls = []
    for plugin in station.runtime.plugins[:plugins]:
        attachment = station.fresh()
        with station.namespace(attachment):
            env, config = station.request(plugin, verb, attachment)
            raw = spoil(env, config)
            calls.append(station.send(plugin, env, config if raw is None else raw, undo=True))
    return calls


def _wrong(station: Station, verb: str, spoil: Break, codes: Sequence[int]) -> None:
    none_of(p for call in _each(station, verb, spoil) for p in error_problems(call, codes))


def _no_namespace(station: Station, path: str) -> None:
    """Only the first plugin must look into the namespace; chained ones may have no need to."""
    calls = _each(station, "ADD", _env("CNI_NETNS", path), plugins=1)
    none_of(p for call in calls for p in error_problems(call))


def _missing(station: Station, verb: str, names: Sequence[str]) -> None:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        for name in names:
            del env[name]

    problems = []
    for call in _each(station, verb, spoil):
        problems += error_problems(call, (4,))
        said = str((call.json or {}).get("msg", "")) + str((call.json or {}).get("details", ""))
        unnamed = [name for name in names if name not in said]
        if call.status and unnamed:
            problems.append(f"{call.plugin}: the message does not name {', '.join(unnamed)}")
    none_of(problems)


def _env(name: str, value: str) -> Break:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        env[name] = value

    return spoil


def _key(name: str, value: Any) -> Break:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        config[name] = value

    return spoil


def _without(name: str) -> Break:
    def spoil(env: Env, config: dict[str, Any]) -> None:
        del config[name]

    return spoil


def _input(raw: bytes) -> Break:
    return lambda env, config: raw


def _versioned(station: Station) -> None:
    problems = []
    for call in _each(station, "ADD", _env("CNI_IFNAME", "a/b")):
        problems += error_problems(call)
        carried = (call.json or {}).get("cniVersion")
        if carried != station.runtime.version:
            problems.append(f"{call.plugin}: the error's cniVersion is {carried!r}")
    none_of(problems)


def _no_prev(station: Station) -> None:
    station.needs("0.4.0", "CHECK")
    problems = []
    for plugin in station.runtime.plugins:
        with station.pod() as pod:
            env, config = station.request(plugin, "CHECK", pod.attachment)
            config.pop("prevResult", None)
            problems += error_problems(station.send(plugin, env, config))
    none_of(problems)


def _table() -> tuple[Case, ...]:
    rows: tuple[tuple[str, str, Break, tuple[int, ...], str, str], ...] = (
        ("command", "ADD", _env("CNI_COMMAND", "FROB"), (4,), "2", "an unknown CNI_COMMAND"),
        ("command-case", "ADD", _env("CNI_COMMAND", "add"), (4,), "2", "a lower-case CNI_COMMAND"),
        ("container", "ADD", _env("CNI_CONTAINERID", "a/../b"), (4,), "2", "a container ID with /"),
        ("container-dash", "ADD", _env("CNI_CONTAINERID", "-rf"), (4,), "2", "a container ID -rf"),
        ("ifname-slash", "ADD", _env("CNI_IFNAME", "a/b"), (4,), "2", "an interface name with /"),
        ("ifname-long", "ADD", _env("CNI_IFNAME", "sixteen-letters0"), (4,), "2",
         "an interface name of 16 characters"),
        ("ifname-dots", "ADD", _env("CNI_IFNAME", ".."), (4,), "2", "an interface named .."),
        ("ifname-colon", "ADD", _env("CNI_IFNAME", "a:b"), (4,), "2", "an interface name with :"),
        ("ifname-space", "ADD", _env("CNI_IFNAME", "a b"), (4,), "2",
         "an interface name with a space"),
        ("input-empty", "ADD", _input(b""), (6,), "5 Error", "empty standard input"),
        ("input-open", "ADD", _input(b'{"cniVersion":"1.0.0","name"'), (6,), "5 Error",
         "JSON that breaks off"),
        ("input-list", "ADD", _input(b"[]"), (6, 7), "5 Error", "JSON that is not an object"),
        ("input-type", "ADD", _key("name", 7), (6, 7), "5 Error", "a name that is a number"),
        ("name-missing", "ADD", _without("name"), (7,), "1", "no network name"),
        ("name-empty", "ADD", _key("name", ""), (7,), "1", "an empty network name"),
        ("name-slash", "ADD", _key("name", "../x"), (7,), "1", "a network name with /"),
        ("del-container", "DEL", _env("CNI_CONTAINERID", "a/b"), (4,), "2",
         "DEL for a container ID with /"),
        ("del-input", "DEL", _input(b"{"), (6,), "5 Error", "DEL with JSON that breaks off"),
    )  # fmt: skip
    return tuple(
        case(
            f"errors.{name}",
            partial(_wrong, verb=verb, spoil=spoil, codes=codes),
            spec,
            f"{title} (code {' or '.join(map(str, codes))})",
        )
        for name, verb, spoil, codes, spec, title in rows
    )


def _namespaces() -> tuple[Case, ...]:
    rows = (
        ("gone", "/run/netns/kit-nowhere", "a namespace that does not exist"),
        ("file", "/etc/hostname", "a namespace that is a regular file"),
        ("directory", "/run", "a namespace that is a directory"),
    )
    return tuple(
        case(f"errors.netns-{name}", partial(_no_namespace, path=path), "2", f"{title} is an error")
        for name, path, title in rows
    )


def _absences() -> tuple[Case, ...]:
    made = []
    for verb, names in _REQUIRED.items():
        for group in (*((name,) for name in names), names):
            label = "all" if group is names else group[0].removeprefix("CNI_").lower()
            text = "all required variables" if group is names else group[0]
            made.append(
                case(
                    f"errors.{verb.lower()}-no-{label}",
                    partial(_missing, verb=verb, names=group),
                    "2",
                    f"{verb} without {text} (code 4, naming what is missing)",
                )
            )
    return tuple(made)


CASES = (
    *_absences(),
    *_table(),
    *_namespaces(),
    case("errors.check-no-previous", _no_prev, "2 CHECK", "CHECK without prevResult is an error"),
    case(
        "errors.version", _versioned, "5 Error", "an error object carries the caller's cniVersion"
    ),
)
