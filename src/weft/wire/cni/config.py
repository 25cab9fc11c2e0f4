"""The network configuration on standard input: which keys count, and what each verb needs of them.

Keys and types here, as literal shapes and structs; a wrong type is code 6, a wrong value code 7, a
value that weft cannot honour code 2. `capabilities` and unknown keys are ignored. DEL reads only
name, version and `prevResult`, and the last of them only if it can: nothing else may keep a
container from going away. Who wins between several sources of a wish: `wishes.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from weft.model.attachment import LINK_PREFIXES
from weft.model.errors import Invalid
from weft.model.names import check_name, printable
from weft.wire.cni.document import JsonObject, convert, decode_object, project, shape
from weft.wire.cni.environment import NAME_RULE, is_name
from weft.wire.cni.result import Dns

MIN_MTU = 576
MAX_MTU = 65535
MAX_POOLS = 64
IPAM_TYPE = "weft"

ValidAttachments = frozenset[tuple[str, str]]


class DenyNetworks(msgspec.Struct, frozen=True, kw_only=True):
    """CIDRs that no rule of `netOutRules` opens: for every container, for apps and tasks, and
    while an app is staged."""

    always: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()


class Conf(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The plugin's own keys. None is absent: the agent's setting or default counts."""

    type: str = ""
    mtu: int | None = None
    mode: str = ""  # routed (the default) or bridge; the keys below are for bridge mode alone
    bridge: str = ""
    isolation: bool | None = None
    is_gateway: bool | None = None
    is_default_gateway: bool | None = None
    ip_masq: bool | None = None
    dns: Dns | None = None
    pools: tuple[str, ...] | None = None  # names of the IPPools that may be used
    ips: tuple[str, ...] = ()  # static wish, the last in precedence; see wishes.py
    mac: str = ""
    labels: dict[str, str] = {}
    # limits in bits a second and bits; as the reference plugin `bandwidth` spells them
    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0
    # beside `netOutRules`; as Cloud Foundry's cni-wrapper-plugin spells them, see net_out.py
    host_tcp_services: tuple[str, ...] = msgspec.field(default=(), name="host_tcp_services")
    host_udp_services: tuple[str, ...] = msgspec.field(default=(), name="host_udp_services")
    deny_networks: DenyNetworks = msgspec.field(default=DenyNetworks(), name="deny_networks")


class Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """`ipam` is weft's own, whatever the key says; it may be named but not replaced, except where
    another plugin has made the interface."""

    type: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every verb needs."""

    cni_version: str = ""
    name: str = ""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment that a runtime still wants, in GC."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str


class GcDocument(Head, frozen=True, kw_only=True):
    """GC: libcni writes both keys, the first drafts of 1.1.0 said only `cni.dev/attachments`."""

    valid: tuple[Reference, ...] | None = msgspec.field(
        default=None, name="cni.dev/valid-attachments"
    )
    attachments: tuple[Reference, ...] | None = msgspec.field(
        default=None, name="cni.dev/attachments"
    )


class PluginDocument(Head, frozen=True, kw_only=True, rename="camel"):
    """ADD, CHECK and STATUS: everything. Held apart from `Conf` for what is only passed on."""

    ipam: Ipam = Ipam()
    args: dict[str, object] = {}
    runtime_config: dict[str, object] = {}
    metadata: object = None  # Cloud Foundry's; what it is elsewhere is none of our business
    prev_result: dict[str, object] | None = None


ROUTED, BRIDGE = "routed", "bridge"
_LINK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")  # of what kernels take, what all tools do
_NO_LINK = frozenset({"all", "default"})  # directories of sysctls
REFUSED_ON_BRIDGES = (
    "vlan", "vlanTrunk", "preserveDefaultVlan", "promiscMode", "forceAddress", "macspoofchk",
    "portIsolation", "disableContainerInterface", "enabledad",
)  # fmt: skip
"""Keys of the reference plugin `bridge` that weft's bridge mode does not know by these names."""
_HEAD = ("cniVersion", "name")
_CONF_SHAPE = shape(
    "type", "mtu", "ipMasq", "pools", "ips", "mac", "labels",
    "ingressRate", "ingressBurst", "egressRate", "egressBurst",
    "host_tcp_services", "host_udp_services",
    "mode", "bridge", "isolation", "isGateway", "isDefaultGateway",
    deny_networks=shape("always", "running", "staging"),
    dns=shape("nameservers", "domain", "search", "options"),
)  # fmt: skip
_PLUGIN_SHAPE = shape(*_HEAD, "runtimeConfig", "prevResult", "args", "metadata", ipam=shape("type"))
_ARGS_SHAPE = shape("cni")
_REFERENCE_SHAPE = shape("containerID", "ifname")
_KEPT = frozenset({"cni.dev/valid-attachments", "cni.dev/attachments"})
_GC_SHAPE = shape(
    *_HEAD,
    **{
        "cni.dev/valid-attachments": _REFERENCE_SHAPE,
        "cni.dev/attachments": _REFERENCE_SHAPE,
    },
)
_HEAD_SHAPE = shape(*_HEAD)
KEYS = shape(
    *_HEAD, "type", "mtu", "ipMasq", "pools", "ips", "mac", "labels", "dns", "ipam", "args",
    "runtimeConfig", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments",
    "ingressRate", "ingressBurst", "egressRate", "egressBurst", "metadata",
    "host_tcp_services", "host_udp_services", "deny_networks",
    "mode", "bridge", "isolation", "isGateway", "isDefaultGateway",
    *REFUSED_ON_BRIDGES,
)  # fmt: skip
"""Every key at the top of a configuration that any verb reads."""
_TYPE = re.compile(r"[A-Za-z0-9_.][^/\\\x00-\x1f\x7f]*")


def read_document(stdin: bytes) -> JsonObject:
    """Standard input with the keys that we know, their values not yet looked at."""
    return decode_object(stdin, KEYS)


def read_head(obj: JsonObject) -> Head:
    """Version and name; the version is not judged here. `obj` as `read_document` gives it."""
    return convert(project(obj, _HEAD_SHAPE), Head)


def check_network(name: str) -> None:
    """The network's name (code 7)."""
    if not name:
        raise invalid("missing network name", "name")
    if not is_name(name):
        raise invalid(f"name: {printable(name)} {NAME_RULE}", "name")


def read_plugin(obj: JsonObject) -> tuple[PluginDocument, Conf]:
    """The whole configuration, for the verbs that act on it."""
    document = convert(project(obj, _PLUGIN_SHAPE), PluginDocument)
    conf = convert(project(obj, _CONF_SHAPE), Conf)
    _check(conf)
    _check_mode(obj, conf)
    return document, conf


def _check_mode(obj: JsonObject, conf: Conf) -> None:
    """The mode, and what bridge mode cannot honour of the reference plugin's keys."""
    if conf.mode not in ("", ROUTED, BRIDGE):
        raise invalid(f"mode: {printable(conf.mode)} is neither {ROUTED} nor {BRIDGE}", "mode")
    if conf.mode != BRIDGE:
        return
    if conf.bridge and (not _LINK.fullmatch(conf.bridge) or conf.bridge in _NO_LINK):
        raise invalid(
            f"bridge: {printable(conf.bridge)} cannot be the name of a link: up to 15 letters, "
            "digits, `_`, `.` and `-`, a letter, a digit or `_` first",
            "bridge",
        )
    if conf.bridge.startswith(LINK_PREFIXES):
        raise invalid(
            f"bridge: links that begin with {' or '.join(LINK_PREFIXES)} are containers'; choose "
            "another name",
            "bridge",
        )
    for key in REFUSED_ON_BRIDGES:
        if obj.get(key):
            raise _unsupported(key, "weft's bridge mode does not know it; leave it out")
    if conf.is_gateway is False:
        words = "the bridge always has the subnet's gateway; for none in containers say"
        raise _unsupported("isGateway", f"{words} isDefaultGateway: false")


