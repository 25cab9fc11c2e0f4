"""The command line's end of the agent's socket: one call, one connection.

Blocking, with a limit on every wait. What the agent refuses is raised here as the error that it
raised there. Methods and their structs: `wire.api`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from weft.model.errors import Invalid, NotFound, NotReady, PeerFault, WeftError
from weft.wire.api import METHODS, Params, decode_result, encode_params
from weft.wire.local import (
    MAX_ANSWER,
    ApiRequest,
    Frame,
    Frames,
    Kind,
    decode_api_answer,
    decode_api_error,
    encode_api,
)

SOCKET = "/run/weft/agent.sock"
QUERY_SOCKET = "/run/weft-query/query.sock"
"""Where the agent answers members of `socket.group`."""
PATIENCE = 20.0  # seconds for an answer
READ_SIZE = 1 << 16
_CREDENTIALS = struct.Struct("=iII")


class Client:
    """Calls of the agent on the socket at `path`, or at `second` for who may not reach the first:
    unless another is named, root's socket and then the one of `socket.group`."""

    def __init__(
        self, path: str = SOCKET, *, second: str | None = None, patience: float = PATIENCE
    ) -> None:
        self.path = path
        self.second = second if second is not None else QUERY_SOCKET if path == SOCKET else ""
        self.patience = patience

    def call(self, method: str, params: Params) -> Any:
        """The answer, as the struct that the method table names; raises what the agent raised."""
        with self._asked(method, params) as connection:
            for frame in self._frames(connection):
                return decode_result(method, _value(frame))
        raise self._hung_up()

    def stream(self, method: str, params: Params) -> Iterator[Any]:
        """The items of a method that streams; ends when the agent ends it."""
        with self._asked(method, params) as connection:
            connection.settimeout(None)
            for frame in self._frames(connection):
                value = _value(frame)
                if frame.kind != Kind.API_ITEM:
                    return
                yield decode_result(method, value)
        raise self._hung_up()

    def _asked(self, method: str, params: Params) -> socket.socket:
        if method not in METHODS:
            raise ValueError(method)
        connection = self._connect()
        try:
            call = ApiRequest(method=method, params=encode_params(params))
            connection.sendall(encode_api(call))
        except BrokenPipeError:
            connection.close()
            raise self._hung_up() from None
        except UnicodeEncodeError:
            connection.close()
            raise Invalid(
                "an argument holds bytes that are no UTF-8",
                field="argument",
                reason="invalid-argument",
            ) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> socket.socket:
        try:
            return self._reach(self.path)
        except PermissionError:
            pass
        except OSError as error:
            raise self._absent(error) from None
        if self.second:
            with suppress(OSError):
                return self._reach(self.second)
        raise WeftError(
            f"{self.path}: permission denied; the agent answers to root, and to members of the "
            "group that its setting socket.group names: run as root, e.g. with sudo",
            reason="agent-absent",
        )

    def _reach(self, path: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.patience)
        try:
            connection.connect(path)
            _check_listener(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _absent(self, error: OSError) -> NotReady:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        start = "systemctl start weft" if os.path.isdir("/run/systemd/system") else "weft agent &"
        return NotReady(
            f"no agent answers on {self.path} ({why}); start it with: {start}",
            reason="agent-absent",
        )

    def _hung_up(self) -> PeerFault:
        return PeerFault(
            f"the agent on {self.path} closed the connection without an answer; its log says why"
        )

    def _frames(self, connection: socket.socket) -> Iterator[Frame]:
        frames = Frames(limit=MAX_ANSWER)
        while True:
            try:
                data = connection.recv(READ_SIZE)
            except TimeoutError:
                raise NotReady(
                    f"the agent on {self.path} did not answer within {self.patience:.0f} s",
                    reason="not-ready",
                ) from None
            except ConnectionResetError:
                return
            if not data:
                return
            yield from frames.feed(data)


def _check_listener(connection: socket.socket, path: str) -> None:
    """Raise WeftError where neither root nor this user listens: the kernel keeps who it was that
    called listen(2) (unix(7), SO_PEERCRED)."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    if uid not in (0, os.geteuid()):
        raise WeftError(
            f"user {uid} listens on {path}, not the agent; nothing was asked: see who made it, "
            "and remove it",
            reason="unsafe-path",
        )


def _value(frame: Frame) -> Any:
    if frame.kind in (Kind.API_ANSWER, Kind.API_ITEM):
        return decode_api_answer(frame.payload).result
    if frame.kind != Kind.API_ERROR:
        raise PeerFault(f"the agent answered with a frame of kind {frame.kind}")
    error = decode_api_error(frame.payload)
    if error.field:
        raise Invalid(error.message, field=error.field, reason=error.reason, details=error.details)
    if error.reason == "not-found":
        raise NotFound(error.message, reason=error.reason, details=error.details)
    raise WeftError(error.message, reason=error.reason, details=error.details)
