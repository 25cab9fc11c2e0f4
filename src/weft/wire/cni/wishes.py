"""What a container asks for beyond an interface: addresses, MAC, pod, labels, ports, bandwidth.

A wish may come from four places, and everywhere the same one wins:

    runtimeConfig  >  args.cni  >  CNI_ARGS  >  static configuration

The first place that states a wish is taken and the later ones are not even read; an empty string or
list states nothing. Addresses are one wish a family, labels one a key; those of Mesos stand in a
place of their own, below `args.cni`. Whether a wish is granted is not decided here: all of them are
the container's own words. What weft itself knows of a container (`pod`) is never put into the map
of user labels, so that a label cannot pose as it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from weft.model.addresses import Address, parse_address
from weft.model.attachment import PodRef
from weft.model.bandwidth import Bandwidth
from weft.model.egress import EgressList
from weft.model.errors import Invalid
from weft.model.names import (
    MAX_ANNOTATION_BYTES,
    MAX_SUBDOMAIN,
    check_label_name,
    check_labels,
    printable,
)
from weft.model.ports import PortMapping
from weft.wire.cni import net_out, traffic_wishes
from weft.wire.cni.config import Conf
from weft.wire.cni.document import convert, project, shape
from weft.wire.cni.environment import Args
from weft.wire.cni.traffic_wishes import MESOS

POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
LABELS_ANNOTATION = "weft.dev/labels"
MESOS_LABELS = f"args.{MESOS}.network_info.labels"
MAX_IPS = 16

_RUNTIME_SHAPE = shape("ips", "mac", POD_ANNOTATIONS)
_LABEL_SHAPE = shape("key", "value")
_ARGS_CNI_SHAPE = shape("ips", "mac", labels=_LABEL_SHAPE)
_MESOS_SHAPE = shape(**{MESOS: shape(network_info=shape(labels=shape(labels=_LABEL_SHAPE)))})
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")
_POD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_POD_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PAIR = re.compile(r"([^:=]*)[:=]([^:=]*)")

NOTHING: Mapping[str, object] = {}
T = TypeVar("T")
Source = tuple[str, str, T]  # where it stands, the reason of an error there, what it says


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved wishes; see the module for their order."""

    ips: tuple[Address, ...] = ()
    mac: str = ""  # lower case with colons; empty: none asked for
    pod: PodRef = PodRef()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    egress: EgressList | None = None  # None: it may connect everywhere


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `args.cni.labels`."""

    key: str
    value: str = ""


class _Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `runtimeConfig`."""

    ips: tuple[str, ...] = ()
    mac: str = ""
    annotations: dict[str, str] = msgspec.field(default_factory=dict, name=POD_ANNOTATIONS)


