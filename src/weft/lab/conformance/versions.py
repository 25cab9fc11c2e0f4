"""Every version the chain claims: the exact shape of its results and the verbs it has.

The shapes are a table, one line a version, from the specification texts of each version and
from what libcni writes. A chain's version is the one every plugin of it reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from weft.lab.conformance.case import Case, Failed, NotApplicable, case, none_of
from weft.lab.conformance.station import Station, error_problems
from weft.lab.runtime import KNOWN_VERSIONS, VERB_SINCE, order


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The keys a result of one version may have; `needed` must be there in each address."""

    top: str
    ips: str = ""
    needed: str = ""
    interfaces: str = ""
    routes: str = ""


_OLD = Shape(top="cniVersion ip4 ip6 dns")
_THIRD = Shape(
    top="cniVersion interfaces ips routes dns",
    ips="version interface address gateway",
    needed="version address",
    interfaces="name mac sandbox",
    routes="dst gw",
)
_FIRST_STABLE = msgspec.structs.replace(_THIRD, ips="interface address gateway", needed="address")
SHAPES = {
    "0.1.0": _OLD,
    "0.2.0": _OLD,
    "0.3.0": _THIRD,
    "0.3.1": _THIRD,
    "0.4.0": _THIRD,
    "1.0.0": _FIRST_STABLE,
    "1.1.0": msgspec.structs.replace(
        _FIRST_STABLE,
        interfaces="name mac mtu sandbox socketPath pciID",
        routes="dst gw mtu advmss priority table scope",
    ),
}


def shape_problems(result: dict[str, Any], version: str) -> list[str]:
    """What in a result is not of the version's shape."""
    shape = SHAPES[version]
    problems = _strange("the result", result, shape.top)
    if result.get("cniVersion") != version:
        problems.append(f"cniVersion is {result.get('cniVersion')!r}")
    for name in ("ips", "interfaces", "routes"):
        entries = result.get(name, ())
        if not isinstance(entries, list | tuple):
            problems.append(f"{name} is not a list")
            continue
        for entry in entries:
            problems += _strange(name, entry, getattr(shape, name))
    for entry in result.get("ips", ()):
        missing = set(shape.needed.split()) - entry.keys()
        if missing:
            problems.append(f"an entry of ips lacks {', '.join(sorted(missing))}")
        family = "6" if ":" in entry.get("address", "") else "4"
        if "version" in shape.ips.split() and entry.get("version") != family:
            problems.append(f"{entry.get('address')} has version {entry.get('version')!r}")
    for name in ("ip4", "ip6"):
        if name in result:
            problems += _strange(name, result[name], "ip gateway routes")
            for route in result[name].get("routes", ()):
                problems += _strange(f"a route of {name}", route, "dst gw")
    if shape is _OLD and not {"ip4", "ip6"} & result.keys():
        problems.append("neither ip4 nor ip6")
    return problems


def _strange(where: str, entry: dict[str, Any], allowed: str) -> list[str]:
    return [f"{where} has {key!r}" for key in entry if key not in allowed.split()]


def _claim(station: Station, version: str) -> None:
    claimed = station.runtime.claimed()
    if version not in claimed:
        raise NotApplicable(f"not claimed; the chain speaks {', '.join(claimed)}")


def _shape(station: Station, version: str) -> None:
    _claim(station, version)
    runtime = station.at(version)
    with station.pod(runtime=runtime) as pod:
        none_of(shape_problems(pod.result, version))
        outcome = runtime.delete(pod.attachment)
        if not outcome.is_good:
            raise Failed(f"DEL in {version} failed: {outcome.failure}")


def _legacy(station: Station) -> None:
    _claim(station, "0.1.0")
    plugin = station.runtime.plugins[0]
    attachment = station.fresh()
    with station.namespace(attachment):
        env = station.runtime.environment("ADD", attachment)
        config = station.at("0.1.0").config(plugin, attachment)
        del config["cniVersion"]
        call = station.send(plugin, env, config)
        try:
            if call.status != 0 or call.json is None:
                raise Failed(call.summary)
            result = {"cniVersion": "0.1.0", **call.json}  # may be absent in this version
            none_of(shape_problems(result, "0.1.0"))
        finally:
            env["CNI_COMMAND"] = "DEL"
            station.send(plugin, env, config)


def _refused(station: Station, version: str, codes: Iterable[int]) -> None:
    problems = []
    for plugin in station.runtime.plugins:
        attachment = station.fresh()
        with station.namespace(attachment):
            env, config = station.request(plugin, "ADD", attachment)
            config["cniVersion"] = version
            call = station.send(plugin, env, config, undo=True)
            problems += error_problems(call, tuple(codes))
    none_of(problems)


def _gate(station: Station, verb: str, version: str) -> None:
    """The verb in a configuration one version too old for it."""
    _claim(station, version)
    problems = []
    for plugin in station.runtime.plugins:
        if version not in station.runtime.supported(plugin["type"]):
            continue
        with station.pod() as pod:
            env, config = station.request(plugin, verb, pod.attachment)
            config["cniVersion"] = version
            config.pop("prevResult", None)
            codes: tuple[int, ...] = (1,)
            if VERB_SINCE[verb] not in station.runtime.supported(plugin["type"]):
                codes += (4,)  # a plugin older than the verb does not know the word
            problems += error_problems(station.send(plugin, env, config), codes)
    none_of(problems)


def _shapes() -> tuple[Case, ...]:
    return tuple(
        case(
            f"versions.{version}",
            partial(_shape, version=version),
            f"{version} result",
            f"ADD and DEL in {version}, with the result's exact shape",
        )
        for version in KNOWN_VERSIONS
    )


def _before(verb: str) -> Case:
    older = [v for v in KNOWN_VERSIONS if order(v) < order(VERB_SINCE[verb])][-1]
    run = partial(_gate, verb=verb, version=older)
    return case(f"versions.{verb.lower()}-gate", run, "2", f"{verb} is refused in {older} (code 1)")


CASES = (
    *_shapes(),
    case("versions.legacy", _legacy, "0.1.0", "a configuration without cniVersion is 0.1.0"),
    case(
        "versions.unknown",
        partial(_refused, version="99.0.0", codes=(1,)),
        "5 Error",
        "a version from the future is refused (code 1)",
    ),
    case(
        "versions.malformed",
        partial(_refused, version="one.two", codes=(1, 6, 7)),
        "5 Error",
        "a version that is none is refused (code 1, 6 or 7)",
    ),
    *(_before(verb) for verb in VERB_SINCE),
)
