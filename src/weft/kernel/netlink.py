"""Netlink framing and one socket: batches out, acknowledgements and dumps back.

A batch is many messages in one send. Only failures and the last acknowledgement matter, so every
message asks for an acknowledgement and all of them are read with as few system calls as they fit
in. NETLINK_CAP_ACK keeps errors small, NETLINK_EXT_ACK brings the kernel's own words.
Source: netlink(7), include/uapi/linux/netlink.h; strict checking from Linux 4.20.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from weft.model.errors import KernelRefused

Taken = TypeVar("Taken")

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_ECHO = 8
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_SEQUENCE = struct.Struct("=I")
TRIES = 20
"""Dumps that are begun until one is not interrupted. Five were not always enough for an agent to
start where three processes change links and routes without pause (600 links)."""
_RECEIVE = 1 << 16  # the kernel fills 32 KiB at most; above 128 KiB each read would map memory


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four octets."""
    length = 4 + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def attributes(data: bytes | memoryview, offset: int = 0) -> Iterator[tuple[int, memoryview]]:
    """Attributes of a buffer from `offset` on, as (type without flags, payload)."""
    view = memoryview(data)
    end = len(view)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(view, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & NLA_TYPE_MASK, view[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def chosen(body: memoryview, offset: int, kinds: Collection[int]) -> dict[int, memoryview]:
    """Attributes of these kinds only: a link has some forty, and a dump of all links is most of a
    look at them, so the others are stepped over without making a value of them."""
    found = {}
    end = len(body) - 3
    while offset < end:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        if kind & NLA_TYPE_MASK in kinds:
            found[kind & NLA_TYPE_MASK] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A message with sequence number 0; `Socket` puts the number in when it sends."""
    return HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


class Failure(Exception):
    """One message of a batch was refused: its index, errno and the kernel's own words."""

    def __init__(self, index: int, code: int, words: str) -> None:
        super().__init__(f"message {index}: {errno.errorcode.get(code, code)} {words}".rstrip())
        self.index = index
        self.errno = code
        self.words = words


class Socket:
    """One netlink socket of the namespace in which it was made."""

    def __init__(self, protocol: int, *, groups: Sequence[int] = (), strict: bool = False) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, protocol)
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            if strict:
                self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
            self._enlarge()
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]
        self._sequence = 1

    def _enlarge(self) -> None:
        for forced, plain in (
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
        ):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, 4 << 20)
            except OSError:  # not root of the first user namespace: take what is allowed
                self._socket.setsockopt(socket.SOL_SOCKET, plain, 4 << 20)

    def fileno(self) -> int:
        """For event loops."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back; a second call does nothing."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """An option that this file does not know."""
        self._socket.setsockopt(level, option, value)

    def setblocking(self, flag: bool) -> None:
        """Only notification sockets are non-blocking."""
        self._socket.setblocking(flag)

    def send(self, messages: Sequence[bytes], *, quiet: bool = False) -> int:
        """Number the messages, send them in one call, return the first number. `quiet`: all but
        the last lose NLM_F_ACK."""
        first = self._sequence
        self._sequence = (first + len(messages)) & 0x7FFFFFFF or 1
        buffer = bytearray().join(messages)
        offset = 0
        for index, item in enumerate(messages):
            _SEQUENCE.pack_into(buffer, offset + 8, first + index)
            if quiet and index < len(messages) - 1:
                buffer[offset + 6] &= ~NLM_F_ACK
            offset += len(item)
        self._socket.send(buffer)
        return first

    def receive(self) -> bytes:
        """One datagram. Raises OSError (ENOBUFS: notifications were lost)."""
        return self._socket.recv(_RECEIVE)

    def transact(self, messages: Sequence[bytes], *, first_only: bool = True) -> list[Answer]:
        """Send all, await each one's acknowledgement, return what else was answered.

        Every message must carry NLM_F_ACK. The kernel goes on after a refused message, so all
        answers are read; then the first `Failure` is raised (`first_only`), or all of them as an
        ExceptionGroup.
        """
        answers, failures = self.exchange(messages)
        if failures:
            if first_only:
                raise failures[0]
            raise ExceptionGroup("netlink batch", failures)
        return answers

    def exchange(self, messages: Sequence[bytes]) -> tuple[list[Answer], list[Failure]]:
        """As `transact`, but refused messages are returned, not raised."""
        answers: list[Answer] = []
        failures: list[Failure] = []
        if not messages:
            return answers, failures
        first = self.send(messages)
        count = len(messages)
        done = 0
        while done < count:
            for kind, flags, number, body in frames(self.receive()):
                index = number - first
                if not 0 <= index < count:
                    continue  # an answer to somebody who gave up earlier
                if kind == NLMSG_ERROR:
                    done += 1
                    code, words = acknowledgement(flags, body)
                    if code:
                        failures.append(Failure(index, code, words))
                elif kind != NLMSG_DONE:
                    answers.append((index, kind, body))
        return answers, failures

    def pipeline(self, messages: Sequence[bytes]) -> tuple[list[Answer], list[Failure]]:
        """As `exchange`, but only the last message is acknowledged, which saves one read and one
        buffer a message. For protocols that answer in order (rtnetlink): a refusal is always
        reported, and whatever comes before the last acknowledgement has been reported then."""
        answers: list[Answer] = []
        failures: list[Failure] = []
        if not messages:
            return answers, failures
        first = self.send(messages, quiet=True)
        last = len(messages) - 1
        while True:
            for kind, flags, number, body in frames(self.receive()):
                index = number - first
                if not 0 <= index <= last:
                    continue
                if kind == NLMSG_ERROR:
                    code, words = acknowledgement(flags, body)
                    if code:
                        failures.append(Failure(index, code, words))
                    if index == last:
                        return answers, failures
                elif kind != NLMSG_DONE:
                    answers.append((index, kind, body))

    def dump(self, request: bytes, *, tries: int = TRIES) -> list[tuple[int, memoryview]]:
        """All answers to a dump request, as (type, body); repeated when the kernel says that the
        dump was interrupted by a change (NLM_F_DUMP_INTR)."""
        return self.gather(request, _pair, tries=tries)

    def gather(
        self, request: bytes, take: Callable[[int, memoryview], Taken | None], *, tries: int = TRIES
    ) -> list[Taken]:
        """As `dump`, but only what `take` makes of each answer is kept, None not at all: of a
        thousand links the answers alone are 2 MiB."""
        for _ in range(tries):
            items, whole = self._dump_once(request, take)
            if whole:
                return items
        raise KernelRefused(errno.EINTR, "dump", hint="the tables change faster than they are read")

    def passing(self, request: bytes) -> Iterator[tuple[int, memoryview]]:
        """As `dump`, one answer at a time and once only: for tables that are never whole, because
        entries come and go while they are read. The kernel goes on with the next read, so whoever
        takes slowly costs no memory; who takes no more has to close the socket."""
        number = self.send([request])
        while True:
            for kind, flags, answered, body in frames(self.receive()):
                if answered != number:
                    continue
                if kind == NLMSG_ERROR:
                    raise Failure(0, *acknowledgement(flags, body))
                if kind == NLMSG_DONE:
                    code = -_ERRNO.unpack_from(body)[0] if len(body) >= 4 else 0
                    if code > 0:
                        raise Failure(0, code, "")
                    return
                yield kind, body

    def _dump_once(
        self, request: bytes, take: Callable[[int, memoryview], Taken | None]
    ) -> tuple[list[Taken], bool]:
        number = self.send([request])
        items: list[Taken] = []
        whole = True
        while True:
            for kind, flags, answered, body in frames(self.receive()):
                if answered != number:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind == NLMSG_DONE:
                    code = -_ERRNO.unpack_from(body)[0] if len(body) >= 4 else 0
                    if code > 0:
                        raise Failure(0, code, "")
                    return items, whole
                if kind == NLMSG_ERROR:
                    code, words = acknowledgement(flags, body)
                    if code:
                        raise Failure(0, code, words)
                    return items, whole
                taken = take(kind, body)
                if taken is not None:
                    items.append(taken)


def _pair(kind: int, body: memoryview) -> tuple[int, memoryview]:
    return kind, body


Answer = tuple[int, int, memoryview]
"""(index of the message it answers, type, body)."""


def frames(datagram: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Messages of a datagram as (type, flags, sequence number, body)."""
    view = memoryview(datagram)
    offset = 0
    end = len(view)
    while offset + 16 <= end:
        length, kind, flags, number, _ = HEADER.unpack_from(view, offset)
        if length < 16 or offset + length > end:
            return
        yield kind, flags, number, view[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def sender(datagram: bytes) -> int:
    """Port number of the socket whose request a notification is about; 0: the kernel itself."""
    return int(HEADER.unpack_from(datagram)[4]) if len(datagram) >= HEADER.size else 0


def acknowledgement(flags: int, body: memoryview) -> tuple[int, str]:
    """errno (0: success) and the kernel's words, from the body of an NLMSG_ERROR."""
    code = -_ERRNO.unpack_from(body)[0]
    if not flags & NLM_F_ACK_TLVS:
        return code, ""
    offset = 4 + 16
    if not flags & NLM_F_CAPPED:
        offset = 4 + struct.unpack_from("=I", body, 4)[0]
    for kind, data in attributes(body, (offset + 3) & ~3):
        if kind == 1:  # NLMSGERR_ATTR_MSG
            return code, bytes(data).rstrip(b"\0").decode(errors="replace")
    return code, ""


def refused(failure: Failure, operation: str, row: str) -> KernelRefused:
    """The failure as an error of the house."""
    return KernelRefused(failure.errno, operation, row, failure.words)


def joined(batches: Iterable[Sequence[bytes]]) -> list[bytes]:
    """Several batches as one."""
    return [item for batch in batches for item in batch]


def describe_errno(code: int) -> str:
    """`ENODEV: No such device`."""
    return f"{errno.errorcode.get(code, code)}: {os.strerror(code)}"
