"""The messages of one attachment, packed before any clock starts.

Taken from the very rows that weft makes of an attachment, encoded by its drivers, so that the
floor holds the same kernel objects by construction. Only two things differ from what the agent
sends: the links' numbers are chosen here (ifi_index) instead of asked for, and nothing is kept
for undoing. The descriptor of the namespace is put in when it is open.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from weft.drivers.contract import Driver, Stage
from weft.fabric.wiring import NodeFacts, link_local, packed, wiring
from weft.kernel import links
from weft.kernel.netlink import NLM_F_ACK
from weft.kernel.nftables.messages import BATCH_BEGIN, BATCH_END, bracket, in_order
from weft.model.attachment import Assigned, Attachment, AttachmentKey
from weft.render.guards import elements
from weft.rows.base import Place, Row
from weft.rows.links import Veth

POD_INDEX = 2
LAST = 0xFFFF
"""Sequence number of the message whose acknowledgement ends a batch."""

_INDEX = struct.Struct("=i")
_LENGTH = struct.Struct("=I")
_FLAGS = 6
_SEQUENCE = 8
_HOST_INDEX = 16 + 4  # in the header's ifinfomsg
_PEER_INDEX = -(48 + 16) + 4  # before name, hardware address, MTU and namespace of the peer
_DESCRIPTOR = -4


class Ready(NamedTuple):
    """What is sent, in this order. Sysctl files are pairs of path and value."""

    key: AttachmentKey
    addresses: tuple[str, ...]
    host_link: str
    rules: bytes
    create: bytearray
    files: list[bytes]
    pod_files: list[bytes]
    pod: bytes
    host: bytes
    take_back: bytes
    """The transaction that removes the elements again."""

    def into(self, descriptor: int) -> bytearray:
        """The creation, with the namespace's descriptor."""
        _INDEX.pack_into(self.create, self._at_descriptor(), descriptor)
        return self.create

    def _at_descriptor(self) -> int:
        return int(_LENGTH.unpack_from(self.create)[0]) + _DESCRIPTOR


class _Numbers:
    """`drivers.contract.Names` with numbers that are known before the links are."""

    def __init__(self, host: int) -> None:
        self._host = host

    def index(self, place: Place, link: str) -> int:
        """The number that the creation will ask for."""
        if link == "lo":
            return 1
        return self._host if place is Place.HOST else POD_INDEX

    find = index

    def pod(self) -> int:
        """A place for the descriptor."""
        return 0


def attachment(key: AttachmentKey, addresses: Sequence[str], mtu: int = 1500) -> Attachment:
    """What the agent would have decided."""
    return Attachment(
        key=key,
        state="ready",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=mtu,
        addresses=tuple(
            Assigned(address=text, pool="bench", block="", sequence=0) for text in addresses
        ),
    )


def rows(of: Attachment) -> tuple[Row, ...]:
    """What the agent makes of an attachment, guards and wiring."""
    ips = [packed(each.address) for each in of.addresses]
    local = link_local(of.mac) if any(len(ip) == 16 for ip in ips) else None
    guards = elements(of.host_link, of.mac, ips, local, of.masquerade)
    return guards + wiring(of, NodeFacts(ipv6_kernel=True))


def pack(of: Attachment, drivers: dict[type[Row], Driver[Any]], index: int) -> Ready:
    """All messages of an attachment whose host link gets the number `index`."""
    numbers: Any = _Numbers(index)
    batches: dict[Stage, list[bytes]] = {stage: [] for stage in Stage}
    removals: list[bytes] = []
    for row in sorted(rows(of), key=lambda row: drivers[type(row)].position(row)):
        driver = drivers[type(row)]
        stage = driver.position(row)[0]
        batches[stage] += driver.encode(None, row, numbers)
        if isinstance(row, Veth):
            batches[stage].append(links.set_alias(row.name, row.alias))
        if stage is Stage.GUARD:
            removals += driver.encode(row, None, numbers)
    birth = bytearray(batches[Stage.CREATE][0])
    _INDEX.pack_into(birth, _HOST_INDEX, index)
    _INDEX.pack_into(birth, len(birth) + _PEER_INDEX, POD_INDEX)
    return Ready(
        key=of.key,
        addresses=tuple(each.address for each in of.addresses),
        host_link=of.host_link,
        rules=transaction(batches[Stage.GUARD]),
        create=bytearray(batch([bytes(birth), *batches[Stage.CREATE][1:]])),
        files=batches[Stage.TUNE_HOST],
        pod_files=batches[Stage.TUNE_POD],
        pod=batch(batches[Stage.POD]),
        host=batch(batches[Stage.HOST]),
        take_back=transaction(removals),
    )


def batch(messages: Sequence[bytes]) -> bytes:
    """One send: only the last message is acknowledged, under the number LAST."""
    parts = [_numbered(each, at, last=False) for at, each in enumerate(messages[:-1], 1)]
    return b"".join((*parts, _numbered(messages[-1], LAST, last=True)))


def transaction(messages: Sequence[bytes]) -> bytes:
    """One transaction of nftables, in the order it must have."""
    ordered = [messages[at] for at in in_order(messages)]
    return bracket(BATCH_BEGIN) + batch(ordered) + bracket(BATCH_END)


def _numbered(message: bytes, number: int, *, last: bool) -> bytes:
    made = bytearray(message)
    _LENGTH.pack_into(made, _SEQUENCE, number)
    if last:
        made[_FLAGS] |= NLM_F_ACK
    else:
        made[_FLAGS] &= ~NLM_F_ACK
    return bytes(made)
