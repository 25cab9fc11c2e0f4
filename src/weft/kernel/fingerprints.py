"""One number for all that the kernel holds about a link: whether anything changed since last time.

A look at everything costs as much as there is; most of it is making values out of messages. Here
only their bytes are hashed, a link's own with its routes and neighbours, so that a sweep of a
thousand links costs milliseconds, and only links whose number is another one are worth reading.
A message about a link holds its sysctls, too (IFLA_AF_SPEC). Left out is what changes by itself.
Not for two threads; a number means nothing in another process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

from weft.kernel import links, routes, rtnetlink, traffic_control
from weft.kernel.netlink import Failure, attributes
from weft.kernel.nftables.transport import Nftables

Prints = dict[int, int]
"""Interface index -> number."""

_INDEX = struct.Struct("=i")
_LINK_INDEX_AT = 4  # struct ifinfomsg and struct ndmsg have it at the same place
_STATE_AT, _PERMANENT = 8, 0x80  # ndm_state, NUD_PERMANENT
_ND = 12  # octets of struct ndmsg
_RT = 12  # octets of struct rtmsg
_RTA_OIF = 4
_NDA_DST, _NDA_LLADDR = 1, 2
_CACHEINFO6 = struct.pack("=HH", 20, 5)  # IFLA_INET6_CACHEINFO: its reachable time is random
_FAMILIES = (routes.AF_INET, routes.AF_INET6)


class Reader:
    """Sockets of the namespace in which it is made."""

    def __init__(self) -> None:
        self._via = rtnetlink.open_socket()
        self._nft = Nftables()

    def take(self) -> Prints:
        """Of every veth; and of ifbs, where anything is limited at all."""
        found: Prints = {}
        queues = list(self._queues())
        kinds = ("veth", "bridge", "ifb") if queues else ("veth", "bridge")
        everything = (self._links(kinds), self._routes(), self._neighbours(), queues)
        for index, said in chain.from_iterable(everything):
            # the order of a dump means nothing, so the sum of all
            found[index] = found.get(index, 0) + hash(said)
        return found

    def addresses(self) -> list[routes.FoundAddress]:
        """Addresses of all links: there are none on ours, so they are few."""
        found = []
        for family in _FAMILIES:
            for _, body in self._via.dump(routes.get_addresses(family)):
                address = routes.decode_address(body)
                if address is not None:
                    found.append(address)
        return found

    def generation(self) -> int:
        """A number that changes with every change of packet rules, whosesoever."""
        return self._nft.generation()

    def _links(self, kinds: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        for body in (body for kind in kinds for body in self._of_kind(kind)):
            said = bytes(body)
            changing = said.rfind(_CACHEINFO6)
            if changing >= 0:
                said = said[:changing] + said[changing + 20 :]
            yield _INDEX.unpack_from(said, _LINK_INDEX_AT)[0], said

    def _of_kind(self, kind: str) -> Iterator[memoryview]:
        """A kernel that does not know the kind (ifb is a module) answers with every link."""
        for _, body in self._via.dump(links.get_all(kind=kind)):
            if kind == "veth" or links.decode(body).kind == kind:
                yield body

    def _routes(self) -> Iterator[tuple[int, bytes]]:
        for family in _FAMILIES:
            for _, body in self._via.dump(routes.get_routes(family)):
                for kind, data in attributes(body, _RT):
                    if kind == _RTA_OIF:
                        yield _INDEX.unpack(data)[0], bytes(body)
                        break

    def _neighbours(self) -> Iterator[tuple[int, bytes]]:
        for family in _FAMILIES:
            for _, body in self._via.dump(routes.get_neighbours(family)):
                if body[_STATE_AT] & _PERMANENT:
                    index = _INDEX.unpack_from(body, _LINK_INDEX_AT)[0]
                    yield (
                        index,
                        b"".join(
                            bytes(data)
                            for kind, data in attributes(body, _ND)
                            if kind in (_NDA_DST, _NDA_LLADDR)
                        ),
                    )

    def _queues(self) -> Iterator[tuple[int, bytes]]:
        """Token buckets, hooks, and where the hooks' first filter leads."""
        for _, body in self._via.dump(traffic_control.get_queues()):
            queue = traffic_control.decode_queue(body)
            yield queue.ifindex, repr(queue).encode()
            if queue.kind in ("clsact", "ingress"):
                request = traffic_control.get_filters(queue.ifindex)
                with suppress(Failure):  # its link went meanwhile
                    filters = [traffic_control.decode_filter(f) for _, f in self._via.dump(request)]
                    yield queue.ifindex, repr([each for each in filters if each]).encode()

    def close(self) -> None:
        """Give the sockets back."""
        self._via.close()
        self._nft.close()
