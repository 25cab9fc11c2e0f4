"""The few system calls that Python 3.11 lacks, for building lab nodes.

`unshare`, `setns`, `mount`, `umount2` and `sethostname`, called through the C library that the
interpreter already holds. Only the lab mounts anything; the agent enters namespaces by way of
`kernel`. Next: `entering` for the readable form, `nodes` for what is built with it.
"""

from __future__ import annotations

import ctypes
import os

from weft.model.errors import KernelRefused

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, operation: str, subject: str) -> None:
    if result != 0:
        raise KernelRefused(ctypes.get_errno(), operation, subject)


def unshare(flags: int) -> None:
    """Give the calling thread (process, for mounts) fresh namespaces of the kinds in `flags`."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare", hex(flags))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd`."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "enter namespace", f"fd {fd}")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); an empty `kind` for bind mounts and changes of propagation."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(result, "mount", f"{source or kind} on {target}")


def unmount(target: str) -> None:
    """Detach whatever is mounted on `target`, at once, also while it is in use."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), "unmount", target)


def sethostname(name: str) -> None:
    """The host name of the calling process's UTS namespace."""
    raw = name.encode()
    _checked(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "set host name", name)


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to the calling process when its parent ends."""
    _libc.prctl(ctypes.c_int(PR_SET_PDEATHSIG), ctypes.c_ulong(signal), 0, 0, 0)
