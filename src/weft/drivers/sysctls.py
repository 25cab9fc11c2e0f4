"""Files below /proc/sys, of the host and of pods. A file cannot be removed, only written.

Two of a new pod's link are set by rtnetlink, in front of the message that takes it up. Reaching
`net/ipv4/conf` inside a namespace costs the more the more namespaces the node has (see
`kernel.sysctl`), and writers of addr_gen_mode spin while anybody holds the lock of all links.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from weft.drivers.contract import Medium, Names, Position, Scope, Stage
from weft.drivers.transports import FileTransport
from weft.kernel import links, sysctl
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Sysctl

_MESSAGES: Mapping[tuple[str, str], Callable[[int, int], bytes]] = {
    ("ipv4", "accept_redirects"): links.set_accept_redirects,
    ("ipv6", "addr_gen_mode"): links.set_addr_gen_mode,
}
"""(family, name) of what rtnetlink sets for a pod's link: index and value into a message."""


class Sysctls:
    """Driver of `Sysctl`. Most files announce nothing, so no guard may depend on one alone."""

    kinds = (Sysctl,)
    gone = frozenset((errno.ENOENT,))
    watch = None

    def position(self, row: Sysctl) -> Position:
        """Before any link is up. The pod's end has no carrier before the host's stage, which a
        refusal in the pod's keeps from beginning."""
        if row.place is Place.HOST:
            return Stage.TUNE_HOST, 0
        return (Stage.TUNE_POD, 0) if _message_of(row) is None else (Stage.POD, -1)

    def encode(self, old: Sysctl | None, new: Sysctl | None, names: Names) -> Sequence[bytes]:
        """For a removal what the row says, mostly nothing: the file goes with its link."""
        if new is None:
            return (sysctl.message(old.path, old.after),) if old and old.after else ()
        make = _message_of(new)
        if make is not None:
            return (make(names.index(Place.POD, new.link), int(new.value)),)
        return (sysctl.message(new.path, new.value),)

    def read(self, rows: Sequence[Sysctl], scope: Scope) -> Mapping[RowKey, Row]:
        """Two system calls a file; a pod is entered once."""
        inside = scope.place is Place.POD
        files: FileTransport = scope.transport(Medium.POD_FILES if inside else Medium.HOST_FILES)
        found: dict[RowKey, Row] = {}
        for row, value in zip(rows, files.read([row.path for row in rows]), strict=True):
            if value is not None:
                same = value.split() == row.value.split()
                found[row.key] = row if same else msgspec.structs.replace(row, value=value)
        return found

    def words(self, row: Sysctl, found: Row | None) -> str:
        """Missing, or of another value."""
        where = "in the container" if row.place is Place.POD else "on the host"
        if not isinstance(found, Sysctl):
            return f"the sysctl {row.path} {where} is missing"
        return f"the sysctl {row.path} {where} is {found.value!r} instead of {row.value!r}"

    def touched(self, _: int, __: memoryview, ___: Names) -> Collection[RowKey]:
        """Nothing is announced."""
        return ()


def gives_back(row: Row) -> bool:
    """Whether its owner may share rows with others: what pods behind one bridge need of it is the
    same for all, and goes with the last."""
    return isinstance(row, Sysctl) and bool(row.after)


def _message_of(row: Sysctl) -> Callable[[int, int], bytes] | None:
    if row.place is Place.HOST or not row.link:
        return None
    parts = row.path.split("/")
    return _MESSAGES.get((parts[1], parts[-1]))
