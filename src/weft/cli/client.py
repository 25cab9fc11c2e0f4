"""The command line's end of the agent's socket: one call, one connection.

Blocking, with a limit on every wait. What the agent refuses is raised here as the error that it
raised there. Methods and their structs: `wire.api`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
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
PATIENCE = 20.0  # seconds for an answer
READ_SIZE = 1 << 16


class Client:
    """Calls of the agent on the socket at `path`."""

    def __init__(self, path: str = SOCKET, *, patience: float = PATIENCE) -> None:
        self.path = path
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
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.patience)
        try:
            connection.connect(self.path)
        except PermissionError:
            connection.close()
            raise WeftError(
                f"{self.path}: permission denied; the agent answers to root only: run as root, "
                "e.g. with sudo",
                reason="agent-absent",
            ) from None
        except OSError as error:
            connection.close()
            raise self._absent(error) from None
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
