"""What each runtime reads out of what a plugin prints; Misread is where it would give up.

A reader of a result gives the container's addresses as that runtime then knows them. Those that
look into the namespace instead are given the interface's addresses. Sources: each persona's.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Json = dict[str, Any]


class Misread(Exception):
    """The runtime cannot use this; the text says why."""


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin printed, and what stands beside it. `seen`: the interface's addresses."""

    stdout: bytes
    stderr: bytes = b""
    version: str = ""
    ifname: str = ""
    seen: tuple[str, ...] = ()


def _object(printed: Printed) -> Json:
    try:
        found = json.loads(printed.stdout)
    except ValueError as error:
        raise Misread(f"standard output is not one JSON value: {error}") from None
    if not isinstance(found, dict):
        raise Misread("standard output is not an object")
    if "code" in found:
        raise Misread(f"an error object: {found.get('msg')}")
    return found


def _bare(text: Any) -> str:
    """The address of a CIDR, which Go's net.ParseCIDR would take."""
    try:
        if "/" not in str(text):
            raise ValueError(f"{text!r} has no prefix length")
        return str(ipaddress.ip_interface(str(text)).ip)
    except ValueError as error:
        raise Misread(str(error)) from None


def _current(printed: Printed) -> tuple[list[Json], list[Json]]:
    """Interfaces and addresses, as libcni converts a result of any version to its newest form."""
    result = _object(printed)
    version = result.get("cniVersion") or printed.version or "0.1.0"
    if version != (printed.version or "0.1.0"):
        raise Misread(f"a result of version {version}, asked for in {printed.version or '0.1.0'}")
    if version in {"0.1.0", "0.2.0"}:
        families = [result[key] for key in ("ip4", "ip6") if key in result]
        ips: list[Json] = [{"address": each["ip"]} for each in families]
        if "ips" in result or not ips:
            raise Misread("neither ip4 nor ip6, or the form of a later version")
        return [], ips
    interfaces, ips = result.get("interfaces", []), result.get("ips", [])
    for entry in ips:
        index = entry.get("interface")
        if index is not None and not 0 <= index < len(interfaces):
            raise Misread(f"an address of interface {index}, of {len(interfaces)}")
        shown = "6" if ":" in entry["address"] else "4"
        if version.startswith("0.") and entry.get("version") != shown:
            raise Misread(f"{entry['address']} has version {entry.get('version')!r}")
    return interfaces, ips


def libcni(printed: Printed) -> list[str]:
    """Every address; no address is as bad as none at all (CRI-O: pods have an address)."""
    _, ips = _current(printed)
    if not ips:
        raise Misread("no address")
    return [_bare(each["address"]) for each in ips]


def go_cni(printed: Printed) -> list[str]:
    """By interface name: the one named as the first must be there and have addresses (go-cni,
    createResult; containerd fails the sandbox otherwise)."""
    interfaces, ips = _current(printed)
    by_name: dict[str, list[str]] = {"eth0": [], **{each["name"]: [] for each in interfaces}}
    for each in ips:
        index = each.get("interface")
        name = "eth0" if index is None else interfaces[index]["name"]
        by_name[name].append(_bare(each["address"]))
    if not by_name.get(printed.ifname):
        raise Misread(f"no address of {printed.ifname}")
    return by_name[printed.ifname]


def nomad(printed: Printed) -> list[str]:
    """The first interface by name that has a sandbox and addresses (cniToAllocNet)."""
    interfaces, ips = _current(printed)
    for index, each in sorted(enumerate(interfaces), key=lambda pair: str(pair[1]["name"])):
        found = [_bare(ip["address"]) for ip in ips if ip.get("interface") == index]
        if each.get("sandbox") and found:
            return found
    raise Misread("no interface with a sandbox and an address")