class _ArgsCni(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `args.cni`."""

    ips: tuple[str, ...] = ()
    mac: str = ""
    labels: tuple[Label, ...] = ()


class _MesosLabels(msgspec.Struct, frozen=True, kw_only=True):
    labels: tuple[Label, ...] = ()


class _MesosInfo(msgspec.Struct, frozen=True, kw_only=True):
    labels: _MesosLabels = _MesosLabels()


class _Mesos(msgspec.Struct, frozen=True, kw_only=True):
    network_info: _MesosInfo = _MesosInfo()


class _ForeignArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `args` beside `args.cni` (include/mesos/mesos.proto, NetworkInfo)."""

    mesos: _Mesos = msgspec.field(default=_Mesos(), name=MESOS)


def resolve(
    runtime_config: Mapping[str, object],
    args_cni: Mapping[str, object],
    args: Args,
    conf: Conf,
    foreign_args: Mapping[str, object] = NOTHING,
    metadata: object = None,
) -> Wishes:
    """The wishes of one request; raises Invalid naming the place (code 4 in CNI_ARGS, else 7).

    `foreign_args` is the whole of `args`, of which Mesos uses a part of its own; `metadata` what
    Cloud Foundry says of the container, beside or inside `runtimeConfig`.
    """
    runtime = convert(project(runtime_config, _RUNTIME_SHAPE), _Runtime, "runtimeConfig")
    cni = convert(project(args_cni, _ARGS_CNI_SHAPE), _ArgsCni, "args.cni")
    variables = dict(args)
    listed = tuple(filter(None, variables.get("IP", "").split(",")))
    ips = _wished_addresses(
        ("runtimeConfig.ips", "invalid-config", runtime.ips),
        ("args.cni.ips", "invalid-config", cni.ips),
        ("CNI_ARGS IP", "invalid-environment", listed),
        ("ips", "invalid-config", conf.ips),
    )
    mac = _first(
        ("runtimeConfig.mac", "invalid-config", runtime.mac),
        ("args.cni.mac", "invalid-config", cni.mac),
        ("CNI_ARGS MAC", "invalid-environment", variables.get("MAC", "")),
        ("mac", "invalid-config", conf.mac),
    )
    _check_annotations(runtime.annotations)
    told = metadata if isinstance(metadata, dict) else runtime_config.get("metadata")
    told = told if isinstance(told, dict) else {}
    return Wishes(
        ips=ips,
        mac=_hardware_address(mac) if mac else "",
        pod=_pod(variables) if variables else PodRef(),
        labels=net_out.labels(told)
        | _labels(runtime, cni, _of_mesos(foreign_args), variables.get("WEFT_LABELS", ""), conf),
        annotations=runtime.annotations,
        ports=traffic_wishes.ports(runtime_config, foreign_args),
        bandwidth=traffic_wishes.bandwidth(runtime_config, runtime.annotations, conf),
        egress=net_out.egress(runtime_config, told, conf),
    )


def _first(*sources: Source[T]) -> Source[T] | None:
    return next((source for source in sources if source[2]), None)


def _wished_addresses(*sources: Source[tuple[str, ...]]) -> tuple[Address, ...]:
    """Of each family those of the first place that states one: nerdctl asks for an IPv4 address in
    CNI_ARGS and for an IPv6 address by capability."""
    found: list[Address] = []
    for source in sources:
        if source[2]:
            found += _addresses(source, {each.version for each in found})
    return tuple(found)


def _addresses(source: Source[tuple[str, ...]], had: set[int]) -> list[Address]:
    """The addresses of a place but for the families in `had`, whose texts are not read."""
    place, reason, texts = source
    wanted = [(n, t) for n, t in enumerate(texts) if (6 if ":" in t else 4) not in had]
    if len(wanted) > MAX_IPS:
        raise Invalid(f"{place}: more than {MAX_IPS} addresses", field=place, reason=reason)
    found = [
        _address(text, f"{place}[{n}]" if len(texts) > 1 else place, reason) for n, text in wanted
    ]
    if len(set(found)) != len(found):
        raise Invalid(f"{place}: the same address twice", field=place, reason=reason)
    return found


def _address(text: str, field: str, reason: str) -> Address:
    """An address with or without prefix length; a length is checked and then of no effect."""
    bare, slash, length = text.partition("/")
    address = _under(reason, parse_address, bare, field)
    if slash:
        good = length.isascii() and length.isdigit() and len(length) <= 3
        if not good or not 1 <= int(length) <= address.max_prefixlen:
            raise Invalid(
                f"{field}: {printable(text)} has no prefix length from 1 to "
                f"{address.max_prefixlen}",
                field=field,
                reason=reason,
            )
    if _is_special(address):
        raise Invalid(
            f"{field}: {printable(text)} is not an address that a container can have",
            field=field,
            reason=reason,
        )
    return address


def _is_special(address: Address) -> bool:
    if address.is_multicast or address.is_loopback or address.is_link_local:
        return True
    if address.is_unspecified:
        return True
    # 0.0.0.0/8 and 240.0.0.0/4; reserved IPv6 space is left to the pools
    return isinstance(address, ipaddress.IPv4Address) and (
        address.is_reserved or int(address) < 1 << 24
    )


def _hardware_address(source: Source[str]) -> str:
    place, reason, text = source
    octets = bytes.fromhex(text.replace("-", "").replace(":", "")) if _MAC.fullmatch(text) else b""
    if not octets or octets[0] & 1 or not any(octets):
        raise Invalid(
            f"{place}: {printable(text)} is not a unicast hardware address such as "
            "0a:58:0a:f4:00:02",
            field=place,
            reason=reason,
        )
    return octets.hex(":")


def _pod(variables: Mapping[str, str]) -> PodRef:
    """The pod as Kubernetes' runtimes name it; podman sends only K8S_POD_NAME, a container's."""
    name = variables.get("K8S_POD_NAME", "")
    namespace = variables.get("K8S_POD_NAMESPACE", "")
    uid = variables.get("K8S_POD_UID", "")
    if name and (len(name) > MAX_SUBDOMAIN or not _POD_NAME.fullmatch(name)):
        raise _bad_variable("K8S_POD_NAME", name)
    if uid and not _POD_UID.fullmatch(uid):
        raise _bad_variable("K8S_POD_UID", uid)
    if namespace:
        _under("invalid-environment", check_label_name, namespace, "CNI_ARGS K8S_POD_NAMESPACE")
    return PodRef(namespace=namespace, name=name, uid=uid)


def _bad_variable(name: str, value: str) -> Invalid:
    field = f"CNI_ARGS {name}"
    return Invalid(
        f"{field}: {printable(value)} has invalid characters or is too long",
        field=field,
        reason="invalid-environment",
    )


def _of_mesos(args: Mapping[str, object]) -> tuple[Label, ...]:
    if MESOS not in args:
        return ()
    found = convert(project(args, _MESOS_SHAPE), _ForeignArgs, "args")
    return found.mesos.network_info.labels.labels


def _labels(
    runtime: _Runtime, cni: _ArgsCni, mesos: tuple[Label, ...], variable: str, conf: Conf
) -> dict[str, str]:
    annotated = runtime.annotations.get(LABELS_ANNOTATION, "")
    if not (annotated or cni.labels or mesos or variable or conf.labels):
        return {}
    annotation = f"runtimeConfig[{POD_ANNOTATIONS}][{LABELS_ANNOTATION}]"
    merged: dict[str, str] = {}
    for place, reason, labels in (  # the lowest first: later ones overwrite
        ("labels", "invalid-config", conf.labels),
        ("CNI_ARGS WEFT_LABELS", "invalid-environment", variable),
        (MESOS_LABELS, "invalid-config", {each.key: each.value for each in mesos}),
        ("args.cni.labels", "invalid-config", {each.key: each.value for each in cni.labels}),
        (annotation, "invalid-config", annotated),
    ):
        pairs = _pairs(labels, place, reason) if isinstance(labels, str) else labels
        _under(reason, check_labels, pairs, place)
        merged |= pairs
    return merged


def _pairs(text: str, place: str, reason: str) -> dict[str, str]:
    """`key:value,key:value`; `=` for `:` is taken too, where it can be written."""
    pairs: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        pair = _PAIR.fullmatch(item)
        if pair is None:
            raise Invalid(
                f"{place}: {printable(item)} is not of the form key:value",
                field=place,
                reason=reason,
            )
        pairs[pair[1].strip()] = pair[2].strip()
    return pairs


def _check_annotations(annotations: Mapping[str, str]) -> None:
    """Foreign annotations pass as they are, up to the size that Kubernetes allows."""
    if sum(map(len, annotations)) + sum(map(len, annotations.values())) > MAX_ANNOTATION_BYTES:
        field = f"runtimeConfig[{POD_ANNOTATIONS}]"
        raise Invalid(
            f"{field}: more than {MAX_ANNOTATION_BYTES} characters",
            field=field,
            reason="invalid-config",
        )


A = TypeVar("A")


def _under(reason: str, check: Callable[[A, str], T], value: A, field: str) -> T:
    """The model's check of a value, failing with the reason of the place it was read from."""
    try:
        return check(value, field)
    except Invalid as error:
        raise Invalid(error.message, field=error.field, reason=reason) from None
