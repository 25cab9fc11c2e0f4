"""A pod that lies about who it is: foreign addresses, foreign MACs, fragments of both.

The stage and the way of proof are in `scene`; what a pod can tell its neighbours is in `lies`.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from weft.lab import entering, frames, truth
from weft.lab.conformance.case import Failed, NotApplicable, case
from weft.lab.conformance.reachability import has_default
from weft.lab.conformance.scene import OUTSIDE, PORTS, Scene, first, honest, hop, judge, staged
from weft.lab.conformance.station import Station
from weft.lab.ears import Mouth, nonce
from weft.lab.runtime import Attachment
from weft.lab.wiring import node_addresses

_STRANGE_MAC = "02:00:00:66:66:66"


def _foreign_sources(station: Station, scene: Scene, family: int) -> Iterable[str]:
    dice = random.Random(station.count)  # noqa: S311 - the same sources every time
    yield first(scene.victim, family)
    yield node_addresses(0)[family == 6]
    yield OUTSIDE[family]
    yield str(ip_address(scene.source(family)) + 3)
    if family == 4:
        yield from ("127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.1.1")  # noqa: S104
        for _ in range(station.sizes.frames):
            yield f"10.{dice.randrange(256)}.{dice.randrange(256)}.{dice.randrange(1, 255)}"
    else:
        yield from ("::1", "::", "ff02::1", "::ffff:10.0.0.1", "fe80::dead")
        for _ in range(station.sizes.frames):
            yield str(IPv6Address((0xFD << 120) | dice.getrandbits(120)))


def _address(station: Station, family: int) -> None:
    with staged(station, family) as scene:
        honest(scene, family)
        marks: dict[bytes, str] = {}
        for source in _foreign_sources(station, scene, family):
            if source == scene.source(family):
                continue
            if len(marks) % 512 == 0:  # what has arrived must not fill the sockets' buffers
                scene.listen()
            for goal in scene.next_hop:
                if goal == source:
                    continue
                mark = nonce()
                marks[mark] = f"source {source} to {goal}"
                scene.mouth.say(scene.frame(source, goal, mark))
        judge(scene, family, marks)


def _node_input(station: Station, family: int) -> None:
    """The same to the node itself: a socket of the node must not receive it."""
    goal = node_addresses(0)[family == 6]
    with staged(station, family) as scene:
        if not has_default(scene.attacker, family):
            raise NotApplicable("the pod has no way to its node")
        scene.next_hop[goal] = hop(scene.attacker.network, goal)
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        with entering.socket_in(entering.OWN, kind, socket.SOCK_DGRAM) as server:
            server.bind((goal, PORTS[1]))
            server.settimeout(1.0)
            forged = nonce()
            scene.mouth.say(scene.frame(first(scene.victim, family), goal, forged))
            honest = nonce()
            scene.mouth.say(scene.frame(scene.source(family), goal, honest))
            try:
                while (got := server.recv(2048)) != honest:
                    if got == forged:
                        raise Failed("the node accepted a packet with another pod's address")
            except TimeoutError:
                raise NotApplicable("the node accepts nothing from its pods") from None


_FIRST, _LAST = 0x2000, 0x0008  # more to come at offset 0, and the rest at offset 64
_STRANGERS = {4: "10.99.88.77", 6: "fd99:88::77"}


def _fragments(station: Station, family: int) -> None:
    """A datagram in two pieces, and each piece alone, from an address that is not the pod's."""
    with staged(station, family) as scene:
        goal = first(scene.victim, family)
        mark = nonce()
        for frame in _pieces(scene, scene.source(family), goal, mark, (_FIRST, _LAST)):
            scene.mouth.say(frame)
        if scene.at_victim.hears(mark, 2.0) is None:
            raise Failed("an honest datagram in fragments does not arrive, so nothing is proven")
        marks = {}
        for name, parts in (
            ("both fragments", (_FIRST, _LAST)),
            ("a first fragment", (_FIRST,)),
            ("a last fragment", (_LAST,)),
        ):
            for source in (_STRANGERS[family], goal, node_addresses(0)[family == 6]):
                mark = nonce()
                marks[mark] = f"{name} from {source}"
                for frame in _pieces(scene, source, goal, mark, parts):
                    scene.mouth.say(frame)
        judge(scene, family, marks)


