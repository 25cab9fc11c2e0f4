"""Kinds that are shown but not stored: attachments and events of one node.

They have the shape of objects, so that `weft get` treats them like every other kind, but nobody
can apply or delete them: an attachment comes and goes with its container. One table like
`model.kinds`; `find_shown_kind` looks in both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from weft.model.bandwidth import format_rate
from weft.model.errors import Invalid
from weft.model.kinds import KINDS, Kind
from weft.model.metadata import Object, Spec
from weft.model.names import did_you_mean, printable

SHORT_ID = 12
"""Characters of a container id that a table shows, as docker and crictl do."""


class AttachmentSpec(Spec, frozen=True, kw_only=True):
    """Whose interface it is. `pod` is `namespace/name`, empty where the runtime named none."""

    network: str
    container: str
    ifname: str
    pod: str = ""
    sandbox: str = ""


class AttachmentStatus(Spec, frozen=True, kw_only=True):
    """What it was given. `state`: intent, ready, leaving, or imported (other plugins made it).
    Rates are bits a second; 0: any. `egress_list`: the digest of the list of where it may connect
    to, as its rules are called; `unknown` where it is lost, "" where nothing is restricted."""

    state: str
    addresses: tuple[str, ...] = ()
    link: str = ""
    mac: str = ""
    mtu: int = 0
    cni_version: str = ""
    masquerade: bool = False
    ingress_rate: int = 0
    egress_rate: int = 0
    egress_list: str = ""


class AttachmentView(Object, frozen=True, kw_only=True):
    """One interface of one container; its name is that of the host's link."""

    spec: AttachmentSpec
    status: AttachmentStatus
    kind: str = "Attachment"


class PortSpec(Spec, frozen=True, kw_only=True):
    """A port of the node, and whose it is. `host_ip` "" is every address; `by` published, or the
    host: a program of the node listens there."""

    protocol: str
    port: int
    host_ip: str = ""
    owner: str = ""
    by: str = "published"
    container: str = ""
    network: str = ""
    target: tuple[str, ...] = ()
    held: bool = False


class PortView(Object, frozen=True, kw_only=True):
    """One port; its name is PROTOCOL-PORT, with the address where it is of one."""

    spec: PortSpec
    kind: str = "Port"


class End(Spec, frozen=True, kw_only=True):
    """One end of a connection. `port` 0 where the protocol has none. `pod`, `container` and `link`
    are of the attachment that has the address; without one, `host` says that the node has it."""

    address: str
    port: int = 0
    pod: str = ""
    container: str = ""
    link: str = ""
    host: bool = False

    @property
    def socket(self) -> str:
        """`10.244.0.5:80`, `[fd00::5]:80`, or the address alone."""
        address = f"[{self.address}]" if self.port and ":" in self.address else self.address
        return f"{address}:{self.port}" if self.port else address

    @property
    def who(self) -> str:
        """The pod, else the container, else the node, else nobody known."""
        return self.pod or self.container[:SHORT_ID] or ("(node)" if self.host else "-")


class ConnectionSpec(Spec, frozen=True, kw_only=True):
    """Who talks to whom. `state` is TCP's, else REPLIED or UNREPLIED. `asked` is what the client
    asked for where that was translated to `target`, `seen_as` whom the server sees where `source`
    was. `packets` and `octets`: from the client and to it, absent where nobody counts
    (`net.netfilter.nf_conntrack_acct`). `timeout`: seconds until it is forgotten, if nothing comes.
    """

    protocol: str
    state: str
    source: End
    target: End
    asked: str = ""
    seen_as: str = ""
    packets: tuple[int, int] | None = None
    octets: tuple[int, int] | None = None
    timeout: int = 0
    mark: int = 0
    zone: int = 0


class ConnectionView(Object, frozen=True, kw_only=True):
    """One tracked connection; its name begins with the kernel's id of the entry."""

    spec: ConnectionSpec
    kind: str = "Connection"


class EventSpec(Spec, frozen=True, kw_only=True):
    """What happened; `last` is wall clock, seconds since 1970."""

    level: str
    reason: str
    about: str
    message: str
    count: int = 1
    last: float = 0.0


class EventView(Object, frozen=True, kw_only=True):
    """One event that the agent remembers."""

    spec: EventSpec
    kind: str = "Event"


def _accept(_item: Any) -> None:
    """The agent makes these objects itself."""


def _translated(view: Any) -> str:
    asked, seen = view.spec.asked, view.spec.seen_as
    return " ".join((*((f"to {asked}",) if asked else ()), *((f"as {seen}",) if seen else ())))


def _both(values: tuple[int, int] | None) -> str:
    return f"{values[0]}/{values[1]}" if values is not None else "-"


def _joined(values: tuple[str, ...]) -> str:
    return ",".join(values) or "-"


