"""The flows that pods live from, and their packets as packet filters see them.

Each flow is a line of the table `FLOWS`: between whom, first packet or answer, through which
hooks. A flow is judged by a packet of TCP and one of UDP to ports that no rule names, so a filter
that lets through port 443 only is said to drop, as it does nearly all.

Where the way out is a bridge, its packets are frames there as well, and pass the hooks of the
family bridge: as frames of the node's own, since its ports are not the pods' links.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec

from weft.firewalls.values import Value, anything, begins, cut, exactly, inside, joined, nobody
from weft.model.addresses import Prefix
from weft.model.attachment import LINK_PREFIX
from weft.rows.rules import Family

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
TCP, UDP = 6, 17
ESTABLISHED, NEW = 2, 8  # NF_CT_STATE_BIT
ADDRESS_SIZE = {4: 4, 6: 16}
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
ROUTED = {4: (Family.INET, Family.IPV4), 6: (Family.INET, Family.IPV6)}
BRIDGED = (Family.BRIDGE,)
_NAME = 16  # IFNAMSIZ


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """The link of a default route. `index` 0: not known. `bridge`: the bridge that it is, or
    that lies below it (`tagged`: it is a VLAN on it); "" where there is none."""

    name: str
    index: int = 0
    bridge: str = ""
    tagged: bool = False


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Whose packets are asked about. No pools: pods of whatever address. A family without an
    uplink has no outside."""

    pools: tuple[Prefix, ...] = ()
    families: tuple[int, ...] = (4, 6)
    uplinks: dict[int, Uplink] = {}

    def sources(self, version: int) -> tuple[Value, ...]:
        """Addresses of pods of a family."""
        if not self.pools:
            return (nobody(ADDRESS_SIZE[version]),)
        return tuple(inside(pool) for pool in self.pools if pool.version == version)


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One way of talking. `sender` and `receiver`: pod, outside or node. `needed`: pods have no
    network without it; the others an administrator may well want closed."""

    name: str
    words: str
    sender: str
    receiver: str
    answers: bool = False
    needed: bool = False

    @property
    def hooks(self) -> tuple[int, ...]:
        """The hooks that its packets pass."""
        if self.receiver == "node":
            return PREROUTING, INPUT
        if self.sender == "node":
            return OUTPUT, POSTROUTING
        return PREROUTING, FORWARD, POSTROUTING

    @property
    def bridge_hooks(self) -> tuple[int, ...]:
        """The hooks of the family bridge that its frames pass where the way out is a bridge."""
        if self.receiver == "outside":
            return OUTPUT, POSTROUTING
        return (PREROUTING, INPUT) if self.sender == "outside" else ()


FLOWS = (
    Flow(
        name="out",
        words="connections of pods to the outside",
        sender="pod",
        receiver="outside",
        needed=True,
    ),
    Flow(
        name="answers",
        words="answers from the outside to pods",
        sender="outside",
        receiver="pod",
        answers=True,
        needed=True,
    ),
    Flow(
        name="among",
        words="connections between pods of this node",
        sender="pod",
        receiver="pod",
        needed=True,
    ),
    Flow(
        name="in",
        words="connections from the outside to pods",
        sender="outside",
        receiver="pod",
    ),
    Flow(name="to-node", words="connections of pods to this node", sender="pod", receiver="node"),
    Flow(name="from-node", words="connections of this node to pods", sender="node", receiver="pod"),
)


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may ask of one packet, at which hooks of which families. A link is None where
    the packet has none; `bridge`: that of a frame on a bridge."""

    families: tuple[Family, ...]
    hooks: tuple[int, ...]
    version: int
    protocol: int
    incoming: tuple[Value, Value] | None  # name, index
    outgoing: tuple[Value, Value] | None
    network: Value
    transport: Value
    state: int
    local: bool
    bridge: Value | None = None
    link: Value | None = None  # the header of a frame; None on a bridge: one with a tag, perhaps

    @property
    def direction(self) -> int:
        """IP_CT_DIR_*."""
        return 1 if self.state == ESTABLISHED else 0


def packets(flow: Flow, question: Question) -> Iterator[Packet]:
    """The packets that stand for a flow; none where the node has no such flow."""
    for version in question.families:
        uplink = question.uplinks.get(version)
        if uplink is None and "outside" in (flow.sender, flow.receiver):
            continue
        links = {"pod": _pod_link(), "outside": _link(uplink), "node": None}
        for source in _addresses(flow.sender, version, question):
            for target in _addresses(flow.receiver, version, question):
                for protocol in (TCP, UDP):
                    yield Packet(
                        families=ROUTED[version],
                        hooks=flow.hooks,
                        version=version,
                        protocol=protocol,
                        incoming=links[flow.sender],
                        outgoing=links[flow.receiver],
                        network=_header(version, protocol, source, target),
                        transport=_upper(protocol, answers=flow.answers),
                        state=ESTABLISHED if flow.answers else NEW,
                        local=flow.receiver == "node",
                    )
        if uplink is not None and uplink.bridge and flow.bridge_hooks:
            yield from _frames(flow, version, uplink)


def _frames(flow: Flow, version: int, uplink: Uplink) -> Iterator[Packet]:
    """The same on the bridge. Which port it takes is not known, nor whether the pod's address is
    still, or again, that of the node."""
    port = anything(_NAME), anything(4)
    leaves = flow.receiver == "outside"
    header = joined((anything(12), exactly(ETHERTYPE[version])))
    address = anything(ADDRESS_SIZE[version])
    for protocol in (TCP, UDP):
        yield Packet(
            families=BRIDGED,
            hooks=flow.bridge_hooks,
            version=version,
            protocol=protocol,
            incoming=None if leaves else port,
            outgoing=port if leaves else None,
            network=_header(version, protocol, address, address),
            transport=_upper(protocol, answers=flow.answers),
            state=ESTABLISHED if flow.answers else NEW,
            local=False,
            bridge=_name(uplink.bridge),
            link=None if uplink.tagged else header,
        )


def _addresses(who: str, version: int, question: Question) -> Sequence[Value]:
    return question.sources(version) if who == "pod" else (nobody(ADDRESS_SIZE[version]),)


def _pod_link() -> tuple[Value, Value]:
    return begins(LINK_PREFIX.encode(), _NAME), nobody(4)


def _link(uplink: Uplink | None) -> tuple[Value, Value]:
    if uplink is None:
        return anything(_NAME), anything(4)
    index = exactly(struct.pack("=I", uplink.index)) if uplink.index else anything(4)
    return _name(uplink.name), index


def _name(name: str) -> Value:
    return exactly(name.encode().ljust(_NAME, b"\0"))


def _header(version: int, protocol: int, source: Value, target: Value) -> Value:
    """An IP header without options, of a packet that is no fragment."""
    number = exactly(bytes((protocol,)))
    if version == 6:
        first = joined((exactly(b"\x60"), anything(5), number, anything(1)))
        return joined((cut(first, 0, 8), source, target))
    fragment = Value(size=2, known=0x3FFF)
    front = (exactly(b"\x45"), anything(5), fragment, anything(1), number, anything(2))
    return joined((*front, source, target))


def _upper(protocol: int, *, answers: bool) -> Value:
    ports = (nobody(2), nobody(2))
    if protocol == UDP:
        return joined((*ports, anything(4)))
    flags = exactly(b"\x10" if answers else b"\x02")
    return joined((*ports, anything(9), flags, anything(4), exactly(bytes(2))))