def _pieces(
    scene: Scene, source: str, goal: str, mark: bytes, parts: Iterable[int]
) -> Iterator[bytes]:
    """The mark is in both pieces, so that each is heard alone as well."""
    whole = frames.udp(source, goal, PORTS, mark.ljust(56, b"f") + mark.ljust(64, b"f"))
    ident = int.from_bytes(mark[-2:], "big")
    for part in parts:
        body = whole[:64] if part == _FIRST else whole[64:]
        packet = frames.fragment(source, goal, body, part, ident)
        yield frames.ethernet(scene.next_hop[goal], scene.mac, frames.kind_of(source), packet)


def _hardware(station: Station, family: int) -> None:
    with staged(station, family) as scene:
        honest(scene, family)
        victim = truth.links(scene.victim.network)["eth0"]["address"]
        marks = {}
        for mac in (_STRANGE_MAC, victim):
            for goal in scene.next_hop:
                mark = nonce()
                marks[mark] = f"source MAC {mac} to {goal}"
                scene.mouth.say(scene.frame(scene.source(family), goal, mark, mac))
        judge(scene, family, marks)


def _from_start(station: Station, family: int) -> None:
    """A sender in the namespace transmits from the moment the link is up, during ADD.

    Where to send is learned from an earlier attachment of the same key, which gets the same
    way out wherever names and MACs are derived or shared.
    """
    with staged(station, family) as scene:
        honest(scene, family)
        for _ in range(max(4, station.count // 2)):
            attachment = station.fresh()
            with station.namespace(attachment) as network:
                marks = _blast(station, scene, attachment, network, family)
            judge(scene, family, marks)


def _blast(
    station: Station, scene: Scene, attachment: Attachment, network: Path, family: int
) -> dict[bytes, str]:
    goal = first(scene.victim, family)
    outcome = station.runtime.add(attachment)
    if not outcome.is_good:
        raise Failed(f"ADD failed: {outcome.failure}")
    mac = truth.links(network)["eth0"]["address"]
    via = hop(network, goal)
    station.runtime.delete(attachment)
    forged, strange, router = nonce(), nonce(), nonce()
    source = _STRANGERS[family]
    lies = [
        frames.ethernet(via, mac, frames.kind_of(goal), frames.packet(source, goal, PORTS, forged)),
        frames.ethernet(
            via, _STRANGE_MAC, frames.kind_of(goal), frames.packet(source, goal, PORTS, strange)
        ),
        frames.ethernet(
            "33:33:00:00:00:01",
            mac,
            frames.IPV6,
            frames.router_advertisement("fe80::bad", mac, "2001:db8:bad::", router),
        ),
    ]
    ended = threading.Event()
    sender = threading.Thread(target=_insist, args=(network, lies, ended))
    sender.start()
    try:
        outcome = station.runtime.add(attachment)
    finally:
        ended.set()
        sender.join()
    if not outcome.is_good:
        raise Failed(f"ADD failed while the namespace was sending: {outcome.failure}")
    if hop(network, goal) != via:
        raise NotApplicable("the way out has another MAC each time, so nothing could be aimed")
    return {forged: "a foreign source", strange: "a foreign MAC", router: "an advertisement"}


def _insist(network: Path, lies: list[bytes], ended: threading.Event) -> None:
    """Send as soon as there is an interface that takes it, until some time after ADD."""
    mouth = None
    after = 20
    while after > 0:
        try:
            if mouth is None:
                mouth = Mouth(network)
            for frame in lies:
                mouth.say(frame)
        except OSError:  # no such interface yet, or not up yet
            pass
        after -= ended.is_set()
    if mouth is not None:
        mouth.socket.close()


CASES = (
    case("spoofing.source-4", partial(_address, family=4), "guards", "foreign IPv4 sources"),
    case("spoofing.source-6", partial(_address, family=6), "guards", "foreign IPv6 sources"),
    case("spoofing.node-4", partial(_node_input, family=4), "guards", "IPv4 to the node"),
    case("spoofing.node-6", partial(_node_input, family=6), "guards", "IPv6 to the node"),
    case("spoofing.fragments-4", partial(_fragments, family=4), "guards", "fragments of IPv4"),
    case("spoofing.fragments-6", partial(_fragments, family=6), "guards", "fragments of IPv6"),
    case("spoofing.mac-4", partial(_hardware, family=4), "guards", "foreign MACs, IPv4"),
    case("spoofing.mac-6", partial(_hardware, family=6), "guards", "foreign MACs, IPv6"),
    case("spoofing.start-4", partial(_from_start, family=4), "guards", "from link-up, IPv4"),
    case("spoofing.start-6", partial(_from_start, family=6), "guards", "from link-up, IPv6"),
)