VIEWS: dict[str, Kind] = {
    kind.kind: kind
    for kind in (
        Kind(
            kind="Attachment",
            plural="attachments",
            short=("att",),
            namespaced=False,
            struct=AttachmentView,
            check=_accept,
            columns=(
                ("NETWORK", lambda view: view.spec.network),
                ("CONTAINER", lambda view: view.spec.container[:SHORT_ID]),
                ("IFNAME", lambda view: view.spec.ifname),
                ("NAMESPACE/POD", lambda view: view.spec.pod or "-"),
                ("ADDRESSES", lambda view: _joined(view.status.addresses)),
                ("LINK", lambda view: view.status.link or "-"),
                ("STATE", lambda view: view.status.state),
            ),
            wide=(
                ("MAC", lambda view: view.status.mac or "-"),
                ("MTU", lambda view: str(view.status.mtu or "-")),
                ("INGRESS", lambda view: format_rate(view.status.ingress_rate)),
                ("EGRESS", lambda view: format_rate(view.status.egress_rate)),
                ("EGRESS LIST", lambda view: view.status.egress_list[:SHORT_ID] or "-"),
                ("SANDBOX", lambda view: view.spec.sandbox or "-"),
            ),
        ),
        Kind(
            kind="Port",
            plural="ports",
            short=("hostport", "hostports"),
            namespaced=False,
            struct=PortView,
            check=_accept,
            columns=(
                ("PORT", lambda view: f"{view.spec.port}/{view.spec.protocol}"),
                ("ADDRESS", lambda view: view.spec.host_ip or "*"),
                ("OWNER", lambda view: view.spec.owner or "-"),
                ("TARGET", lambda view: _joined(view.spec.target)),
                ("BY", lambda view: view.spec.by),
            ),
            wide=(
                ("CONTAINER", lambda view: view.spec.container[:SHORT_ID] or "-"),
                ("NETWORK", lambda view: view.spec.network or "-"),
                ("HELD", lambda view: "yes" if view.spec.held else "no"),
            ),
        ),
        Kind(
            kind="Connection",
            plural="connections",
            short=("conn", "conns"),
            namespaced=False,
            struct=ConnectionView,
            check=_accept,
            columns=(
                ("PROTOCOL", lambda view: view.spec.protocol),
                ("STATE", lambda view: view.spec.state),
                ("FROM", lambda view: view.spec.source.who),
                ("SOURCE", lambda view: view.spec.source.socket),
                ("TO", lambda view: view.spec.target.who),
                ("TARGET", lambda view: view.spec.target.socket),
                ("TRANSLATED", _translated),
                ("BYTES", lambda view: _both(view.spec.octets)),
            ),
            wide=(
                ("PACKETS", lambda view: _both(view.spec.packets)),
                ("EXPIRES", lambda view: f"{view.spec.timeout}s"),
                ("MARK", lambda view: f"{view.spec.mark:#x}" if view.spec.mark else "-"),
                ("ZONE", lambda view: str(view.spec.zone or "-")),
                ("ID", lambda view: view.metadata.name),
            ),
        ),
        Kind(
            kind="Event",
            plural="events",
            short=("ev",),
            namespaced=False,
            struct=EventView,
            check=_accept,
            columns=(
                ("LEVEL", lambda view: view.spec.level),
                ("REASON", lambda view: view.spec.reason),
                ("ABOUT", lambda view: view.spec.about),
                ("COUNT", lambda view: str(view.spec.count)),
                ("MESSAGE", lambda view: view.spec.message),
            ),
        ),
    )
}


def find_shown_kind(word: str) -> Kind:
    """The stored or virtual kind with this name, plural or short name; else `Invalid`."""
    folded = word.casefold()
    every = [*KINDS.values(), *VIEWS.values()]
    for kind in every:
        if folded in names_of(kind):
            return kind
    hint = did_you_mean(word, [name for kind in every for name in names_of(kind)])
    hint = hint or f"; known are {', '.join(kind.plural for kind in every)}"
    raise Invalid(f"no kind is called {printable(word)}{hint}", field="kind", reason="unknown-kind")


def names_of(kind: Kind) -> tuple[str, ...]:
    """Everything that a kind may be called, in lower case."""
    return (kind.plural, kind.kind.casefold(), *kind.short)


def is_view(kind: Kind) -> bool:
    """Whether the kind is shown only."""
    return kind.kind in VIEWS


def decode_shown(data: dict[str, Any]) -> Object:
    """An object as it came from the agent, read leniently: no checks beyond its types."""
    kind = KINDS.get(str(data.get("kind"))) or VIEWS.get(str(data.get("kind")))
    if kind is None:
        raise Invalid("an object of a kind that this release does not know", reason="unknown-kind")
    try:
        return msgspec.convert(data, kind.struct, strict=True)
    except msgspec.ValidationError as error:
        raise Invalid(f"{kind.kind}: {error}", reason="invalid-object") from error
