"""What `weft doctor` judges about the way from a runtime to the agent: configuration, launcher,
socket. Each check is a function of the machine that gives findings; the table is at the end.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from weft.cli.machine import Machine
from weft.cni.install import DIRECTORIES, LAUNCHER, MARK
from weft.model.names import printable
from weft.wire.api import Finding

CONFIGURATIONS = "/etc/cni/net.d"
SUFFIXES = (".conf", ".conflist", ".json")
"""What libcni takes for a configuration (ConfFiles)."""


def plugin_types(text: str | None) -> list[str] | None:
    """The plugin types of a configuration or list; None where it is none."""
    try:
        data: Any = json.loads(text or "")
        plugins = data.get("plugins", [data])
        return [str(each["type"]) for each in plugins]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def configuration(machine: Machine) -> Iterator[Finding]:
    """Runtimes take the first configuration by name: it must be weft's."""
    files = [name for name in machine.names(CONFIGURATIONS) if name.endswith(SUFFIXES)]
    types = {name: plugin_types(machine.text(f"{CONFIGURATIONS}/{name}")) for name in files}
    ours = [name for name, found in types.items() if found and "weft" in found]
    for name in (name for name, found in types.items() if found is None):
        yield Finding(
            id="conflist",
            level="warn",
            text=f"{CONFIGURATIONS}/{printable(name)} is no CNI configuration; runtimes may stop "
            "at it",
            mend=f"mv {CONFIGURATIONS}/{name} /root/",
        )
    if not ours:
        yield Finding(
            id="conflist",
            level="bad",
            text=f"no configuration in {CONFIGURATIONS} names weft: runtimes will not call it",
            mend="./dev up, or write 10-weft.conflist as docs/install.md says",
        )
    elif files[0] != ours[0]:
        yield Finding(
            id="conflist",
            level="bad",
            text=f"{printable(files[0])} comes before {printable(ours[0])} in {CONFIGURATIONS}: "
            "runtimes take the first and will not call weft",
            mend=f"mv {CONFIGURATIONS}/{files[0]} /root/",
        )
    else:
        yield Finding(
            id="conflist", level="ok", text=f"{CONFIGURATIONS}/{ours[0]} is what runtimes take"
        )


def launcher(machine: Machine) -> Iterator[Finding]:
    """The program that runtimes execute: there, executable, and of this release."""
    found = [f"{place}/weft" for place in DIRECTORIES if "weft" in machine.names(place)]
    if not found:
        yield Finding(
            id="launcher",
            level="bad",
            text=f"no plugin weft in {', '.join(DIRECTORIES)}: runtimes cannot call it",
            mend="./dev up, or install it as docs/install.md says",
        )
    for path in found:
        yield _launcher(machine, path)


def _launcher(machine: Machine, path: str) -> Finding:
    place = machine.at(path)
    install = f"install -m 0755 {LAUNCHER} {path}"
    try:
        mode = place.stat().st_mode
        content = place.read_bytes() if stat.S_ISREG(mode) else b""
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        return Finding(id="launcher", level="bad", text=f"{path}: {why}", mend=install)
    if MARK not in content:
        return Finding(
            id="launcher", level="bad", text=f"{path} is not weft's launcher", mend=install
        )
    if not mode & 0o111:
        return Finding(
            id="launcher",
            level="bad",
            text=f"{path} is not executable",
            mend=f"chmod 0755 {path}",
        )
    try:
        wanted = LAUNCHER.read_bytes()
    except OSError:
        return Finding(
            id="launcher",
            level="warn",
            text=f"{path} is there; this installation has no launcher to compare it with",
        )
    if content != wanted:
        return Finding(
            id="launcher",
            level="warn",
            text=f"{path} is not the launcher of this release",
            mend=install,
        )
    return Finding(id="launcher", level="ok", text=f"{path} is of this release")


def socket_permissions(machine: Machine) -> Iterator[Finding]:
    """Whoever may write to the socket commands the node's network."""
    if not machine.socket:
        return
    for path, most in ((os.path.dirname(machine.socket), 0o755), (machine.socket, 0o700)):
        try:
            found = machine.at(path).lstat()
        except OSError:
            return  # whether an agent answers is another finding
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != 0 or mode & ~most & 0o777:
            yield Finding(
                id="socket",
                level="bad",
                text=f"{path} has mode {mode:04o} and owner {found.st_uid}: others than root "
                "could command the agent",
                mend=f"chown root:root {path} && chmod {most & mode:04o} {path}",
            )
            return
    yield Finding(id="socket", level="ok", text=f"only root reaches {machine.socket}")


def health(machine: Machine) -> Iterator[Finding]:
    """The agent's endpoint answers, too: monitoring hears of the node by it."""
    address = machine.status.metrics.address if machine.status is not None else ""
    if not address:
        return  # off, or not to be had, which the agent says itself
    try:
        status, said = machine.page(address, "/healthz")
    except OSError as error:
        yield Finding(
            id="health",
            level="warn",
            text=f"the agent listens on {address} for its health, but cannot be asked there: "
            f"{error}",
            mend="let this machine reach that address, or set metrics.listen",
        )
        return
    if status == 200:
        yield Finding(id="health", level="ok", text=f"metrics and health are on {address}")
    else:
        yield Finding(
            id="health", level="bad", text=f"http://{address}/healthz: {printable(said, 200)}"
        )


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    socket_permissions,
    configuration,
    launcher,
    health,
)
