"""The agent's settings: one struct a feature, each field with its default and what it is for.

Read once from `/etc/weft/weft.yaml`; a missing file means the defaults. Unknown keys, wrong
types and values out of range are refused with the dotted name. The reference page is generated
from the descriptions below, so they are the only place where a setting is explained.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from weft.model.errors import Invalid
from weft.model.listening import read_listening
from weft.model.manifests import read_manifests
from weft.model.names import check_name
from weft.model.strict import convert_strictly

SETTINGS_PATH = "/etc/weft/weft.yaml"
MAX_GID = (1 << 32) - 2
"""(gid_t)-1 means "do not change" to chown(2)."""
OVERFLOW_GID = 65534
"""What every group looks like that a user namespace does not have (user_namespaces(7))."""
MIN_MTU = {"IPv4": 576, "IPv6": 1280}

Family = Literal["auto", "on", "off"]
Seconds = Annotated[float, Meta(ge=0, le=1200)]


class Section(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """Base of every section: frozen, strict, camelCase in the file."""


class NodeSettings(Section, frozen=True, kw_only=True):
    """Who this node is."""

    name: Annotated[
        str, Meta(description="name of the node; empty: the host's name in lower case")
    ] = ""


class NetworkSettings(Section, frozen=True, kw_only=True):
    """What pods' interfaces are given."""

    mtu: Annotated[
        Annotated[int, Meta(ge=576, le=65535)] | Literal["auto"],
        Meta(
            description="MTU of pods' interfaces; auto: that of the uplink. At least 1280 unless "
            "`network.ipv6` is off (RFC 8200)"
        ),
    ] = "auto"
    ipv4: Annotated[
        Family,
        Meta(description="IPv4 for pods; auto: whenever the host has it; on: fail without it"),
    ] = "auto"
    ipv6: Annotated[
        Family,
        Meta(description="IPv6 for pods; auto: whenever the host has it; on: fail without it"),
    ] = "auto"
    masquerade: Annotated[
        bool,
        Meta(
            description="pods leave the cluster with the node's address; pools among themselves "
            "are exempt"
        ),
    ] = True


class AttachSettings(Section, frozen=True, kw_only=True):
    """How long a runtime waits."""

    add_timeout: Annotated[
        Annotated[float, Meta(ge=1, le=300)],
        Meta(description="seconds after which an ADD is undone and fails"),
    ] = 30


class IpamSettings(Section, frozen=True, kw_only=True):
    """How addresses are handed out and taken back."""

    cooldown: Annotated[
        Seconds, Meta(description="seconds for which a released address is kept back")
    ] = 30
    cooldown_floor: Annotated[
        Seconds,
        Meta(
            description="seconds for which it is kept back when only such addresses are left, "
            "and when the very address is asked for"
        ),
    ] = 5
    allow_requested: Annotated[
        bool, Meta(description="a pod may ask for a particular address of a pool it may use")
    ] = True
    default_pools: Annotated[
        bool,
        Meta(
            description="create pools when the store has none, chosen so that they overlap "
            "nothing on the host"
        ),
    ] = True


class RulesetSettings(Section, frozen=True, kw_only=True):
    """The packet rules in the kernel."""

    protected: Annotated[
        Literal["auto", "never"],
        Meta(
            description="nobody but the agent can change the packet rules while it runs; auto: "
            "where the kernel can do that (Linux 6.9 and later); never: others can, and the "
            "agent repairs what it notices"
        ),
    ] = "auto"


class RepairSettings(Section, frozen=True, kw_only=True):
    """What is put right by itself when somebody damages it. The host's side always is."""

    pods: Annotated[
        bool,
        Meta(description="repair links, addresses and routes inside pods, not only report them"),
    ] = False


class SocketSettings(Section, frozen=True, kw_only=True):
    """Who may ask the agent, beside root."""

    group: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_GID)] | str,
        Meta(
            description="group, by name or number, whose members may read status and objects on "
            "`paths.querySocket`, and change nothing; empty: root only"
        ),
    ] = ""


LoopbackWay = Literal["auto", "hook", "relay", "off"]


class PortsSettings(Section, frozen=True, kw_only=True):
    """Published ports of containers."""

    ipv6_loopback: Annotated[
        LoopbackWay,
        Meta(
            description="how programs of the node reach published ports by ::1; hook: the kernel "
            "leads them there (cgroup version 2); relay: a process of the agent's copies; auto: "
            "hook where the kernel can, else relay; off: not at all"
        ),
    ] = "auto"


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Where the agent shows metrics and health over HTTP: `/metrics`, `/healthz`, `/readyz`."""

    listen: Annotated[
        str,
        Meta(
            description="`ADDRESS:PORT`, `[IPV6]:PORT`, `unix:/PATH` (root only) or `off`; whoever "
            "reaches an address may read, so others than loopback are for a trusted network"
        ),
    ] = "127.0.0.1:9464"


class WatchdogSettings(Section, frozen=True, kw_only=True):
    """What happens to an agent that is stuck."""

    limit: Annotated[
        Annotated[float, Meta(ge=2, le=600)],
        Meta(
            description="seconds without a turn of the agent's loop after which it logs where it "
            "is stuck and ends, so that its supervisor starts it again"
        ),
    ] = 30


ForeignFirewall = Annotated[
    Literal["report", "admit"],
    Meta(
        description="what to do about another firewall of the host that drops pods' packets; "
        "report: say so; admit: also ask it, at the place it offers, to let the pools' ranges pass"
    ),
]


class LogSettings(Section, frozen=True, kw_only=True):
    """What the agent writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severity written")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="one line of text, or one JSON object, a record")
    ] = "text"