def garden(printed: Printed) -> list[str]:
    """In the form of 0.4.0: the first IPv4 address, and the interface it points to."""
    interfaces, ips = _current(printed)
    first = next((each for each in ips if ":" not in each["address"]), None)
    if first is None:
        raise Misread("expected an IPv4 address in the CNI result")
    if first.get("interface") is None:
        raise Misread("pointer to container interface is nil")
    if interfaces[first["interface"]]["name"] != printed.ifname:
        raise Misread(f"the address is not that of {printed.ifname}")
    return [_bare(first["address"])]


def first_of_each_family(printed: Printed) -> list[str]:
    """Apptainer: GetNetworkIP with "4" and with "6"."""
    found = libcni(printed)
    four = next((each for each in found if ":" not in each), None)
    if four is None:
        raise Misread("no IPv4 address for the network")
    return [four, *[each for each in found if ":" in each][:1]]


def mesos(printed: Printed) -> list[str]:
    """The protobuf NetworkInfo: ip4 and ip6 with a required `ip`, routes with a required `dst`."""
    result = _object(printed)
    found = []
    for key in ("ip4", "ip6"):
        family = result.get(key)
        if family is None:
            continue
        if any("dst" not in route for route in family.get("routes", ())):
            raise Misread(f"a route of {key} without dst")
        found.append(_bare(family.get("ip")))
    for key, kind in (("nameservers", list), ("domain", str), ("search", list), ("options", list)):
        if not isinstance(result.get("dns", {}).get(key, kind()), kind):
            raise Misread(f"dns.{key} is no {kind.__name__}")
    if not found:
        raise Misread("neither ip4 nor ip6: the container gets no address")
    return found


def rkt(printed: Printed) -> list[str]:
    """ip4 is needed: without it rkt knows no address."""
    result = _object(printed)
    if "ip4" not in result:
        raise Misread("no ip4")
    gateway = result["ip4"].get("gateway")
    if gateway is not None and not _is_address(gateway):
        raise Misread(f"gateway {gateway!r}")
    return [_bare(result["ip4"].get("ip"))]


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def looks_into_the_namespace(printed: Printed) -> list[str]:
    """OpenSVC logs what it is told and asks the kernel; version 2 takes `code` for an error."""
    if printed.stdout.strip():
        _object(printed)
    if not printed.seen:
        raise Misread(f"{printed.ifname} has no address")
    return [_bare(each) for each in printed.seen]


def ecs_version(printed: Printed) -> list[str]:
    """{"version", "dirty", "gitShortHash"}, of these types."""
    found = _object(printed)
    kinds = {"version": str, "dirty": bool, "gitShortHash": str}
    for key, kind in kinds.items():
        if not isinstance(found.get(key), kind):
            raise Misread(f"{key} is {found.get(key)!r}")
    return []


def ecs_capabilities(printed: Printed) -> list[str]:
    """A list of texts; the one that ECS looks for belongs to its own plugins."""
    found = _object(printed).get("capabilities")
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Misread(f"capabilities is {found!r}")
    return []


_SEMANTIC = re.compile(r"v?\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")


def nomad_version(printed: Printed) -> list[str]:
    """The first word of either output that is a semantic version."""
    words = (printed.stdout + printed.stderr).decode(errors="replace").split()
    if not any(_SEMANTIC.fullmatch(word) for word in words):
        raise Misread("no word of the output is a semantic version; Nomad calls it unknown")
    return []


def versions(printed: Printed) -> list[str]:
    """VERSION as libcni reads it: the version it will call with must be among those supported."""
    found = _object(printed).get("supportedVersions", [])
    if printed.version not in found:
        raise Misread(f"{printed.version} is not among {found}")
    return []


def nothing(printed: Printed) -> list[str]:
    """Verbs that answer by their exit status alone."""
    if printed.stdout.strip():
        raise Misread(f"printed {printed.stdout[:80]!r}")
    return []


Reader = Callable[[Printed], list[str]]
READERS: Mapping[str, Reader] = {
    each.__name__: each
    for each in (
        libcni, go_cni, nomad, garden, first_of_each_family, mesos, rkt, looks_into_the_namespace,
        ecs_version, ecs_capabilities, nomad_version, versions, nothing,
    )
}  # fmt: skip
