"""Putting the launcher and the network's configuration where runtimes look for them.

Rules: a file appears complete or not at all (written beside its place, then renamed), is not
touched when it already has these bytes, what is not ours is neither replaced nor removed, and
nothing is written to a directory that others than root can change (`kernel.files`).
A launcher is ours when it contains MARK; a conflist is ours when it has exactly our bytes, those of
this release or of an earlier one.
`./dev up` and `weft install` call this; native/launcher is the launcher's source.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from weft.kernel import files
from weft.model.errors import Conflict, Invalid, NotFound

LAUNCHER = Path(__file__).with_name("launcher")
"""The compiled launcher in this installation."""
MARK = b"weft-launcher: "
"""Every launcher of ours contains it, whatever its version; native/launcher/main.c."""

DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""Where runtimes look for plugins: everybody's, Debian's, Fedora's."""

_TYPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_LARGEST = 16 * 1024 * 1024

_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


def _conflist(*capabilities: str) -> bytes:
    plugin = {"type": "weft", "capabilities": dict.fromkeys(capabilities, True)}
    content = {
        # 1.0.0 first: containerd 1.6 refuses a later cniVersion; others choose from the list
        "cniVersion": "1.0.0",
        "cniVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "weft",
        "plugins": [plugin],
    }
    return (json.dumps(content, indent=2) + "\n").encode()


DEFAULT_CONFLIST = _conflist("portMappings", "bandwidth", "ips", "mac", _ANNOTATIONS)
FORMER_CONFLISTS = (_conflist("ips", "mac", _ANNOTATIONS),)
"""What earlier releases wrote, byte for byte: as much ours as today's."""


def has_launcher(place: Path, source: Path | None = None) -> bool:
    """Whether the launcher of this release is there as it should be. Raises as `place_launcher`
    would."""
    present = _examined(place)
    return present == _wanted(source or LAUNCHER) and _is_sound(place)


def place_launcher(directory: Path, type_name: str = "weft", source: Path | None = None) -> bool:
    """Installs the launcher as `directory`/`type_name`, mode 0755; False: it was there already.

    Raises Invalid for a type name that no runtime would execute, NotFound where the launcher was
    not compiled, Conflict where a program of somebody else's has the name.
    """
    place = _launcher_place(directory, type_name)
    wanted = _wanted(source or LAUNCHER)
    present = _examined(place)
    files.make_directory(directory, 0o755)
    if present == wanted and _is_sound(place):
        return False
    files.replace(place, wanted, 0o755)
    return True


def find_launchers(directories: Iterable[Path]) -> list[Path]:
    """Every launcher of ours in these directories, whatever its version and its type name."""
    found = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        places = (directory / name for name in names if _TYPE_NAME.fullmatch(name))
        found += [place for place in places if MARK in (_read_own(place) or b"")]
    return found


def remove_launcher(directory: Path, type_name: str = "weft") -> bool:
    """Removes `directory`/`type_name` if it is a launcher of ours; False: there was none."""
    place = _launcher_place(directory, type_name)
    present = _read_own(place)
    if present is None or MARK not in present:
        return False
    place.unlink(missing_ok=True)
    return True


def has_conflist(path: Path, content: bytes = DEFAULT_CONFLIST) -> bool:
    """Whether this configuration is there; raises Conflict where other content is that no release
    of ours wrote."""
    present = _read_own(path)
    if present == content:
        return True
    if (present is not None or path.is_symlink()) and present not in FORMER_CONFLISTS:
        raise Conflict(f"{path} exists with other content; move it away")
    return False


def is_former(path: Path) -> bool:
    """Whether an earlier release's configuration is there, which `write_conflist` replaces."""
    return _read_own(path) in FORMER_CONFLISTS


def is_conflist(path: Path) -> bool:
    """Whether this or an earlier release's configuration is there, as it was written."""
    return _read_own(path) in (DEFAULT_CONFLIST, *FORMER_CONFLISTS)


def write_conflist(path: Path, content: bytes = DEFAULT_CONFLIST, *, replace: bool = False) -> bool:
    """Writes a configuration, mode 0644, on disk before it is seen; False: it was there already.

    Runtimes read the directory at any moment, and a file that a power cut left empty would keep
    the node from starting pods: hence fsync and rename. Raises Conflict where other content is
    there, unless `replace`.
    """
    present = _read_own(path)
    if present == content:
        return False
    replace = replace or present in FORMER_CONFLISTS
    if (present is not None or path.is_symlink()) and not replace:
        raise Conflict(f"{path} exists with other content; move it away or replace it explicitly")
    files.make_directory(path.parent, 0o755)
    files.replace(path, content, 0o644, durable=True)
    return True


def remove_conflist(path: Path, content: bytes = DEFAULT_CONFLIST) -> bool:
    """Removes a configuration that still has our bytes; False: edited, foreign or not there."""
    if _read_own(path) not in (content, *FORMER_CONFLISTS):
        return False
    path.unlink(missing_ok=True)
    return True


def _wanted(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            f"{source} does not exist: compile the launcher with `python3 native/compile.py`, or "
            "install weft from a wheel"
        ) from error


def _examined(place: Path) -> bytes | None:
    """What is there of ours; raises Conflict where something else is."""
    present = _read_own(place)
    if present is not None and MARK not in present:
        raise Conflict(
            f"{place} exists and is not weft's; install under another type name, or move it away"
        )
    return present


def _launcher_place(directory: Path, type_name: str) -> Path:
    if not _TYPE_NAME.fullmatch(type_name):
        raise Invalid(
            f"{type_name!r} cannot be the name of a CNI plugin: letters, digits, '_', '.', '-' "
            "after a letter or digit, at most 255 characters",
            field="type",
        )
    return directory / type_name


def _is_sound(place: Path) -> bool:
    """Whether the launcher there is root's alone: under a second name somebody could keep it."""
    found = place.stat()
    root = found.st_uid in (0, os.geteuid())
    return root and found.st_nlink == 1 and stat.S_IMODE(found.st_mode) == 0o755


def _read_own(path: Path) -> bytes | None:
    """The content of a regular file; None where there is none, b"" for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # a symbolic link (ELOOP), a socket (ENXIO): there, and not ours
        return b""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return b""
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST)