class PathSettings(Section, frozen=True, kw_only=True):
    """Where things are. Absolute paths."""

    socket: Annotated[str, Meta(description="the agent's unix socket")] = "/run/weft/agent.sock"
    query_socket: Annotated[
        str,
        Meta(
            description="the unix socket of `socket.group`; in a directory of its own, which only "
            "root and the group may enter"
        ),
    ] = "/run/weft-query/query.sock"
    journal: Annotated[
        str, Meta(description="journal of attachments; of this boot, so below /run")
    ] = "/run/weft/journal.db"
    queue: Annotated[
        str, Meta(description="directory where DEL requests wait while no agent runs")
    ] = "/run/weft/queue"
    store: Annotated[str, Meta(description="the store; kept across boots")] = (
        "/var/lib/weft/store.db"
    )


class Settings(Section, frozen=True, kw_only=True):
    """All settings."""

    node: NodeSettings = NodeSettings()
    network: NetworkSettings = NetworkSettings()
    attach: AttachSettings = AttachSettings()
    ipam: IpamSettings = IpamSettings()
    ruleset: RulesetSettings = RulesetSettings()
    repair: RepairSettings = RepairSettings()
    foreign_firewall: ForeignFirewall = "report"
    ports: PortsSettings = PortsSettings()
    socket: SocketSettings = SocketSettings()
    metrics: MetricsSettings = MetricsSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    log: LogSettings = LogSettings()
    paths: PathSettings = PathSettings()


def load_settings(text: str | bytes, *, source: str = SETTINGS_PATH) -> Settings:
    """Settings from YAML or JSON; an empty text means the defaults. Raises `Invalid`."""
    documents = read_manifests(text, source=source, reason="invalid-settings")
    if len(documents) > 1:
        raise _invalid(source, f"{source}: one document is expected, found {len(documents)}")
    settings = convert_strictly(
        documents[0] if documents else {}, Settings, reason="invalid-settings"
    )
    check_settings(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """Raise `Invalid` for what no single field can tell."""
    if settings.node.name:
        try:
            check_name(settings.node.name, "node.name")
        except Invalid as error:
            raise _invalid("node.name", error.message) from None
    network = settings.network
    if network.ipv4 == "off" and network.ipv6 == "off":
        raise _invalid("network.ipv6", "network.ipv6: IPv4 and IPv6 cannot both be off")
    if isinstance(network.mtu, int) and network.ipv6 != "off" and network.mtu < MIN_MTU["IPv6"]:
        raise _invalid(
            "network.mtu",
            f"network.mtu: {network.mtu} is too small for IPv6, which needs {MIN_MTU['IPv6']}; "
            "raise it or set network.ipv6 to off",
        )
    if settings.ipam.cooldown_floor > settings.ipam.cooldown:
        raise _invalid(
            "ipam.cooldownFloor", "ipam.cooldownFloor: must not be longer than ipam.cooldown"
        )
    read_listening(settings.metrics.listen, "metrics.listen")
    _check_sockets(settings)


def _check_sockets(settings: Settings) -> None:
    paths = settings.paths
    for field in msgspec.structs.fields(PathSettings):
        name, path = field.encode_name, getattr(paths, field.name)
        if not path.startswith("/") or "\0" in path or "/../" in f"{path}/":
            raise _invalid(f"paths.{name}", f"paths.{name}: must be an absolute path without '..'")
        # sun_path has 108 bytes with its NUL
        if field.name.endswith("socket") and len(path.encode()) > 107:
            raise _invalid(
                f"paths.{name}", f"paths.{name}: longer than 107 bytes, a unix socket's limit"
            )
    if paths.query_socket.rpartition("/")[0] == paths.socket.rpartition("/")[0]:
        raise _invalid(
            "paths.querySocket",
            "paths.querySocket: needs another directory than paths.socket, which is root's alone",
        )
    if settings.socket.group == OVERFLOW_GID:
        raise _invalid(
            "socket.group",
            f"socket.group: {OVERFLOW_GID} stands for every group of a foreign user namespace; "
            "make a group for this",
        )


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(message, field=field, reason="invalid-settings")