def _unsupported(field: str, words: str) -> Invalid:
    message = f"unsupported field {field}: {words}"
    return Invalid(message, field=field, reason="unsupported-field")


def check_made(document: PluginDocument) -> None:
    """What is wrong for an interface that weft makes itself."""
    if document.ipam.type not in {"", IPAM_TYPE}:
        raise Invalid(
            f"unsupported field ipam.type: {printable(document.ipam.type)}; weft assigns addresses "
            f'itself: leave `ipam` out or write {{"type": "{IPAM_TYPE}"}}',
            field="ipam.type",
            reason="unsupported-field",
        )


def check_adopted(conf: Conf, ifname: str) -> None:
    """What is wrong for an interface of `prevResult`: nobody asks us for an address there, so any
    `ipam` is passed over, but what the interface itself should be is its maker's to say."""
    for key in ("mtu", "pools", "ips", "mac", "mode"):
        value = getattr(conf, key)
        if value == ROUTED:
            continue
        if value:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            raise Invalid(
                f"unsupported field {key}: {printable(shown)}; another plugin made {ifname} "
                "(prevResult names it), so say it in that plugin's configuration",
                field=key,
                reason="unsupported-field",
            )


def args_cni(document: PluginDocument) -> Mapping[str, object]:
    """`args.cni`; what else is in `args` belongs to others (SPEC section 1)."""
    found = project(document.args, _ARGS_SHAPE)
    inner = found.get("cni", {}) if isinstance(found, dict) else {}
    return convert(inner, dict[str, object], "args.cni")


def read_prev_result(obj: JsonObject) -> object:
    """The value of `prevResult` as DEL takes it: None if absent, whatever it is otherwise."""
    return obj.get("prevResult")


def read_valid_attachments(obj: JsonObject) -> ValidAttachments:
    """The attachments that GC must keep: the union of both keys.

    A key that is null keeps none: so libcni writes the list of a runtime that has no container
    (a nil slice; CRI-O's GC at its start). Raises Invalid (code 7) where there is neither key, and
    for an entry that names nothing: what cannot be read might be what should be kept, so nothing
    at all is removed.
    """
    document = convert(project(obj, _GC_SHAPE), GcDocument)
    if not obj.keys() & _KEPT:
        raise invalid(
            "missing cni.dev/valid-attachments; nothing was removed (send an empty list to remove "
            "every attachment of this network)",
            "cni.dev/valid-attachments",
        )
    kept = (*(document.valid or ()), *(document.attachments or ()))
    if any(not each.container_id or not each.ifname for each in kept):
        raise invalid(
            "cni.dev/valid-attachments: an entry lacks containerID or ifname; nothing was removed",
            "cni.dev/valid-attachments",
        )
    return frozenset((each.container_id, each.ifname) for each in kept)


def invalid(message: str, field: str) -> Invalid:
    """The configuration is JSON of the right shape, but what it says cannot be."""
    return Invalid(message, field=field, reason="invalid-config")


def _check(conf: Conf) -> None:
    if conf.type and (not _TYPE.fullmatch(conf.type) or conf.type in {".", ".."}):
        raise invalid(f"type: {printable(conf.type)} is not the name of a file", "type")
    if conf.mtu and not MIN_MTU <= conf.mtu <= MAX_MTU:  # 0: as if absent, as elsewhere
        raise invalid(f"mtu: {conf.mtu} is not between {MIN_MTU} and {MAX_MTU}", "mtu")
    if conf.pools is None:
        return
    if not 0 < len(conf.pools) <= MAX_POOLS:
        raise invalid(
            f"pools: {len(conf.pools)} names; give 1 to {MAX_POOLS}, or leave the key out to allow "
            "every pool",
            "pools",
        )
    for number, name in enumerate(conf.pools):
        try:
            check_name(name, f"pools[{number}]")
        except Invalid as error:
            raise invalid(error.message, error.field) from None
