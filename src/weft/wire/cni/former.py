"""What other plugins and libcni wrote down of an attachment, as values.

libcni keeps one file an attachment, `NETWORK-CONTAINER-IFNAME`, whose parts cannot be told apart:
`cniCacheV1` says them inside; before libcni 0.7 the file is the bare result. host-local keeps one
file an address, named by it, with the container's id and, since 0.8, the interface's name. Pure;
`cni.former` reads the directories.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping

import msgspec

from weft.model.addresses import Address
from weft.model.attachment import PodRef
from weft.model.errors import Invalid
from weft.model.names import printable
from weft.model.ports import PortMapping
from weft.wire.cni.config import check_network
from weft.wire.cni.document import JsonObject, convert, decode_object, shape, undecodable
from weft.wire.cni.environment import NAME_RULE, check_ifname, is_name
from weft.wire.cni.request import decode_result
from weft.wire.cni.result import Result
from weft.wire.cni.traffic_wishes import ports
from weft.wire.cni.versions import LEGACY, VERSIONS

KIND = "cniCacheV1"
LARGEST = 1 << 20
"""Octets of a file that are read; a cache holds the configuration list and the result."""
HOST_LOCAL = "host-local"
LOOPBACK = "lo"
"""The interface of the network that runtimes add for it; there is nothing in it to move."""
_CACHE_SHAPE = shape(
    "kind", "containerId", "config", "ifName", "networkName", "netns", "cniArgs", "capabilityArgs",
    "result", "cniVersion", "interfaces", "ips", "ip4", "ip6", "routes", "dns",
)  # fmt: skip
_LIST_SHAPE = shape("cniVersion", "name", "plugins", "type", "ipam", "capabilities")


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin of a list: the object that it is configured by, as it was written."""

    type: str
    conf: JsonObject

    @property
    def capabilities(self) -> frozenset[str]:
        """What the runtime may tell it."""
        found = self.conf.get("capabilities")
        named = found.items() if isinstance(found, dict) else ()
        return frozenset(name for name, on in named if on is True)


class NetworkList(msgspec.Struct, frozen=True, kw_only=True):
    """A network's configuration: its plugins, in the order of ADD."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]

    def ranges(self) -> list[tuple[str, str]]:
        """(subnet, data directory or "") of each range of host-local's."""
        return [found for plugin in self.plugins for found in _ranges(plugin.conf.get("ipam"))]


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """One file of libcni's. A bare result names nobody: its `network` is ""."""

    network: str = ""
    container: str = ""
    ifname: str = ""
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, object] = {}
    list: NetworkList | None = None
    raw: JsonObject  # the result as it was answered
    result: Result

    @property
    def version(self) -> str:
        """The version of the ADD."""
        said = self.raw.get("cniVersion")
        return said if isinstance(said, str) and said in VERSIONS else LEGACY

    @property
    def pod(self) -> PodRef:
        """The pod that the runtime named."""
        said = dict(self.args)
        return PodRef(
            namespace=said.get("K8S_POD_NAMESPACE", ""),
            name=said.get("K8S_POD_NAME", ""),
            uid=said.get("K8S_POD_UID", ""),
        )

    @property
    def place(self) -> str:
        """The path of the container's namespace, "" where none is on record; libcni writes it
        itself only since 1.3, but plugins name it in their result."""
        named = (each.sandbox for each in self.result.interfaces)
        return next((path for path in (self.netns, *named) if path.startswith("/")), "")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The container's addresses, without their lengths; no loopback, no link-local ones."""
        inside = self.result.interfaces
        found = [
            ipaddress.ip_interface(ip.address).ip
            for ip in self.result.ips
            if ip.interface is None or inside[ip.interface].sandbox
        ]
        kept = (each for each in found if not (each.is_loopback or each.is_link_local))
        return tuple(dict.fromkeys(str(each) for each in kept))

    @property
    def mappings(self) -> tuple[PortMapping, ...]:
        """The ports that were published. Raises Invalid."""
        return ports(self.capability_args, {}) if self.publishes else ()

    @property
    def publishes(self) -> bool:
        """Whether a plugin was told of ports at all."""
        plugins = self.list.plugins if self.list else ()
        return any("portMappings" in each.capabilities for each in plugins)


class _Head(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    kind: str = ""
    container_id: str = ""
    config: str = ""
    if_name: str = ""
    network_name: str = ""
    netns: str = ""
    cni_args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, object] = {}
    result: dict[str, object] = {}
    cni_version: str = ""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """One file of host-local's; `ifname` "" where it names none."""

    address: Address
    container: str
    ifname: str = ""


