"""The second socket, for the members of `socket.group`: they may read, and nothing else.

Opened after the agent serves and closed before it ends. Nothing that goes wrong here keeps the
agent from serving containers: it becomes an event and a warning of status.
"""

from __future__ import annotations

import asyncio
import grp
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

from weft.agent.api import Api
from weft.agent.doors import OVERFLOW, GroupDoor
from weft.agent.events import Log
from weft.agent.server import Connection, Server
from weft.kernel import files
from weft.model.errors import Invalid, NotFound, WeftError
from weft.model.settings import Settings
from weft.wire.local import ApiError, Frame, Kind, encode_api

LOOK_UP = 5.0
"""Seconds for the group's number: the machine may ask a directory on the network for it."""


class Readers:
    """The socket of `socket.group`. `trouble` says why it is not there though it is set."""

    def __init__(self, settings: Settings, api: Api, log: Log) -> None:
        self._group = settings.socket.group
        self._path = Path(settings.paths.query_socket)
        self._api = api
        self._log = log
        self._server: Server | None = None
        self.trouble = ""

    @property
    def is_open(self) -> bool:
        """Whether members of the group are served."""
        return self._server is not None

    async def open(self) -> None:
        """Serve, if a group is set; else remove what an earlier setting left."""
        try:
            if self._group == "":
                close_door(self._path)
                return
            gid, name = await asyncio.wait_for(
                asyncio.to_thread(find_group, self._group), timeout=LOOK_UP
            )
            server = Server(self._path, self._handle, self._log, GroupDoor(gid, name))
            server.listen()
            server.serve()
            self._server = server
        except (WeftError, OSError) as error:
            self.trouble = f"members of socket.group are not served: {_words(error)}"
            self._log.event("error", "GroupNotServed", "node", self.trouble)
        else:
            self._log.event("info", "GroupServed", "node", f"group {name} reads on {self._path}")

    def look(self) -> None:
        """Make the socket again if somebody has removed it."""
        if self._server is not None:
            self._server.look()
            self.trouble = self._server.trouble

    def _handle(
        self, connection: Connection, frame: Frame, descriptor: int | None
    ) -> Awaitable[None] | None:
        if descriptor is not None:  # the door takes none
            os.close(descriptor)
        if frame.kind == Kind.CNI_REQUEST:
            refusal = ApiError(
                reason="not-permitted",
                message=f"members of group {connection.group} may not call CNI verbs; runtimes "
                "call them as root",
            )
            connection.send(encode_api(refusal, frame.version))
            return None
        return self._api.handle(connection, frame)

    async def stop(self) -> None:
        """Give the socket back."""
        if self._server is not None:
            await self._server.stop(patience=1.0)
            self._server = None
            close_door(self._path)


def find_group(wanted: int | str) -> tuple[int, str]:
    """Number and name of a group; blocks. Raises Invalid where the machine has none of the name."""
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdigit():
        wanted = int(wanted)
    try:
        if isinstance(wanted, int):
            with suppress(KeyError):
                return wanted, grp.getgrgid(wanted).gr_name
            return wanted, str(wanted)
        found = grp.getgrnam(wanted)
    except (KeyError, ValueError, OverflowError):
        raise Invalid(
            f"socket.group: this machine has no group {wanted!a}; make it (groupadd) or name "
            "another, and restart the agent",
            field="socket.group",
            reason="invalid-settings",
        ) from None
    if found.gr_gid == OVERFLOW:
        raise Invalid(
            f"socket.group: {wanted!a} is what every foreign group looks like; name another",
            field="socket.group",
            reason="invalid-settings",
        )
    return found.gr_gid, found.gr_name


def close_door(path: Path) -> None:
    """Remove the socket, and its directory if nothing else is in it; raises Conflict where that is
    not ours to do."""
    try:
        files.check_directory(path.parent)
    except NotFound:
        return
    path.unlink(missing_ok=True)
    if path.parent.name.startswith("weft"):  # an administrator's own directory stays
        with suppress(OSError):
            path.parent.rmdir()


def _words(error: Exception) -> str:
    if isinstance(error, WeftError):
        return error.message
    return str(error) or "the group could not be looked up in time"
