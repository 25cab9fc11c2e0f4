"""What `weft doctor` judges about the way from a runtime to the agent: configuration, launcher,
socket. Each check is a function of the machine that gives findings; the table is at the end.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator

from weft.cli.machine import Machine
from weft.cni import placing, runtimes
from weft.cni.install import DIRECTORIES, LAUNCHER, MARK
from weft.cni.runtimes.choice import TYPE, configurations
from weft.cni.runtimes.found import NETWORKS, Runtime
from weft.model.names import printable
from weft.wire.api import Finding


def configuration(machine: Machine) -> Iterator[Finding]:
    """Every runtime must take weft's configuration; without one, the usual directory is judged as
    most of them read it."""
    found = runtimes.find(machine) or [
        Runtime(name="a runtime", plugins=DIRECTORIES, networks=NETWORKS)
    ]
    told: set[str] = set()
    for directory in dict.fromkeys(each.networks for each in found):
        yield from _unreadable(machine, directory, told)
    for each in found:
        if each.problem:
            yield Finding(
                id="conflist",
                level="warn",
                text=f"{each.name}: nobody can tell where it looks: {each.problem}",
                mend="correct the file; the runtime would not start with it either",
            )
            continue
        (judged,) = placing.judge(machine, (each,))
        yield from _judged(judged, told)


def _unreadable(machine: Machine, directory: str, told: set[str]) -> Iterator[Finding]:
    for each in configurations(machine, directory):
        if each.types is None:
            told.add(f"{directory}/{each.file}")
            yield Finding(
                id="conflist",
                level="warn",
                text=f"{directory}/{each.file} is no CNI configuration; runtimes may stop at it",
                mend=f"mv {shlex.quote(f'{directory}/{each.file}')} /root/",
            )


def _judged(judged: placing.Judged, told: set[str]) -> Iterator[Finding]:
    runtime, choice = judged.runtime, judged.choice
    if not choice.why:
        yield Finding(
            id="conflist",
            level="ok",
            text=f"{runtime.name}: {runtime.networks}/{choice.ours} is what it takes",
        )
        return
    paths = [f"{runtime.networks}/{each}" for each in choice.shadows]
    if paths and all(each in told for each in paths):
        return  # that file is a finding already
    helps = "weft install --take-over" if paths else "" if choice.ours else "weft install"
    yield Finding(
        id="conflist",
        level="bad",
        text=f"{runtime.name} will not call weft: {choice.why}",
        mend=helps,
    )


def launcher(machine: Machine) -> Iterator[Finding]:
    """The program that runtimes execute: there, executable, and of this release."""
    known = [each for each in runtimes.find(machine) if not each.problem]
    searched = dict.fromkeys((*DIRECTORIES, *(place for each in known for place in each.plugins)))
    found = [f"{place}/{TYPE}" for place in searched if TYPE in machine.names(place)]
    if not found:
        yield Finding(
            id="launcher",
            level="bad",
            text=f"no plugin weft in {', '.join(searched)}: runtimes cannot call it",
            mend="weft install",
        )
        return
    for path in found:
        yield _launcher(machine, path)
    for runtime in known:
        if not any(f"{place}/{TYPE}" in found for place in runtime.plugins):
            yield Finding(
                id="launcher",
                level="bad",
                text=f"{runtime.name} looks for plugins in {', '.join(runtime.plugins)}, and "
                "weft is not there",
                mend="weft install",
            )


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
            id="launcher",
            level="bad",
            text=f"{path} is not weft's launcher",
            mend=install,
            owner=path,
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
