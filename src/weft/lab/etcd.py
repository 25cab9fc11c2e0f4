"""A real etcd cluster on loopback addresses of the caller's network namespace, for labs and tests.

Members are processes that are started, stopped, frozen and killed one by one; their data lies in
one directory that the caller gives and removes. Needs Debian's `etcd-server`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from weft.model.errors import NotReady, Unsupported
from weft.store.etcd.calls import Access

READY = 60.0  # seconds for a member to answer


class Etcd:
    """`members` of one cluster. A context: all of them end with it."""

    def __init__(self, directory: Path, *, members: int = 1, tls: Path | None = None) -> None:
        """`tls`: a directory with ca.pem, cert.pem, key.pem; clients must show a certificate of
        that authority."""
        self.program = _program()
        self._directory = directory
        self._tls = tls
        self._ports = [(_free_port(), _free_port()) for _ in range(members)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def scheme(self) -> str:
        return "https" if self._tls else "http"

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(f"{self.scheme}://127.0.0.1:{client}" for client, _ in self._ports)

    def access(self, **more: str) -> Access:
        """How a store reaches all members."""
        files = {}
        if self._tls:
            files = {name: str(self._tls / f"{name}.pem") for name in ("ca", "cert", "key")}
        return Access(endpoints=self.endpoints, **{**files, **more})

    def __enter__(self) -> Etcd:
        try:
            for number in range(len(self._ports)):
                self.start(number, wait=False)
            for number in range(len(self._ports)):
                self.wait(number)
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(self, number: int = 0, *, wait: bool = True, new: bool = True) -> None:
        """Start one member; with its data, where it has been before."""
        client, peer = self._ports[number]
        cluster = ",".join(f"m{n}=http://127.0.0.1:{p}" for n, (_, p) in enumerate(self._ports))
        words = [
            self.program, "--name", f"m{number}", "--data-dir", str(self.data(number)),
            "--listen-client-urls", f"{self.scheme}://127.0.0.1:{client}",
            "--advertise-client-urls", f"{self.scheme}://127.0.0.1:{client}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", cluster, "--initial-cluster-state", "new" if new else "existing",
            "--logger", "zap", "--log-level", "error", "--unsafe-no-fsync",
        ]  # fmt: skip
        if self._tls:
            words += ["--client-cert-auth", "--trusted-ca-file", str(self._tls / "ca.pem"),
                      "--cert-file", str(self._tls / "cert.pem"),
                      "--key-file", str(self._tls / "key.pem")]  # fmt: skip
        known = subprocess.run([self.program, "--help"], capture_output=True, text=True).stdout
        if "--unsafe-no-fsync" not in known:
            words.remove("--unsafe-no-fsync")
        with (self._directory / f"m{number}.log").open("ab") as log:
            self._running[number] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "GOMAXPROCS": "2"},
            )  # fmt: skip
        if wait:
            self.wait(number)

    def restore(self, copy: Path, number: int = 0) -> None:
        """Make the member's data anew from a snapshot; it must not run."""
        _, peer = self._ports[number]
        url = f"http://127.0.0.1:{peer}"
        self.ctl("snapshot", "restore", str(copy), "--data-dir", str(self.data(number)),
                 "--name", f"m{number}", "--initial-cluster", f"m{number}={url}",
                 "--initial-advertise-peer-urls", url)  # fmt: skip

    def data(self, number: int = 0) -> Path:
        """The member's data directory."""
        return self._directory / f"m{number}"

    def wait(self, number: int = 0) -> None:
        """Until the member takes part in a cluster that has a leader. Raises NotReady."""
        until = time.monotonic() + READY
        while time.monotonic() < until:
            if self._running[number].poll() is not None:
                break
            if self.ctl("endpoint", "health", member=number, check=False).returncode == 0:
                return
            time.sleep(0.1)
        said = (self._directory / f"m{number}.log").read_text(errors="replace")[-800:]
        raise NotReady(f"etcd m{number} does not come up: {said}")

    def signal(self, what: signal.Signals, number: int = 0) -> None:
        """Send a signal; after SIGKILL and SIGTERM the member is gone when this returns."""
        self._running[number].send_signal(what)
        if what in (signal.SIGKILL, signal.SIGTERM):
            self._running.pop(number).wait(READY)

    def stop_all(self) -> None:
        """End every member."""
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._running.values():
            process.wait(READY)
        self._running.clear()

    def ctl(
        self, *words: str, member: int = 0, check: bool = True, user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """etcd's own client."""
        line = ["etcdctl", "--endpoints", self.endpoints[member], "--command-timeout", "5s"]
        if self._tls:
            for option, name in (("cacert", "ca"), ("cert", "cert"), ("key", "key")):
                line += [f"--{option}", str(self._tls / f"{name}.pem")]
        if user:
            line += ["--user", user]
        environment = {"PATH": os.environ.get("PATH", ""), "ETCDCTL_API": "3"}
        done = subprocess.run(
            [*line, *words], capture_output=True, text=True, env=environment, timeout=30
        )
        if check and done.returncode:
            raise NotReady(f"etcdctl {' '.join(words)}: {done.stderr.strip()}")
        return done


def _program() -> str:
    found = shutil.which("etcd")
    if not found or not shutil.which("etcdctl"):
        raise Unsupported("no etcd here: install Debian's etcd-server and etcd-client")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
