"""The process's memory as the C library keeps it: one arena, and free pages given back.

glibc gives every thread an arena of its own, up to eight a processor, and keeps what was freed in
each: workers that read a thousand links once kept 30 MiB between them for ever, and another burst
spread over the arenas in another way kept more. Python's lock lets one thread allocate at a time
anyway, so one arena costs nothing. Other C libraries have no arenas, and nothing is done there.
Source: mallopt(3), malloc_trim(3) (whole free pages of the middle, too, since glibc 2.8).
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 128 << 10  # glibc's first value; left alone, it grows with what is freed

_libc = ctypes.CDLL(None)
_is_glibc = hasattr(_libc, "gnu_get_libc_version")


def keep_small() -> bool:
    """One arena for all threads, and large blocks always given back at once; to be called before
    there are threads. Whether this C library can."""
    if not _is_glibc:
        return False
    return bool(_libc.mallopt(_M_ARENA_MAX, 1) and _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE))


def give_back() -> bool:
    """Give free pages back to the kernel; whether there were any. About a millisecond for every
    10 MiB that go, and other threads may wait for memory so long."""
    return _is_glibc and bool(_libc.malloc_trim(ctypes.c_size_t(0)))
