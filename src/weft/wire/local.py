"""The agent's local protocol: frames on its unix socket, and the payloads in them.

Pure: bytes to values and back; sockets and descriptors belong to the agent, the CLI and the
launcher (native/launcher, whose protocol.h holds the same constants). A file of the DEL queue is
one frame too. docs/reference/local-protocol.md describes the bytes.

Versions. The header's version counts incompatible changes: a receiver takes its own and the one
before, and answers in the version it was asked in. What can be added without breaking an older
reader is added at a payload's end (binary) or as a new member (JSON); every decoder ignores both,
so launcher, CLI and agent may be one release apart in either direction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import msgspec

from weft.model.errors import PeerFault

MAGIC = b"WFT1"
VERSION = 1
OLDEST_VERSION = 1
LAUNCHER_PROTOCOL = 1

MAX_STDIN = 1024 * 1024
MAX_ENVIRONMENT = 512 * 1024
MAX_REQUEST = 2 * 1024 * 1024
"""Octets of a request's payload: standard input, environment and slack."""
MAX_ANSWER = 64 * 1024 * 1024
"""Octets of an API answer's payload, for those who read answers (a list of all objects)."""

FLAG_QUEUED = 1
"""The frame lay in the DEL queue: no descriptor accompanies it."""
NETNS_PASSED = 0
NETNS_NONE = -1

_HEADER = struct.Struct("<4sHHI")
_REQUEST = struct.Struct("<HHi")
_SIZE = struct.Struct("<I")
_STARTED = struct.Struct("<Q")
_ANSWER = struct.Struct("<BI")


class Kind(IntEnum):
    """What a frame carries. A kind unknown to the receiver is its own affair to refuse."""

    CNI_REQUEST = 1
    CNI_ANSWER = 2
    API_REQUEST = 3
    API_ANSWER = 4
    API_ITEM = 5
    API_ERROR = 6


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `version` is the sender's: answer in the same."""

    kind: int
    payload: bytes
    version: int = VERSION


class CniRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime called the launcher with."""

    program: str  # the plugin type's name, last part of argv[0]
    environment: tuple[tuple[str, str], ...]  # CNI_*, TRACEPARENT, TRACESTATE, in their order
    stdin: bytes
    netns_errno: int = NETNS_NONE  # 0: a descriptor accompanies; -1: no CNI_NETNS; else errno
    flags: int = 0
    protocol: int = LAUNCHER_PROTOCOL
    started_ns: int = 0  # CLOCK_BOOTTIME when the launcher began; 0: not told

    @property
    def is_queued(self) -> bool:
        """Whether it comes from the DEL queue."""
        return bool(self.flags & FLAG_QUEUED)

    def variables(self) -> dict[str, str]:
        """The environment by name; the first of several counts, as for getenv(3)."""
        found: dict[str, str] = {}
        for name, value in self.environment:
            found.setdefault(name, value)
        return found


class CniAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher prints, and its exit status: 0, or 1 with exactly one error object."""

    status: int
    stdout: bytes


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the CLI."""

    method: str
    params: dict[str, Any] = {}


class ApiAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a call returned, and one item of a stream (`Kind.API_ITEM`)."""

    result: Any


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """How a call failed; `reason` is a key of `model.reasons`, `field` names a bad field."""

    reason: str
    message: str
    details: str = ""
    field: str = ""


class OtherVersion(PeerFault):
    """A frame of a version that this side does not speak; `kind` is what it carries."""

    default_reason = "protocol-version"

    def __init__(self, version: int, kind: int) -> None:
        super().__init__(
            f"the peer speaks version {version} of the local protocol and this side "
            f"{OLDEST_VERSION} to {VERSION}; bring launcher, CLI and agent to one release"
        )
        self.version = version
        self.kind = kind


