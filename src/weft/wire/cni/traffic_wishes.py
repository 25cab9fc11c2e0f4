"""Published ports and bandwidth, in every spelling that runtimes use.

    ports      runtimeConfig.portMappings (libcni: camelCase, Cloud Foundry: snake_case)
               > args."org.apache.mesos".network_info.port_mappings
    bandwidth  runtimeConfig.bandwidth
               > the pod's annotations kubernetes.io/{ingress,egress}-bandwidth
               > ingressRate, ingressBurst, egressRate, egressBurst of the configuration

A hostPort of 0 or none publishes nothing, as in Kubernetes. Pure; `wishes.py` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from weft.model.bandwidth import Bandwidth, check_bandwidth, parse_quantity
from weft.model.errors import Invalid
from weft.model.names import printable
from weft.model.ports import MAX_PORT, PROTOCOLS, PortMapping, check_mappings, parse_host_ip
from weft.wire.cni.config import Conf
from weft.wire.cni.document import convert, project, shape

MESOS = "org.apache.mesos"
ANNOTATIONS = {
    "ingress_rate": "kubernetes.io/ingress-bandwidth",
    "egress_rate": "kubernetes.io/egress-bandwidth",
}

_PORT_SHAPE = shape(
    "hostPort", "containerPort", "hostIP", "protocol", "host_port", "container_port", "host_ip"
)
_RUNTIME_SHAPE = shape(portMappings=_PORT_SHAPE)
_MESOS_SHAPE = shape(**{MESOS: shape(network_info=shape(port_mappings=_PORT_SHAPE))})
_RATES = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
_BANDWIDTH_SHAPE = shape(bandwidth=shape(*_RATES))


class _Port(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping; of two spellings of a key libcni's counts."""

    host_port: int | None = msgspec.field(default=None, name="hostPort")
    container_port: int | None = msgspec.field(default=None, name="containerPort")
    host_ip: str | None = msgspec.field(default=None, name="hostIP")
    protocol: str = ""
    snake_host_port: int | None = msgspec.field(default=None, name="host_port")
    snake_container_port: int | None = msgspec.field(default=None, name="container_port")
    snake_host_ip: str | None = msgspec.field(default=None, name="host_ip")


class _Runtime(msgspec.Struct, frozen=True, kw_only=True):
    port_mappings: tuple[_Port, ...] = msgspec.field(default=(), name="portMappings")


class _NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    port_mappings: tuple[_Port, ...] = ()


class _Mesos(msgspec.Struct, frozen=True, kw_only=True):
    network_info: _NetworkInfo = _NetworkInfo()


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    mesos: _Mesos = msgspec.field(default=_Mesos(), name=MESOS)


class _Limits(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class _Limited(msgspec.Struct, frozen=True, kw_only=True):
    bandwidth: _Limits = _Limits()


def ports(
    runtime_config: Mapping[str, object], args: Mapping[str, object]
) -> tuple[PortMapping, ...]:
    """The ports to publish. Raises Invalid (code 7) naming the place."""
    if not runtime_config and not args:
        return ()
    place = "runtimeConfig.portMappings"
    wanted = convert(
        project(runtime_config, _RUNTIME_SHAPE), _Runtime, "runtimeConfig"
    ).port_mappings
    if not wanted and args:
        found = project(args, _MESOS_SHAPE)
        place = f"args.{MESOS}.network_info.port_mappings"
        wanted = convert(found, _Args, "args").mesos.network_info.port_mappings
    mappings = tuple(
        mapping
        for number, port in enumerate(wanted)
        if (mapping := _mapping(port, f"{place}[{number}]")) is not None
    )
    check_mappings(mappings, place)
    return mappings


def _mapping(port: _Port, place: str) -> PortMapping | None:
    host = port.host_port if port.host_port is not None else port.snake_host_port
    inner = port.container_port if port.container_port is not None else port.snake_container_port
    address = port.host_ip if port.host_ip is not None else port.snake_host_ip
    host = host or 0
    if not 0 <= host <= MAX_PORT:
        raise _invalid(f"{place}.hostPort", f"{host} is not a port (1 to {MAX_PORT})")
    if host == 0:
        return None
    inner = host if inner is None else inner
    if not 1 <= inner <= MAX_PORT:
        raise _invalid(f"{place}.containerPort", f"{inner} is not a port (1 to {MAX_PORT})")
    protocol = port.protocol.lower() or "tcp"
    for known in PROTOCOLS:
        if known == protocol:
            return PortMapping(
                protocol=known,
                host_port=host,
                container_port=inner,
                host_ip=_host_ip(address or "", f"{place}.hostIP"),
            )
    raise _invalid(
        f"{place}.protocol", f"{printable(port.protocol)} is none of {', '.join(PROTOCOLS)}"
    )


def _host_ip(text: str, field: str) -> str:
    try:
        return parse_host_ip(text, field)
    except Invalid as error:
        raise Invalid(error.message, field=field) from None


def bandwidth(
    runtime_config: Mapping[str, object], annotations: Mapping[str, str], conf: Conf
) -> Bandwidth:
    """The limits to keep. Raises Invalid (code 7) naming the place."""
    limits = (
        _Limits()
        if not runtime_config
        else convert(project(runtime_config, _BANDWIDTH_SHAPE), _Limited, "runtimeConfig").bandwidth
    )
    if limits != _Limits():
        return _checked(limits, "runtimeConfig.bandwidth")
    annotated = {
        name: parse_quantity(annotations[key], f"annotation {key}")
        for name, key in ANNOTATIONS.items()
        if annotations.get(key)
    }
    if annotated:
        return _checked(_Limits(**annotated), "annotations kubernetes.io")
    static = _Limits(
        ingress_rate=conf.ingress_rate,
        ingress_burst=conf.ingress_burst,
        egress_rate=conf.egress_rate,
        egress_burst=conf.egress_burst,
    )
    return _checked(static, "configuration") if static != _Limits() else Bandwidth()


def _checked(limits: _Limits, place: str) -> Bandwidth:
    found = Bandwidth(**msgspec.structs.asdict(limits))
    check_bandwidth(found, place)
    return found


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", field=field, reason="invalid-config")
