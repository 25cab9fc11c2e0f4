"""Releases of weft as they lie on a node, and a node whose agent is kept as on a real one.

A release is an environment of its own: an interpreter, the packages of the present one by a path
file, weft's sources, and the launcher that its own native/compile.py makes. The previous one
comes from the history of the checkout.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from machines import WRITTEN

from acceptance import Host
from weft.lab import calls, cluster, private, snapshot
from weft.lab.nodes import CLEAN_PATH, Node, start_time
from weft.lab.wiring import Wires

CHECKOUT = Path(__file__).resolve().parents[1]
LINK = "/usr/local/bin/weft"
PIDFILE = "/run/weft/supervisor.pid"
VERSION_FILE = "src/weft/__init__.py"
NO_HISTORY = "previous version not in this checkout: upgraded from a copy of this one"
OLDER = "0.0.1"
"""The version that a copy of the present release claims where there is no history."""


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """A release on the disk. `commit`: where its sources came from; empty for the checkout's."""

    root: Path
    version: str
    commit: str = ""

    @property
    def program(self) -> str:
        return str(self.root / "bin" / "weft")

    @property
    def launcher(self) -> Path:
        return self.root / "package" / "src" / "weft" / "cni" / "launcher"


def _git(*arguments: str) -> bytes:
    """git's output, or nothing: without git, outside a checkout, in a shallow one."""
    argv = ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), *arguments]
    try:
        return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return b""


def _version(text: bytes) -> str:
    found = [line for line in text.decode().splitlines() if line.startswith("__version__")]
    return found[0].split('"')[1] if found else ""


def present_version() -> str:
    return _version((CHECKOUT / VERSION_FILE).read_bytes())


def previous_commit() -> tuple[str, str]:
    """The newest commit of another version, and that version; both empty where there is none."""
    now = present_version()
    for commit in _git("rev-list", "HEAD", "--", VERSION_FILE).decode().split():
        if _version(_git("show", f"{commit}:{VERSION_FILE}")) != now:
            return "", ""  # the present version is not committed, or came by a merge
        before = _git("rev-parse", "--verify", "--quiet", f"{commit}^").decode().strip()
        version = _version(_git("show", f"{before}:{VERSION_FILE}")) if before else ""
        if version and version != now:
            return before, version
    return "", ""


def lay_present(root: Path) -> Laid:
    """The release of this checkout's files, committed or not."""
    package = root / "package"
    for name in ("src", "native"):
        ignore = shutil.ignore_patterns("__pycache__", "launcher" if name == "src" else "")
        shutil.copytree(CHECKOUT / name, package / name, ignore=ignore)
    return _complete(root, present_version())


def lay_previous(root: Path) -> tuple[Laid, str]:
    """The release before this one, and what has to be said of it: empty, or NO_HISTORY."""
    commit, version = previous_commit()
    if commit:
        archive = _git("archive", "--format=tar", commit, "src", "native", "deploy")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            # Python before 3.11.4, Debian 12's among them, knows no filters; it is our own archive
            how: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(root / "package", **how)
        return msgspec.structs.replace(_complete(root, version), commit=commit), ""
    laid = lay_present(root)
    mark_as(laid, OLDER)
    return msgspec.structs.replace(laid, version=OLDER), NO_HISTORY


def mark_as(laid: Laid, version: str) -> None:
    """Let a copy of a release call itself another version."""
    file = laid.root / "package" / VERSION_FILE
    file.write_text(file.read_text().replace(_version(file.read_bytes()), version))


def mark_launcher(laid: Laid) -> None:
    """Let a release's launcher be no other's, also where the sources are the same."""
    with laid.launcher.open("ab") as launcher:
        launcher.write(f"\0{laid.version}".encode())


def _complete(root: Path, version: str) -> Laid:
    subprocess.run(
        [sys.executable, str(root / "package" / "native" / "compile.py")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    venv.EnvBuilder(symlinks=True).create(root)
    (site,) = (root / "lib").glob("python*/site-packages")
    present = [path for path in sys.path if path.endswith("-packages")]
    # the first line wins over an installation of weft that the present packages may hold
    (site / "release.pth").write_text("\n".join([str(root / "package" / "src"), *present]) + "\n")
    program = root / "bin" / "weft"
    program.write_text(
        f"#!{root}/bin/python\nimport sys\nfrom weft.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return Laid(root=root, version=version)


def _point(program: str) -> None:
    link = Path(LINK)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(program)


def _without_flags(line: str) -> str:
    """A line of a snapshot, without the flags of a table of ours."""
    kind, _, body = line.partition(" ")
    if kind != "table" or '"name": "weft"' not in body:
        return line
    told = json.loads(body)
    told.pop("flags", None)
    return f"{kind} {json.dumps(told, sort_keys=True)}"


class KeptHost(Host):
    """A host whose agent is that of a release, kept by deploy/weft-supervise."""

    def __init__(self, node: Node, wires: Wires, release: Laid) -> None:
        calls.call(node, private.hide, WRITTEN)
        super().__init__(node, wires)
        calls.call(node, _point, release.program)
        for path in (cluster.BINS / "weft",):
            shutil.copyfile(release.launcher, node.path(path))

    def start(self, *, wait: bool = True) -> float:
        """Start the supervisor, and with it the agent."""
        began = time.monotonic()
        self.node.path("/run/weft").mkdir(mode=0o700, exist_ok=True)
        with self.node.path(cluster.AGENT_LOG).open("ab") as log:
            self._agent = self.node.popen(
                [str(CHECKOUT / "deploy" / "weft-supervise"), PIDFILE, LINK, "agent"],
                env={"PATH": CLEAN_PATH, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.await_answer()
        return time.monotonic() - began

    def snapshot(self) -> snapshot.Snapshot:
        """Without the flags of our tables and the second guard (rp_filter) of pods' links: after a
        way back they persist, which the older release takes as they are."""
        found = super().snapshot()
        found["nftables"] = Counter(map(_without_flags, found["nftables"].elements()))
        found["sysctls"] = Counter(
            line.replace("rp_filter = 1", "rp_filter = 0") if "/wf" in line else line
            for line in found["sysctls"].elements()
        )
        return found

    def agent_pid(self) -> int:
        """The agent itself; 0 while none runs."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if int(fields[1]) == self.pid and b"agent" in words:
                    return int(entry.name)
        return 0

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End supervisor and agent."""
        if self._agent is None or self._agent.poll() is not None:
            return
        agent = self.agent_pid()
        began = start_time(agent) if agent else None
        self._agent.send_signal(how)
        self._agent.wait(timeout=20)
        if agent and start_time(agent) == began:  # the supervisor was killed, not asked
            os.kill(agent, signal.SIGKILL)

    def upgrade(self, release: Laid, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`weft upgrade` of a release, run on the node."""
        return self.release(release, "upgrade", *arguments)

    def release(self, release: Laid, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of a release, run on the node."""
        done = self.node.run(
            [release.program, *arguments],
            env={"PATH": CLEAN_PATH, "COLUMNS": "200", "NO_COLOR": "1"},
            timeout=120.0,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def versions(self) -> tuple[str, str, bytes]:
        """What runs and what lies there: the agent's version, the link, the launcher."""
        version = ""
        for line in self.weft("version").splitlines():
            if line.startswith("agent"):
                version = line.split()[1]
        link = os.readlink(self.node.path(LINK))
        return version, link, self.node.path(cluster.BINS / "weft").read_bytes()
