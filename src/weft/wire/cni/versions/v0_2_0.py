"""CNI 0.2.0: adds the verb VERSION. One address a family in `ip4` and `ip6`, each with routes.

Interfaces, further addresses and route attributes have no place here and are dropped; a result
without any address has no form at all. Both rules are those of the Go libraries.
"""

from __future__ import annotations

import msgspec

from weft.model.errors import Invalid
from weft.wire.cni.document import JsonObject, convert, shape
from weft.wire.cni.result import NO_DNS, Dns, Ip, Result, Route, family, read
from weft.wire.cni.versions.form import Command, SpecVersion, pick

_FAMILY_SHAPE = shape("ip", "gateway", routes=shape("dst", "gw"))
_SHAPE = shape(
    ip4=_FAMILY_SHAPE,
    ip6=_FAMILY_SHAPE,
    dns=shape("nameservers", "domain", "search", "options"),
)


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """`ip4` or `ip6`."""

    ip: str
    gateway: str | None = None
    routes: tuple[Route, ...] = ()


class _Legacy(msgspec.Struct, frozen=True, kw_only=True):
    """The whole object."""

    ip4: _Family | None = None
    ip6: _Family | None = None
    dns: Dns = NO_DNS


def encode(result: Result) -> JsonObject:
    """The first address of each family with the routes of that family."""
    obj: JsonObject = {}
    for version in ("4", "6"):
        first = next((ip for ip in result.ips if ip.version == version), None)
        if first is not None:
            obj[f"ip{version}"] = _encode_family(first, version, result)
    if not obj:
        raise Invalid(
            "a result without any IP address has no form before CNI 0.3.0",
            field="cniVersion",
            reason="incompatible-version",
            details="raise cniVersion in the configuration to 0.3.0 or newer",
        )
    return {**obj, "dns": msgspec.to_builtins(result.dns)}


def _encode_family(ip: Ip, version: str, result: Result) -> JsonObject:
    obj: JsonObject = {"ip": ip.address}
    if ip.gateway is not None:
        obj["gateway"] = ip.gateway
    routes = [
        {"dst": route.dst} if route.gw is None else {"dst": route.dst, "gw": route.gw}
        for route in result.routes
        if family(route.dst) == version
    ]
    if routes:
        obj["routes"] = routes
    return obj


def decode(obj: JsonObject) -> Result:
    """`ip4` then `ip6`: addresses without interface, the routes of both behind each other."""
    legacy = convert(pick(obj, _SHAPE), _Legacy, "prevResult")
    families = [each for each in (legacy.ip4, legacy.ip6) if each is not None]
    return read(
        {
            "ips": [{"address": each.ip, "gateway": each.gateway} for each in families],
            "routes": [msgspec.to_builtins(route) for each in families for route in each.routes],
            "dns": msgspec.to_builtins(legacy.dns),
        }
    )


SPEC = SpecVersion(
    name="0.2.0",
    verbs=frozenset({Command.ADD, Command.DEL, Command.VERSION}),
    encode=encode,
    decode=decode,
)
