"""firewalld, by its D-Bus interface: sources of a zone, for as long as it is not reloaded.

A source bears no comment, so those that we bound are written down in a file of this boot: before
they are bound, and out again after they are taken back. A source that is in the permanent
configuration is the administrator's, whoever bound it first, and is not taken back.
Source: firewalld.dbus(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from weft.kernel import files
from weft.model.errors import NotFound, PeerFault, Unsupported

BUS = Path("/run/dbus/system_bus_socket")
NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
FORMAT = 1
LARGEST = 1 << 20  # octets of the record
PATIENCE = 5.0  # seconds for an answer; firewalld answers nobody while it reloads


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The file: sources that are bound, or about to be."""

    format: int = FORMAT
    sources: tuple[str, ...] = ()


def recorded(path: Path) -> tuple[str, ...]:
    """The sources that we have bound; none where there is no file, or a damaged one. Raises
    Conflict for one that others may have written, Unsupported for one of a newer release."""
    try:
        found = msgspec.json.decode(files.read(path, LARGEST), type=Record)
    except (NotFound, msgspec.DecodeError):
        return ()
    if found.format > FORMAT:
        raise Unsupported(f"{path} was written by a newer release of weft (format {found.format})")
    return found.sources


def record(path: Path, sources: Iterable[str]) -> None:
    """Write it anew, or remove it where there is nothing to say. Raises WeftError."""
    kept = tuple(dict.fromkeys(sources))
    try:
        if kept:
            files.replace(path, msgspec.json.encode(Record(sources=kept)))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise Unsupported(f"{path} cannot be written: {error.strerror}") from error


class Firewalld:
    """A conversation with firewalld; a context. Every method raises PeerFault."""

    def __init__(self) -> None:
        # a small library, but of no use on most hosts
        from jeepney.io.blocking import open_dbus_connection

        try:
            self._bus = open_dbus_connection(bus=f"unix:path={BUS}")
        except (OSError, ValueError) as error:
            raise PeerFault(f"the D-Bus system bus cannot be reached: {error}") from error

    def __enter__(self) -> Firewalld:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def is_running(self) -> bool:
        """Whether it is on the bus; it is never started by asking."""
        answer = self._ask(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "NameHasOwner",
            NAME,
        )
        return bool(answer)

    def zones(self, sources: Iterable[str]) -> Mapping[str, str]:
        """The zone that each source is bound to, "" for none."""
        return {each: str(self._zone("getZoneOfSource", each)) for each in sources}

    def bind(self, zone: str, source: str) -> None:
        """Make the range a source of the zone, until the next reload."""
        self._zone("addSource", zone, source)

    def release(self, zone: str, source: str) -> None:
        """Take a source back, unless the permanent configuration has it too."""
        if source not in self._permanent(zone):
            self._zone("removeSource", zone, source)

    def _permanent(self, zone: str) -> tuple[str, ...]:
        path = self._ask(NAME, f"{PATH}/config", f"{NAME}.config", "getZoneByName", zone)
        found = self._ask(NAME, str(path), f"{NAME}.config.zone", "getSources")
        return tuple(map(str, found))

    def _zone(self, method: str, *arguments: str) -> Any:
        return self._ask(NAME, PATH, f"{NAME}.zone", method, *arguments)

    def _ask(self, name: str, path: str, interface: str, method: str, *arguments: str) -> Any:
        from jeepney import DBusAddress, MessageFlag, MessageType, new_method_call

        there = DBusAddress(path, bus_name=name, interface=interface)
        message = new_method_call(there, method, "s" * len(arguments), arguments)
        message.header.flags |= MessageFlag.no_auto_start
        try:
            answer = self._bus.send_and_get_reply(message, timeout=PATIENCE)
        except (OSError, TimeoutError, EOFError) as error:
            raise PeerFault(f"firewalld does not answer to {method}: {error}") from error
        if answer.header.message_type is MessageType.error:
            said = answer.body[0] if answer.body else "no reason given"
            raise PeerFault(f"firewalld refused {method} {' '.join(arguments)}: {said}")
        return answer.body[0] if answer.body else None