class Frames:
    """Cuts what a connection yields into frames; bounded by `limit` octets a payload.

    `feed` costs time in proportion to what it is given. After a PeerFault the connection is of no
    more use: close it.
    """

    __slots__ = ("_held", "limit")

    def __init__(self, *, limit: int = MAX_REQUEST) -> None:
        self.limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises PeerFault on what is no frame of ours."""
        self._held += data
        frames: list[Frame] = []
        at = 0
        while True:
            end = self._end_of_frame(at)
            if end is None or end > len(self._held):
                break
            _, version, kind, _ = _HEADER.unpack_from(self._held, at)
            payload = bytes(memoryview(self._held)[at + _HEADER.size : end])
            frames.append(Frame(kind=kind, payload=payload, version=version))
            at = end
        del self._held[:at]
        return frames

    def finish(self) -> None:
        """The connection ended: raises PeerFault when it did so inside a frame."""
        if self._held:
            _refuse(f"the connection ended {len(self._held)} octets into a frame")

    @property
    def is_between_frames(self) -> bool:
        """Whether no part of a frame is held."""
        return not self._held

    def _end_of_frame(self, at: int) -> int | None:
        """Where the frame at `at` ends; None while its header is not complete."""
        start = bytes(self._held[at : at + len(MAGIC)])
        if not MAGIC.startswith(start):
            _refuse("what was sent does not begin with the local protocol's magic")
        if len(self._held) - at < _HEADER.size:
            return None
        _, version, kind, length = _HEADER.unpack_from(self._held, at)
        if not OLDEST_VERSION <= version <= VERSION:
            raise OtherVersion(version, kind)
        if length > self.limit:
            _refuse(f"a frame of {length} octets is larger than the bound of {self.limit}")
        return at + _HEADER.size + int(length)


def _refuse(message: str) -> NoReturn:
    raise PeerFault(f"the peer broke the local protocol: {message}")


def encode_frame(kind: int, payload: bytes, version: int = VERSION) -> bytes:
    """One frame, ready to send."""
    return _HEADER.pack(MAGIC, version, kind, len(payload)) + payload


def _sized(part: bytes) -> bytes:
    return _SIZE.pack(len(part)) + part


def encode_cni_request(request: CniRequest) -> bytes:
    """The frame that the launcher sends (tests, the lab and other callers without a launcher)."""
    environment = b"".join(
        f"{name}={value}".encode(errors="surrogateescape") + b"\0"
        for name, value in request.environment
    )
    payload = b"".join(
        (
            _REQUEST.pack(request.protocol, request.flags, request.netns_errno),
            _sized(request.program.encode(errors="surrogateescape")),
            _sized(environment),
            _sized(request.stdin),
            _STARTED.pack(request.started_ns),
        )
    )
    return encode_frame(Kind.CNI_REQUEST, payload)


def decode_cni_request(payload: bytes) -> CniRequest:
    """The request in a frame of kind CNI_REQUEST; raises PeerFault.

    What is no UTF-8 in the environment becomes lone surrogates, as in os.environ.
    """
    try:
        protocol, flags, netns_errno = _REQUEST.unpack_from(payload)
        at = _REQUEST.size
        parts: list[bytes] = []
        for _ in range(3):
            (length,) = _SIZE.unpack_from(payload, at)
            at += _SIZE.size
            parts.append(payload[at : at + length])
            at += length
    except struct.error as error:
        raise PeerFault("the peer broke the local protocol: a torn CNI request") from error
    if at > len(payload):
        _refuse("a torn CNI request")
    program, environment, stdin = parts
    if len(environment) > MAX_ENVIRONMENT or len(stdin) > MAX_STDIN:
        _refuse("environment or standard input exceed their bounds")
    has_start = len(payload) - at >= _STARTED.size  # an addition: absent means not told
    return CniRequest(
        program=program.decode(errors="surrogateescape"),
        environment=tuple(_variables(environment)),
        stdin=stdin,
        netns_errno=netns_errno,
        flags=flags,
        protocol=protocol,
        started_ns=_STARTED.unpack_from(payload, at)[0] if has_start else 0,
    )


def _variables(block: bytes) -> Iterable[tuple[str, str]]:
    for entry in block.decode(errors="surrogateescape").split("\0"):
        name, equals, value = entry.partition("=")
        if equals and name:
            yield name, value


def encode_cni_answer(answer: CniAnswer, version: int = VERSION) -> bytes:
    """The frame that ends a CNI call. A failure needs its error object."""
    if answer.status and not answer.stdout:
        raise ValueError("a failed CNI call answers with exactly one error object")
    payload = _ANSWER.pack(answer.status, len(answer.stdout)) + answer.stdout
    return encode_frame(Kind.CNI_ANSWER, payload, version)


def decode_cni_answer(payload: bytes) -> CniAnswer:
    """The answer in a frame of kind CNI_ANSWER; raises PeerFault."""
    if len(payload) < _ANSWER.size:
        _refuse("a torn CNI answer")
    status, length = _ANSWER.unpack_from(payload)
    stdout = payload[_ANSWER.size : _ANSWER.size + length]
    if len(stdout) != length:
        _refuse("a torn CNI answer")
    return CniAnswer(status=status, stdout=stdout)


_T = TypeVar("_T")
_to_json = msgspec.json.Encoder()
_read_request = msgspec.json.Decoder(ApiRequest)
_read_answer = msgspec.json.Decoder(ApiAnswer)
_read_error = msgspec.json.Decoder(ApiError)


def encode_api(message: ApiRequest | ApiAnswer | ApiError, version: int = VERSION) -> bytes:
    """The frame of a call, its answer or its error."""
    match message:
        case ApiRequest():
            kind = Kind.API_REQUEST
        case ApiAnswer():
            kind = Kind.API_ANSWER
        case ApiError():
            kind = Kind.API_ERROR
    return encode_frame(kind, _to_json.encode(message), version)


def encode_api_item(item: ApiAnswer, version: int = VERSION) -> bytes:
    """The frame of one item of a stream; the stream ends with an answer or an error."""
    return encode_frame(Kind.API_ITEM, _to_json.encode(item), version)


def decode_api_request(payload: bytes) -> ApiRequest:
    """The call in a frame of kind API_REQUEST; raises PeerFault."""
    return _decode(_read_request, payload)


def decode_api_answer(payload: bytes) -> ApiAnswer:
    """The result in a frame of kind API_ANSWER or API_ITEM; raises PeerFault."""
    return _decode(_read_answer, payload)


def decode_api_error(payload: bytes) -> ApiError:
    """The error in a frame of kind API_ERROR; raises PeerFault."""
    return _decode(_read_error, payload)


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerFault(f"the peer broke the local protocol: {error}") from error
