"""Files below /proc/sys, of the host and of pods. A file cannot be removed, only written."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

import msgspec

from weft.drivers.contract import Medium, Names, Position, Scope, Stage
from weft.drivers.transports import FileTransport
from weft.kernel import sysctl
from weft.rows.base import Place, Row, RowKey
from weft.rows.links import Sysctl


class Sysctls:
    """Driver of `Sysctl`. Most files announce nothing, so no guard may depend on one alone."""

    kinds = (Sysctl,)
    gone = frozenset((errno.ENOENT,))
    watch = None

    def position(self, row: Sysctl) -> Position:
        """Before any link is up."""
        return (Stage.TUNE_POD if row.place is Place.POD else Stage.TUNE_HOST), 0

    def encode(self, _: Sysctl | None, new: Sysctl | None, __: Names) -> Sequence[bytes]:
        """Nothing for a removal: what the value was before is known to whoever asked for it."""
        return () if new is None else (sysctl.message(new.path, new.value),)

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