def read_cache(content: bytes) -> Cached:
    """A file of libcni's. Raises Invalid."""
    obj = decode_object(content, _CACHE_SHAPE)
    head = convert({k: v for k, v in obj.items() if v is not None}, _Head)
    if head.kind not in ("", KIND):
        raise undecodable(f"kind: {head.kind[:40]!a} is not {KIND}", field="kind")
    if not head.kind:  # the bare result
        return Cached(raw=obj, result=decode_result(obj, head.cni_version or LEGACY))
    check_network(head.network_name)
    _check_container(head.container_id)
    if head.if_name != LOOPBACK:
        check_ifname(head.if_name)
    network = _decoded(head.config)
    version = network.version if network else LEGACY
    return Cached(
        network=head.network_name,
        container=head.container_id,
        ifname=head.if_name,
        netns=head.netns,
        args=head.cni_args,
        capability_args=head.capability_args,
        list=network,
        raw=head.result,
        result=decode_result(head.result, version),
    )


def _decoded(config: str) -> NetworkList | None:
    if not config:
        return None
    try:
        return read_list(base64.b64decode(config, validate=True))
    except ValueError as error:  # binascii.Error is one; another is for what is not ASCII
        raise undecodable(f"config: {error}", field="config") from None


def read_list(content: bytes) -> NetworkList:
    """A configuration list, or the single configuration that libcni makes one of. Raises
    Invalid."""
    obj = decode_object(content, _LIST_SHAPE)
    found = msgspec.json.decode(content)  # as it was written, for its plugins
    plugins = obj.get("plugins", [found])
    if not isinstance(plugins, list) or not all(isinstance(each, dict) for each in plugins):
        raise undecodable("plugins: expected a list of objects", field="plugins")
    name, version = obj.get("name"), obj.get("cniVersion")
    return NetworkList(
        name=name if isinstance(name, str) else "",
        version=version if isinstance(version, str) and version in VERSIONS else LEGACY,
        plugins=tuple(Plugin(type=str(each.get("type", "")), conf=each) for each in plugins),
    )


def _ranges(ipam: object) -> list[tuple[str, str]]:
    if not isinstance(ipam, dict) or ipam.get("type") != HOST_LOCAL:
        return []
    directory = ipam.get("dataDir")
    sets = ipam.get("ranges")
    flat = (
        [ipam, *(each for group in sets if isinstance(group, list) for each in group)]
        if (isinstance(sets, list))
        else [ipam]
    )
    subnets = [each.get("subnet") for each in flat if isinstance(each, dict)]
    where = directory if isinstance(directory, str) else ""
    return [(each if isinstance(each, str) else "", where) for each in subnets]


def read_reservation(name: str, content: bytes) -> Reservation | None:
    """A file of host-local's; None for its lock and its marks. Raises Invalid."""
    try:
        # on some versions with `_` for `:`, which Windows has no names with
        address = ipaddress.ip_address(name.replace("_", ":"))
    except ValueError:
        return None
    lines = content.decode(errors="replace").split()
    if not 1 <= len(lines) <= 2:
        raise Invalid("it names no container: it was cut short, or is not host-local's", field=name)
    _check_container(lines[0])
    if len(lines) == 2:
        check_ifname(lines[1])
    return Reservation(address=address, container=lines[0], ifname=lines[1] if lines[1:] else "")


def _check_container(name: str) -> None:
    if not is_name(name):
        raise undecodable(f"container {printable(name)} {NAME_RULE}", field="containerId")


def requests(cached: Cached) -> list[tuple[str, JsonObject]]:
    """(type, configuration on standard input) for the DEL of each plugin, in its order: as libcni
    makes them (SPEC section 3, "Deriving request configuration from plugin configuration")."""
    network = cached.list
    if network is None:
        return []
    made: list[tuple[str, JsonObject]] = []
    for plugin in reversed(network.plugins):
        conf = {k: v for k, v in plugin.conf.items() if k not in ("capabilities", "prevResult")}
        conf |= {"cniVersion": network.version, "name": network.name or cached.network}
        told = {
            name: value
            for name, value in cached.capability_args.items()
            if name in plugin.capabilities
        }
        if told:
            conf["runtimeConfig"] = told
        if network.version in _WITH_RESULT and cached.raw:
            conf["prevResult"] = cached.raw
        made.append((plugin.type, conf))
    return made


_WITH_RESULT = tuple(VERSIONS)[tuple(VERSIONS).index("0.4.0") :]
"""Versions in which DEL is told the result (SPEC 0.4.0)."""


def release_request(network: str, address: str, directory: str) -> JsonObject:
    """The configuration by which host-local gives back what a container has in `directory`; it
    goes by the container alone, but wants a range to be valid."""
    length = 112 if ":" in address else 24
    subnet = ipaddress.ip_network(f"{address}/{length}", strict=False)
    ipam = {"type": HOST_LOCAL, "dataDir": directory, "ranges": [[{"subnet": str(subnet)}]]}
    return {"cniVersion": "0.4.0", "name": network, "type": HOST_LOCAL, "ipam": ipam}
