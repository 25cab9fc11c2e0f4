"""A client of a runtime's CRI, as far as tests need one: unary calls over gRPC on a unix socket.

HTTP/2 (RFC 9113) with header fields that are never indexed (RFC 7541 6.2.2), so that no state is
kept; what the server says in its headers is not decoded: an answer is a message, and a refusal
is none, whose words are in the runtime's log. Messages are those of runtime.v1 (api.proto).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
TCP, UDP = 0, 1
READY = 0

Value = int | str | bytes
Fields = dict[int, list[Any]]


class Refused(Exception):
    """The runtime answered without a message."""


def message(*fields: tuple[int, Value]) -> bytes:
    """Protobuf of (number, value): varint for a whole number, else octets."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            octets = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(octets)) + octets
    return out


def fields(octets: bytes) -> Fields:
    """The fields of a message, each with all its values; inner messages as octets."""
    found: Fields = {}
    at = 0
    while at < len(octets):
        key, at = _read_varint(octets, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value: Value
            value, at = _read_varint(octets, at)
        elif kind == 2:
            size, at = _read_varint(octets, at)
            value, at = octets[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind} of field {number} is not used by the CRI")
        found.setdefault(number, []).append(value)
    return found


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def _read_varint(octets: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = octets[at]
        value, shift, at = value | (octet & 0x7F) << shift, shift + 7, at + 1
        if octet < 0x80:
            return value, at


class Runtime:
    """The runtime behind a socket, by its path as this process sees it."""

    def __init__(self, path: str, patience: float = 60.0) -> None:
        self._path = path
        self._patience = patience

    def call(self, method: str, request: bytes = b"") -> Fields:
        """The answer's fields; raises Refused, or OSError where nobody answers in time."""
        with closing(socket.socket(socket.AF_UNIX)) as peer:
            peer.settimeout(self._patience)
            peer.connect(self._path)
            peer.sendall(PREFACE + _frame(SETTINGS, 0, 0, b"") + _request(method, request))
            answer = _answer(peer)
        if len(answer) < 5:
            raise Refused(method)
        return fields(answer[5:])

    def run_sandbox(
        self, name: str, *, ports: tuple[tuple[int, int, int], ...] = (), logs: str
    ) -> str:
        """RunPodSandbox for (protocol, container port, host port); the sandbox's id."""
        mapped = [
            (5, message((1, protocol), (2, inner), (3, outer))) for protocol, inner, outer in ports
        ]
        metadata = message((1, name), (2, f"uid-{name}"), (3, "default"))
        config = message((1, metadata), (2, name), (3, logs), *mapped, (8, b""))
        return str(self.call("RunPodSandbox", message((1, config)))[1][0].decode())

    def addresses(self, sandbox: str) -> tuple[int, list[str]]:
        """PodSandboxStatus: the state, and the addresses with the first one first."""
        status = fields(self.call("PodSandboxStatus", message((1, sandbox)))[1][0])
        network = fields(status[5][0]) if 5 in status else {}
        further = [fields(each)[1][0] for each in network.get(2, ())]
        found = [*network.get(1, ()), *further]
        return status.get(3, [READY])[0], [each.decode() for each in found]

    def stop(self, sandbox: str) -> None:
        """StopPodSandbox."""
        self.call("StopPodSandbox", message((1, sandbox)))

    def remove(self, sandbox: str) -> None:
        """RemovePodSandbox."""
        self.call("RemovePodSandbox", message((1, sandbox)))

    def conditions(self) -> dict[str, tuple[bool, str]]:
        """Status: each condition, whether it holds, and why it does not."""
        status = fields(self.call("Status")[1][0])
        found = {}
        for each in map(fields, status[1]):
            why = b" ".join(each.get(3, []) + each.get(4, [])).decode()
            found[each[1][0].decode()] = (bool(each.get(2, [0])[0]), why)
        return found


def _request(method: str, body: bytes) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/runtime.v1.RuntimeService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(_literal(name) + _literal(value) for name, value in _lines(headers))
    framed = b"\0" + struct.pack(">I", len(body)) + body
    return _frame(HEADERS, END_HEADERS, 1, block) + _frame(DATA, END_STREAM, 1, framed)


def _lines(headers: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        yield "\0" + name, value  # \0: literal, not indexed, with a name of its own


def _literal(text: str) -> bytes:
    head, rest = ("\0", text[1:]) if text.startswith("\0") else ("", text)
    assert len(rest) < 127  # longer ones need more than one octet for their length
    return head.encode() + bytes((len(rest),)) + rest.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _answer(peer: socket.socket) -> bytes:
    answer = b""
    while True:
        head = _exactly(peer, 9)
        size = int.from_bytes(head[:3], "big")
        kind, flags = head[3], head[4]
        payload = _exactly(peer, size)
        if kind in (SETTINGS, PING) and not flags & ACK:
            peer.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            raise Refused(f"the stream was closed: {payload.hex()}")
        elif kind == DATA:
            answer += payload
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return answer


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = peer.recv(size - len(found))
        if not more:
            raise ConnectionError("the runtime hung up")
        found += more
    return found
