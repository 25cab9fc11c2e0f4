"""Attachments and events of this node as objects that `weft get` can show.

The agent's own structs stay as they are; these are copies for the eye, made when asked for.
The kinds: `wire.views`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from weft.agent.events import Event
from weft.agent.ports import Entry
from weft.kernel.listeners import TCP, Listener
from weft.model.attachment import Attachment
from weft.model.egress import UNKNOWN
from weft.model.errors import Conflict, NotFound
from weft.model.metadata import Metadata
from weft.model.names import printable
from weft.wire.views import (
    AttachmentSpec,
    AttachmentStatus,
    AttachmentView,
    EventSpec,
    EventView,
    PortSpec,
    PortView,
)


def timestamp(moment: float) -> str:
    """Wall clock seconds as Kubernetes writes them, or "" for 0."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else ""


def attachment_view(attachment: Attachment) -> AttachmentView:
    """One attachment for the eye."""
    key, pod = attachment.key, attachment.pod
    return AttachmentView(
        metadata=Metadata(
            name=name_of(attachment),
            labels=dict(attachment.labels),
            creation_timestamp=timestamp(attachment.created),
        ),
        spec=AttachmentSpec(
            network=key.network,
            container=key.container,
            ifname=key.ifname,
            pod=f"{pod.namespace}/{pod.name}" if pod.name else "",
            sandbox=attachment.sandbox,
        ),
        status=AttachmentStatus(
            state=attachment.phase,
            addresses=tuple(each.address for each in attachment.addresses),
            link=attachment.host_link,
            mac=attachment.mac.hex(":"),
            mtu=attachment.mtu,
            cni_version=attachment.version,
            masquerade=attachment.masquerade,
            ingress_rate=attachment.bandwidth.ingress_rate,
            egress_rate=attachment.bandwidth.egress_rate,
            egress_list="unknown" if attachment.egress == UNKNOWN.digest else attachment.egress,
        ),
    )


def name_of(attachment: Attachment) -> str:
    """What it is called: as the link that we gave it, or would have given it."""
    return attachment.key.host_link if attachment.former else attachment.host_link


def attachment_views(
    attachments: Iterable[Attachment], namespace: str | None
) -> list[AttachmentView]:
    """Those of pods in `namespace`, or all; by network, then container."""
    chosen = [each for each in attachments if namespace in (None, each.pod.namespace)]
    return [attachment_view(each) for each in sorted(chosen, key=lambda each: each.key)]


def one_attachment(attachments: Iterable[Attachment], name: str) -> AttachmentView:
    """The one whose host link is `name`, whose pod is `namespace/name`, that has the address, or
    whose link or container id begins so; raises NotFound, or Conflict where several do."""
    everyone = list(attachments)
    found = [each for each in everyone if name in (name_of(each), each.host_link)]
    found = found or [
        each
        for each in everyone
        if name in (each.key.container, _pod(each), str(each.key))
        or any(name == given.address for given in each.addresses)
    ]
    found = found or [
        each
        for each in everyone
        if each.key.container.startswith(name) or name_of(each).startswith(name)
    ]
    if not found or not name:
        raise NotFound(f"attachment {printable(name)} not found; `weft get attachments` lists all")
    if len(found) > 1:
        links = ", ".join(sorted(name_of(each) for each in found)[:5])
        raise Conflict(
            f"{len(found)} attachments are called {printable(name)}: {links}; name the link",
            reason="ambiguous-name",
        )
    return attachment_view(found[0])


def port_views(
    entries: Iterable[Entry], listening: Iterable[tuple[Listener, str]]
) -> list[PortView]:
    """Published ports, then those where a program of the node listens; by number."""
    specs = [_published(entry) for entry in entries]
    specs += [
        PortSpec(
            protocol="tcp" if listener.protocol == TCP else "udp",
            port=listener.port,
            host_ip=listener.address,
            owner=who,
            by="host",
            held=True,
        )
        for listener, who in listening
    ]
    specs.sort(key=lambda spec: (spec.by == "host", spec.port, spec.protocol, spec.host_ip))
    views = {_port_name(spec): spec for spec in specs}  # a program may have several sockets there
    return [PortView(metadata=Metadata(name=name), spec=spec) for name, spec in views.items()]


def _published(entry: Entry) -> PortSpec:
    mapping = entry.mapping
    return PortSpec(
        protocol=mapping.protocol,
        port=mapping.host_port,
        host_ip=mapping.host_ip,
        owner=entry.owner,
        container=entry.key.container,
        network=entry.key.network,
        target=tuple(
            f"[{ip}]:{mapping.container_port}" if ":" in ip else f"{ip}:{mapping.container_port}"
            for ip in entry.addresses
        ),
        held=bool(entry.sockets),
    )


def _port_name(spec: PortSpec) -> str:
    """`tcp-8080`, `udp-53-10.0.0.1`; of the node's own, `host-tcp-22`."""
    parts = ("host" if spec.by == "host" else "", spec.protocol, str(spec.port), spec.host_ip)
    return "-".join(part for part in parts if part)


def event_view(event: Event) -> EventView:
    """One event for the eye; its name is its time in hexadecimal microseconds."""
    return EventView(
        metadata=Metadata(
            name=f"{int(event.time * 1e6):x}", creation_timestamp=timestamp(event.time)
        ),
        spec=EventSpec(
            level=event.level,
            reason=event.reason,
            about=event.about,
            message=event.message,
            count=event.count,
            last=event.time,
        ),
    )


def event_views(
    events: Iterable[Event], about: str | None = None, limit: int | None = None
) -> list[EventView]:
    """Oldest first; the newest `limit`, or all."""
    chosen = [each for each in events if about in (None, each.about)]
    if limit is not None:
        chosen = chosen[max(0, len(chosen) - limit) :]
    return [event_view(each) for each in chosen]


def _pod(attachment: Attachment) -> str:
    return f"{attachment.pod.namespace}/{attachment.pod.name}"
