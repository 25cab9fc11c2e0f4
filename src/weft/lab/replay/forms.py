"""Standard input as each runtime writes it, byte by byte.

Go's encoder sorts the keys of maps, keeps the fields of structs in their order, writes no blanks
and escapes three characters; Mesos sorts; Python keeps the file's order; some pass the file on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from weft.lab.replay.persona import Call, Persona
from weft.lab.runtime import VERB_SINCE, order

Json = dict[str, Any]

_RESULT = ("cniVersion", "interfaces", "ips", "ip4", "ip6", "routes", "dns")
_FIELDS = {
    "interfaces": ("name", "mac", "mtu", "sandbox", "socketPath", "pciID"),
    "ips": ("version", "interface", "address", "gateway"),
    "routes": ("dst", "gw", "mtu", "advmss", "priority", "table", "scope"),
}
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One call as it concerns its input. `container`, `ifname`: of the attachment."""

    call: Call
    network: str
    container: str
    ifname: str
    previous: Json | None = None


def go(value: Any) -> bytes:
    """As encoding/json writes it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for plain, escaped in _ESCAPED.items():
        text = text.replace(plain, escaped)
    return text.encode()


def map_of(value: Any) -> Any:
    """A value that went through Go maps: keys sorted at every level."""
    if isinstance(value, Mapping):
        return {key: map_of(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [map_of(each) for each in value]
    return value


def struct_of(result: Json) -> Json:
    """A result with its keys in the order of libcni's structs."""
    made: Json = {key: result[key] for key in _RESULT if key in result}
    for key, fields in _FIELDS.items():
        if key in made:
            made[key] = [{f: each[f] for f in fields if f in each} for each in made[key]]
    return made


def libcni(persona: Persona, plugin: Json, asked: Asked) -> bytes:
    """What libcni injects (libcni/api.go, buildOneConfig); `capabilities` stay."""
    call = asked.call
    made: Json = map_of(plugin)
    made["name"] = asked.network
    if persona.version:
        made["cniVersion"] = persona.version
    if call.verb == "GC":
        kept = [{"containerID": asked.container, "ifname": asked.ifname}]
        listed = kept if call.kept == "this" else None  # a nil slice
        made["cni.dev/valid-attachments"] = made["cni.dev/attachments"] = listed
    if call.verb in {"ADD", "CHECK", "DEL"}:
        declared = plugin.get("capabilities", {})
        wanted = persona.capabilities
        passed = {key: wanted[key] for key in sorted(wanted) if declared.get(key)}
        if passed:
            made["runtimeConfig"] = passed
        if asked.previous is not None:
            made["prevResult"] = struct_of(asked.previous)
    if call.verb == "ADD":
        made |= persona.ungated
    return go({key: made[key] for key in sorted(made)})


def mesos(persona: Persona, plugin: Json, asked: Asked) -> bytes:
    """The file with the task's network in `args`; the same at DEL, where it was kept."""
    del asked
    return go(map_of({**plugin, **persona.ungated}))


def python(persona: Persona, plugin: Json, asked: Asked) -> bytes:
    """Python's own blanks, the file's order, `prevResult` last."""
    made = {**plugin, "cniVersion": persona.version, "name": asked.network}
    if asked.previous is not None and asked.call.verb == "ADD":
        made["prevResult"] = asked.previous
    return json.dumps(made).encode()


def file(persona: Persona, plugin: Json, asked: Asked) -> bytes:
    """The file as its administrator wrote it."""
    del persona, asked
    return (json.dumps(plugin, indent=4) + "\n").encode()


Form = Callable[[Persona, Json, Asked], bytes]
FORMS: Mapping[str, Form] = {"libcni": libcni, "mesos": mesos, "python": python, "file": file}


def configured(persona: Persona, network: str, other: Json | None = None) -> tuple[Json, bytes]:
    """The network's configuration and its file. `other`: a list whose plugins and versions take
    the place of weft's; a runtime that knows no lists gets its first plugin."""
    conf: Json = {**persona.conf, "name": network}
    if other and "plugins" in conf:
        for key in ("cniVersions", "plugins"):
            conf.pop(key, None)
        kept = ("cniVersion", "cniVersions", "plugins")
        conf |= {key: other[key] for key in kept if key in other}
    elif other:
        conf |= other["plugins"][0]
    return conf, (json.dumps(conf, indent=2) + "\n").encode()


def negotiated(persona: Persona, other: Json | None = None) -> str:
    """The version at which a list is run: libcni takes the newest of the list that it knows."""
    conf, _ = configured(persona, "weft", other)
    if "plugins" not in conf:
        return persona.version
    listed = {conf.get("cniVersion", "0.1.0"), *conf.get("cniVersions", ())}
    known = [each for each in listed if order(each) <= order(persona.known or persona.version)]
    return max(known, key=order) if known else persona.version


def asks(persona: Persona, verb: str) -> bool:
    """Whether the list's version has the verb; libcni does not call it otherwise."""
    since = VERB_SINCE.get(verb)
    return since is None or order(persona.version) >= order(since)


def takes_previous(persona: Persona, verb: str) -> bool:
    """Whether DEL and CHECK are told the result of ADD: libcni does so from 0.4.0 on."""
    known = persona.stdin == "libcni" and verb in {"DEL", "CHECK"}
    return known and order(persona.version) >= (0, 4)
