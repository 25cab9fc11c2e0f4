"""Live connections of this node's pods, with the pods' names: the method `connections`.

Connection tracking knows addresses; which pod has one is the attachments' to say. The table may
hold hundreds of thousands of entries, so it is read in pieces, in a worker, one worker at a time:
a piece is made when the reader has taken the last, and nothing is kept of what was not asked for.
Only connections of pods are told, not those of the node's programs with the world. They change
while they are read: one that comes or goes meanwhile may be missing. Next: `kernel.conntrack`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from itertools import islice

from weft.agent.services import Services
from weft.fabric.wiring import packed
from weft.kernel import conntrack
from weft.kernel.conntrack import SEEN_REPLY, Flow, Wanted
from weft.kernel.host import own_addresses
from weft.kernel.netlink import Failure, Socket, refused
from weft.model.attachment import Attachment
from weft.model.errors import Invalid, NotFound
from weft.model.kinds import encode_object
from weft.model.metadata import Metadata
from weft.model.names import printable
from weft.model.ports import MAX_PORT, PROTOCOLS
from weft.model.selectors import matches
from weft.wire.api import ConnectionsParams, Objects, Plain
from weft.wire.views import ConnectionSpec, ConnectionView, End

PIECE = 200
"""Connections of one item."""
NAMES = {
    **{str(name): number for name, number in PROTOCOLS.items()},
    "icmp": 1,
    "dccp": 33,
    "gre": 47,
    "icmpv6": 58,
    "udplite": 136,
}
"""Protocols that connection tracking knows, by their numbers at IANA."""
_NAMED = {number: name for name, number in NAMES.items()}
_NETLINK_ROUTE = 0
_LARGEST_PROTOCOL = 255

Holders = Mapping[bytes, Attachment]


class Connections:
    """Answers the method; one look at the table at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._turn = asyncio.Lock()

    async def stream(self, params: ConnectionsParams) -> AsyncGenerator[Objects, None]:
        """Pieces, until all is told. Raises Invalid, NotFound, KernelRefused."""
        protocol = _number(params.protocol)
        _check_port(params.port)
        pieces = _pieces(list(self._services.attachments), params, protocol)
        loop = asyncio.get_running_loop()
        running: asyncio.Future[Objects | None] | None = None
        try:
            while True:
                async with self._turn:
                    running = loop.run_in_executor(None, next, pieces, None)
                    piece = await asyncio.shield(running)
                if piece is None:
                    return
                yield piece
        finally:
            if running is None or running.done():
                pieces.close()
            else:  # the worker is inside it: closed by whoever comes out
                running.add_done_callback(lambda _: pieces.close())


def _pieces(
    everyone: Sequence[Attachment], params: ConnectionsParams, protocol: int | None
) -> Generator[Objects, None, None]:
    """Runs in workers, a step at a time."""
    holders = _by_address(everyone)
    asked = frozenset(_by_address(_chosen(everyone, params)))
    with Socket(_NETLINK_ROUTE) as links:
        own = own_addresses(links)
    try:
        for version in (4, 6):
            with Socket(conntrack.NETLINK_NETFILTER) as via:
                found = (
                    _plain(flow, holders, own)
                    for flow in conntrack.each(via, Wanted(version, protocol=protocol), asked)
                    if params.port in (None, flow.original.target_port, flow.reply.source_port)
                )
                while items := tuple(islice(found, PIECE)):
                    yield Objects(items=items)
    except Failure as failure:
        raise refused(failure, "read", "tracked connections") from failure


def _plain(flow: Flow, holders: Holders, own: frozenset[bytes]) -> Plain:
    original, reply = flow.original, flow.reply
    target = _end(reply.source, reply.source_port, holders, own)
    counted = any(flow.packets)  # who is tracked has sent one packet at least
    asked = (original.target, original.target_port) != (reply.source, reply.source_port)
    seen = (original.source, original.source_port) != (reply.target, reply.target_port)
    spec = ConnectionSpec(
        protocol=_NAMED.get(original.protocol, str(original.protocol)),
        state=flow.state or ("REPLIED" if flow.status & SEEN_REPLY else "UNREPLIED"),
        source=_end(original.source, original.source_port, holders, own),
        target=target,
        asked=_socket(original.target, original.target_port) if asked else "",
        seen_as=_socket(reply.target, reply.target_port) if seen else "",
        packets=flow.packets if counted else None,
        octets=flow.octets if counted else None,
        timeout=flow.timeout,
        mark=flow.mark,
        zone=flow.zone,
    )
    return encode_object(ConnectionView(metadata=Metadata(name=_name(flow)), spec=spec))


def _name(flow: Flow) -> str:
    """The kernel's id, a hash of 32 bits that two of 100,000 may share, and another one."""
    one = flow.original
    ports = one.source_port.to_bytes(2, "big") + one.target_port.to_bytes(2, "big")
    return f"{flow.number:08x}{zlib.crc32(one.source + one.target + ports):08x}"


def _end(address: bytes, port: int, holders: Holders, own: frozenset[bytes]) -> End:
    text = str(ipaddress.ip_address(address))
    holder = holders.get(address)
    if holder is None:
        return End(address=text, port=port, host=address in own)
    pod = holder.pod
    return End(
        address=text,
        port=port,
        pod=f"{pod.namespace}/{pod.name}" if pod.name else "",
        container=holder.key.container,
        link=holder.host_link,
    )


def _socket(address: bytes, port: int) -> str:
    return End(address=str(ipaddress.ip_address(address)), port=port).socket


def _by_address(attachments: Sequence[Attachment]) -> dict[bytes, Attachment]:
    return {packed(given.address): each for each in attachments for given in each.addresses}


def _chosen(everyone: Sequence[Attachment], params: ConnectionsParams) -> list[Attachment]:
    """Attachments whose connections are asked for. Raises NotFound for a pod that is not here."""
    chosen = [
        each
        for each in everyone
        if params.namespace in (None, each.pod.namespace)
        and matches(params.selector, each.labels) is True
    ]
    if not params.pods:
        return chosen
    named: dict[str, Attachment] = {}
    for word in params.pods:
        found = [each for each in chosen if _is_called(each, word)]
        if not found:
            raise NotFound(
                f"no pod or container {printable(word)} is attached to this node; "
                "`weft get attachments` lists all"
            )
        named |= {each.host_link: each for each in found}
    return list(named.values())


def _is_called(attachment: Attachment, word: str) -> bool:
    key, pod = attachment.key, attachment.pod
    if word in (attachment.host_link, pod.name, f"{pod.namespace}/{pod.name}", str(key)):
        return bool(word)
    return bool(word) and key.container.startswith(word)


def _number(protocol: str | None) -> int | None:
    if protocol is None:
        return None
    number = NAMES.get(protocol.casefold())
    if number is None and protocol.isascii() and protocol.isdigit() and len(protocol) <= 3:
        number = int(protocol)
    if number is None or number > _LARGEST_PROTOCOL:
        raise Invalid(
            f"no protocol is called {printable(protocol)}; known are {', '.join(NAMES)}, and every "
            "number up to 255",
            field="params.protocol",
            reason="invalid-call",
        )
    return number


def _check_port(port: int | None) -> None:
    if port is not None and not 0 < port <= MAX_PORT:
        raise Invalid(
            f"{port} is no port; ports are 1 to {MAX_PORT}",
            field="params.port",
            reason="invalid-call",
        )
