"""Network namespaces: telling them apart, and entering one for a moment.

The only file that enters another namespace. `entered` costs about 15 microseconds and runs on the
calling thread, so nothing may await inside it: open the sockets that are needed (a socket keeps
the namespace it was made in), write the sysctl files, leave. A thread that cannot return would go
on to work on a container's network as if it were the node's; the process ends instead.
Source: setns(2), ioctl_nsfs(2). Python 3.11 has no os.setns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat

from weft.model.errors import KernelRefused

CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)
_setns = _libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)
_setns.restype = ctypes.c_int
_unshare = _libc.unshare
_unshare.argtypes = (ctypes.c_int,)
_unshare.restype = ctypes.c_int

Identity = tuple[int, int]
"""Device and inode of a namespace: equal for two descriptors of the same namespace."""


def identity(fd: int) -> Identity:
    """Which namespace a descriptor is of."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def own() -> Identity:
    """The network namespace of the calling thread."""
    status = os.stat(_OWN)
    return status.st_dev, status.st_ino


def locate(path: str) -> tuple[str, Identity] | None:
    """Where the namespace at a path of the machine can be opened from here, and which one it is;
    None: there is none. A service has mounts of its own, to which one made later need not come:
    then those of process 1 count."""
    if not path.startswith("/"):
        return None
    device = own()[0]  # of nsfs; what was mounted on is a plain file
    for root in ("", "/proc/1/root"):
        try:
            place = root + os.path.realpath(path) if root else path
            found = os.stat(place)
        except (OSError, ValueError):  # ValueError: no path at all, with a NUL or half a character
            continue
        if found.st_dev == device:
            return place, (found.st_dev, found.st_ino)
    return None


def is_network_namespace(fd: int) -> bool:
    """False for every other kind of file. The file's type is looked at first, because the ioctl's
    number may mean anything to a device."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


class entered:
    """`with entered(fd):` the calling thread is in that network namespace.

    Raises KernelRefused when it cannot be entered.
    """

    __slots__ = ("_fd", "_home")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        if _setns(self._fd, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            os.close(self._home)
            hint = "the descriptor is of no network namespace" if code == errno.EINVAL else ""
            raise KernelRefused(code, "enter the pod's network namespace", hint=hint)

    def __exit__(self, *_: object) -> None:
        if _setns(self._home, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            os.write(2, b"weft: cannot return to the node's network namespace, errno %d\n" % code)
            os.abort()
        os.close(self._home)


def leave_for_new() -> None:
    """Put the calling thread into a new, empty network namespace, which ends with it: for a thread
    that was made for this and does nothing else. Raises OSError."""
    if _unshare(CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
