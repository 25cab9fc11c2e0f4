"""bpf(2): maps, programs, and their place at a cgroup's hooks. No libbpf, no compiler.

Thin and typed: a program is a list of instructions from the few constructors below, a map is a
descriptor. include/uapi/linux/bpf.h; every call raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD = 0, 1, 2, 3, 4, 5
_ATTACH, _DETACH, _PROG_FD, _INFO, _QUERY = 8, 9, 13, 15, 16
HASH, LRU_HASH = 1, 9  # BPF_MAP_TYPE_*
CGROUP_SOCK_ADDR = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
CONNECT6, SENDMSG6, RECVMSG6, GETPEERNAME6 = 11, 15, 20, 30  # BPF_CGROUP_*
_ALLOW_MULTI, _REPLACE = 2, 4
_LOG = 1 << 16
_INFO_SIZE = 256
_NAME_AT = 64  # bpf_prog_info.name
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _bpf(command: int, attributes: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(38, "bpf(2) has no known number on this machine")  # ENOSYS
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(number, command, buffer, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _answer[:] = buffer.raw
    return result


_answer = bytearray()
"""What the kernel wrote into the attributes of the last call."""


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def make_map(kind: int, key: int, value: int, entries: int, name: str) -> int:
    """A map of keys and values of so many octets; its descriptor."""
    head = struct.pack("=IIIIIII", kind, key, value, entries, 0, 0, 0)
    return _bpf(_MAP_CREATE, head + name.encode()[:15].ljust(16, b"\0"))


def put(map_: int, key: bytes, value: bytes) -> None:
    """Set one entry."""
    one, other = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value)
    _bpf(_UPDATE, struct.pack("=IIQQQ", map_, 0, _pointer(one), _pointer(other), 0))


def drop(map_: int, key: bytes) -> None:
    """Remove one entry; an absent one raises ENOENT."""
    one = ctypes.create_string_buffer(key, len(key))
    _bpf(_DELETE, struct.pack("=IIQQQ", map_, 0, _pointer(one), 0, 0))


def get(map_: int, key: bytes, size: int) -> bytes:
    """The value of an entry; an absent one raises ENOENT."""
    one, other = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    _bpf(_LOOKUP, struct.pack("=IIQQQ", map_, 0, _pointer(one), _pointer(other), 0))
    return other.raw


def load(kind: int, attach: int, code: Sequence[bytes], name: str) -> int:
    """A verified program; its descriptor. The verifier's words are in the error."""
    body = b"".join(code)
    text = ctypes.create_string_buffer(body, len(body))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(kind, len(body) // 8, _pointer(text), _pointer(licence), 0, 0, 0, 0, 0),
        name.encode()[:15],
        0,
        attach,
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {_verdict(attributes)}"[:500]) from error


def _verdict(attributes: bytes) -> str:
    """The last line that the verifier says to a program it refused."""
    log = ctypes.create_string_buffer(_LOG)
    told = attributes[:24] + struct.pack("=IIQ", 1, _LOG, _pointer(log)) + attributes[40:]
    try:
        os.close(_bpf(_PROG_LOAD, told))
    except OSError:
        lines = log.value.decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-4:-1]) if lines else "no words"
    return "it was taken at the second try"


def attach(cgroup: int, program: int, hook: int, instead_of: int | None = None) -> None:
    """Hang a program at a hook beside others', or in the place of one of ours, at once."""
    flags = _ALLOW_MULTI | (_REPLACE if instead_of is not None else 0)
    _bpf(_ATTACH, struct.pack("=IIIII", cgroup, program, hook, flags, instead_of or 0))


def detach(cgroup: int, program: int, hook: int) -> None:
    """Take a program off a hook."""
    _bpf(_DETACH, struct.pack("=IIIII", cgroup, program, hook, 0, 0))


def attached(cgroup: int, hook: int) -> list[int]:
    """Descriptors of the programs at this hook of this very cgroup."""
    ids = (ctypes.c_uint32 * 64)()
    _bpf(_QUERY, struct.pack("=IIIIQII", cgroup, hook, 0, 0, ctypes.addressof(ids), 64, 0))
    (count,) = struct.unpack_from("=I", _answer, 24)
    return [_bpf(_PROG_FD, struct.pack("=III", ids[n], 0, 0)) for n in range(count)]


def name_of(program: int) -> str:
    """A program's name, at most 15 octets."""
    info = ctypes.create_string_buffer(_INFO_SIZE)
    _bpf(_INFO, struct.pack("=IIQ", program, _INFO_SIZE, _pointer(info)))
    return info.raw[_NAME_AT : _NAME_AT + 16].split(b"\0")[0].decode(errors="replace")


# -- instructions: struct bpf_insn. Registers 0..10; jumps count instructions after the next.

_INSN = struct.Struct("=BBhi")


def _insn(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSN.pack(code, target | source << 4, offset, value)


def move(target: int, source: int) -> bytes:
    """target = source."""
    return _insn(0xBF, target, source)


def constant(target: int, value: int) -> bytes:
    """target = a number of 31 bits."""
    return _insn(0xB7, target, value=value)


def wide(target: int, value: int) -> bytes:
    """target = a number of 64 bits; counts as two instructions."""
    low, high = struct.unpack("=ii", struct.pack("=Q", value))
    return _insn(0x18, target, value=low) + _insn(0, value=high)


def map_of(target: int, map_: int) -> bytes:
    """target = a map (BPF_PSEUDO_MAP_FD); counts as two instructions."""
    return _insn(0x18, target, 1, value=map_) + _insn(0)


def add(target: int, value: int) -> bytes:
    """target += a number."""
    return _insn(0x07, target, value=value)


def load32(target: int, source: int, offset: int) -> bytes:
    """target = 32 bits at source + offset."""
    return _insn(0x61, target, source, offset)


def store32(target: int, offset: int, source: int) -> bytes:
    """32 bits at target + offset = source."""
    return _insn(0x63, target, source, offset)


def store64(target: int, offset: int, source: int) -> bytes:
    """64 bits at target + offset = source."""
    return _insn(0x7B, target, source, offset)


def call(helper: int) -> bytes:
    """r0 = a helper of the kernel's (r1 to r5)."""
    return _insn(0x85, value=helper)


END = _insn(0x95)


class Jump(tuple[int, int, int | None]):
    """A conditional jump to the end of the program, filled in by `finish`: not equal to a number
    or to a register, or equal to 0."""

    __slots__ = ()


def unless(register: int, value: int) -> Jump:
    """To the end unless register == value (32 bits)."""
    return Jump((0x56, register, value))


def unless_same(register: int, other: int) -> Jump:
    """To the end unless both registers are equal (64 bits)."""
    return Jump((0x5D, register | other << 4, None))


def if_zero(register: int) -> Jump:
    """To the end if register == 0 (64 bits)."""
    return Jump((0x15, register, 0))


def finish(body: Sequence[bytes | Jump]) -> list[bytes]:
    """A program that answers 1 (go on) at its end, to which all jumps lead."""
    sizes = [1 if isinstance(item, Jump) else len(item) // 8 for item in body]
    total = sum(sizes)
    code: list[bytes] = []
    at = 0
    for item, size in zip(body, sizes, strict=True):
        at += size
        if isinstance(item, Jump):
            kind, registers, value = item
            code.append(_INSN.pack(kind, registers, total - at, value or 0))
        else:
            code.append(item)
    return [*code, constant(0, 1), END]
