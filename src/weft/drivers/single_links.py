"""What links of one end have in common: made, recognised and mended as host links are.

A driver of one kind of them says how the kernel makes it and which row a standing one is. One that
is gone can be made again, other than a veth pair: nothing but rows of the host hangs on it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from weft.drivers import links as host_links
from weft.drivers.contract import Medium, Names, Position, Scope, Watch
from weft.drivers.transports import LinkTransport
from weft.kernel import links
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.model.errors import Conflict, KernelRefused
from weft.rows.bandwidth import Ifb
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Bridge

R = TypeVar("R", Ifb, Bridge)


class SingleLinks(Generic[R]):
    """Driver of one kind of row whose link has one end, on the host."""

    kinds: ClassVar[tuple[type[Row], ...]]
    kind: ClassVar[str]  # as the kernel calls it
    what: ClassVar[str]  # as a person does
    missing: ClassVar[str]
    """What `words` says of one that is not there; `{}`: its name."""
    advice = "rename or delete it"
    place: ClassVar[Position]
    gone = frozenset((errno.ENODEV,))
    watch = Watch(protocol=NETLINK_ROUTE, groups=(links.RTNLGRP_LINK,))

    def create(self, row: R) -> bytes:
        """The message that makes it."""
        raise NotImplementedError

    def row_of(self, link: links.Link) -> R:
        """The row that a standing link is."""
        raise NotImplementedError

    def is_unsigned(self, row: R, link: links.Link) -> bool:
        """Whether a link that has no alias is this row's all the same."""
        return False

    def position(self, _: R) -> Position:
        """Where it stands in the order of rows."""
        return self.place

    def encode(self, old: R | None, new: R | None, names: Names) -> Sequence[bytes]:
        """A change of a standing one mends its properties."""
        if new is None:
            return (links.delete_by_name(old.name),) if old is not None else ()
        if old is not None:
            return host_links.mending(names.index(Place.HOST, old.name), old, new, names)
        return (self.create(new),)

    def created(self, row: R, scope: Scope) -> None:
        """Write the alias and learn the number, in one exchange."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        outcome = via.commit([links.set_alias(row.name, row.alias), links.get_by_name(row.name)])
        for refusal in outcome.refusals:
            raise KernelRefused(refusal.errno, "set the alias of", str(row), refusal.words)
        index, _ = links.decode_indexes(outcome.answers[0][2])
        scope.names.learn(Place.HOST, row.name, index)

    def cleared(self, row: R, code: int, scope: Scope) -> bool:
        """EEXIST: our own left-over is deleted; otherwise say whose name is taken."""
        if code != errno.EEXIST:
            return False
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        standing = via.find(row.name)
        if standing is None:
            return True
        if not self.is_unsigned(row, standing) and not host_links.is_ours(standing):
            raise Conflict(
                f"the node has a link named {row.name!r} that weft did not make; {self.advice}"
            )
        via.commit([links.delete_by_index(standing.ifindex)])
        return True

    def settle(self, row: R, scope: Scope) -> None:
        """Nothing happens late."""

    def read(self, rows: Sequence[R], scope: Scope) -> Mapping[RowKey, Row]:
        """By name, or from a dump; one that was renamed is known by its alias."""
        via: LinkTransport = scope.transport(Medium.HOST_LINKS)
        found: dict[RowKey, Row] = {}
        for name, link in host_links.standing(via, rows, self.kind).items():
            scope.names.learn(Place.HOST, name, link.ifindex)
            found[self._key(name)] = self.row_of(link)
        return found

    def words(self, row: R, found: Row | None) -> str:
        """Names the first thing that differs."""
        if not isinstance(found, Ifb | Bridge):
            return self.missing.format(row.name)
        return f"the {self.what} {row.name} on the host has {host_links.differing(row, found)}"

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """Itself, and whether it is up."""
        link = links.decode(body)
        name = names.name(Place.HOST, link.ifindex) or link.name
        return self._key(name), ("Up", Place.HOST, name)

    def differs(self, row: R, link: links.Link) -> bool:
        """Whether it is not as wanted, judged by a notification."""
        return self.row_of(link) != row

    def _key(self, name: str) -> RowKey:
        return self.kinds[0].__name__, name
