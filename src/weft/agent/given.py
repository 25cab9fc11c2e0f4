"""The values that global sysctls had before us, kept so that they can be given back.

Twice, because they cannot be read from anywhere once they are overwritten: in the journal, and in
`given.json` beside the store, which is replaced as a whole (write, rename). Both are of one boot:
the kernel forgets our values with it, and so do we. Whichever survives tells the other.
Every format has two lines, the CRC-32 of the second one and JSON that has `format`:

    crc32 1c291ca3
    {"format": 1, "boot": "BOOT-ID", "sysctls": [["net/ipv4/ip_forward", "0", "1"]]}
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import msgspec

from weft.agent.events import Log
from weft.agent.journal import Journal
from weft.agent.journal_file import GivenValue
from weft.kernel import files
from weft.model.errors import Unsupported, WeftError

FORMAT = 1
NAME = "given.json"
_SIZE_LIMIT = 1 << 20


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    format: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    boot: str
    sysctls: tuple[GivenValue, ...]


class Given:
    """Values before us, of this boot. `report` says what was wrong with the file, or is empty."""

    def __init__(self, path: Path, boot_id: str, journal: Journal, log: Log) -> None:
        """Read both; each gets what only the other had. Raises Unsupported for a newer file."""
        self.path = path
        self.trouble = ""  # why the file cannot be written, for a person
        self._boot_id = boot_id
        self._journal = journal
        self._log = log
        self._values: dict[str, tuple[str, str]] = {}
        in_file, why = _read(path, boot_id)
        in_journal = {name: (before, wrote) for name, before, wrote in journal.remembered()}
        if why:
            log.event("error", "FileDamaged", "node", f"{path}: {why}; it was set aside")
            _aside(path)
        # the journal is written first, so it knows more where they differ
        self._values = in_file | in_journal
        for name, (before, wrote) in self._values.items():
            if name not in in_journal:
                journal.remember(name, before, wrote)
        if self._values != in_file:
            self.write()

    def remember(self, path: str, before: str, wrote: str) -> None:
        """A sysctl that we are about to change; its value before is kept from the first time on.

        Raises WeftError if the value could not be kept anywhere: then it must not be changed.
        """
        first, _ = self._values.get(path, (before, ""))
        if self._values.get(path) == (first, wrote):
            return
        self._values[path] = first, wrote
        try:
            self._journal.remember(path, first, wrote)
        except WeftError:
            if not self.write():
                del self._values[path]
                raise
        else:
            self.write()

    def remembered(self) -> list[GivenValue]:
        """(path, value before, value we wrote) of every global sysctl that we changed."""
        return [(path, before, wrote) for path, (before, wrote) in self._values.items()]

    def is_missing(self) -> bool:
        """Whether the file should be there and is not what it should be."""
        return bool(self._values) and _read(self.path, self._boot_id)[0] != self._values

    def write(self) -> bool:
        """Replace the file; False, and `trouble`, where that cannot be done now."""
        values = tuple(self.remembered())
        body = msgspec.json.encode(_File(format=FORMAT, boot=self._boot_id, sysctls=values))
        try:
            files.make_directory(self.path.parent)
            files.replace(self.path, b"crc32 %08x\n%s\n" % (zlib.crc32(body), body))
        except (OSError, WeftError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.trouble = f"{self.path} cannot be written ({why})"
            return False
        self.trouble = ""
        return True


def given_path(store: str) -> Path:
    """Where the file is: beside the store."""
    return Path(store).with_name(NAME)


def refuse_newer(path: Path) -> None:
    """Raise Unsupported for a file that a newer weft wrote."""
    found = _format(_octets(path))
    if found is not None and found > FORMAT:
        raise Unsupported(
            f"{path} has format {found}, this weft reads up to {FORMAT}; start the newer weft "
            "again, or run its `weft agent --teardown` first",
            reason="state-newer",
        )


def stored(path: Path, boot_id: str) -> list[GivenValue]:
    """The values of this boot in the file, as far as it can be believed; none where there is no
    file. Raises OSError where there is one that cannot be read now."""
    try:
        octets = files.read(path, _SIZE_LIMIT)
    except (FileNotFoundError, WeftError):  # the latter: one that somebody else may have written
        return []
    values, _ = _believed(octets, boot_id)
    return [(name, before, wrote) for name, (before, wrote) in values.items()]


def _read(path: Path, boot_id: str) -> tuple[dict[str, tuple[str, str]], str]:
    """The values of this boot, and what is wrong with the file."""
    octets = _octets(path)
    return ({}, "") if octets is None else _believed(octets, boot_id)


def _believed(octets: bytes, boot_id: str) -> tuple[dict[str, tuple[str, str]], str]:
    try:
        found = msgspec.json.decode(_body(octets) or b"", type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}, "it is damaged"
    if found.boot != boot_id:
        return {}, ""
    return {name: (before, wrote) for name, before, wrote in found.sysctls}, ""


def _body(octets: bytes) -> bytes | None:
    """The second line, if the first one says that it is whole."""
    head, _, rest = octets.partition(b"\n")
    body = rest.removesuffix(b"\n")
    return body if head == b"crc32 %08x" % zlib.crc32(body) else None


def _octets(path: Path) -> bytes | None:
    try:
        return files.read(path, _SIZE_LIMIT)
    except (OSError, WeftError):  # none, or one that somebody else may have written
        return None


def _format(octets: bytes | None) -> int | None:
    """The format of a sound file; a newer one may hold anything but these two members."""
    try:
        head = msgspec.json.decode(_body(octets or b"") or b"", type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return head.format


def _aside(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rename(path.with_name(f"{path.name}.damaged"))
