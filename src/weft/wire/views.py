"""Kinds that are shown but not stored: attachments and events of one node.

They have the shape of objects, so that `weft get` treats them like every other kind, but nobody
can apply or delete them: an attachment comes and goes with its container. One table like
`model.kinds`; `find_shown_kind` looks in both.
"""

from __future__ import annotations

from typing import Any

import msgspec

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
    """What it was given. `state`: intent, ready or leaving."""

    state: str
    addresses: tuple[str, ...] = ()
    link: str = ""
    mac: str = ""
    mtu: int = 0
    cni_version: str = ""
    masquerade: bool = False


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
                ("LINK", lambda view: view.status.link),
                ("STATE", lambda view: view.status.state),
            ),
            wide=(
                ("MAC", lambda view: view.status.mac),
                ("MTU", lambda view: str(view.status.mtu)),
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
