"""What acceptance tests stand on: a lab node under load, driven as a container runtime would.

`Host` is a lab node with launcher and agent, which a test may kill, stop and start. Loads run
inside the node, in one process that executes the launcher for every call and keeps what it said,
so that a call's time is that of the launcher and not of the lab. Namespaces of pods are made and
given back in the same place. `settled` is Invariant I: the node holds what it held before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from weft.cli import app as _loaded  # noqa: F401  # what `main` imports late
from weft.cni.install import place_launcher, write_conflist
from weft.lab import calls, cluster, entering, snapshot, truth
from weft.lab.invocation import one_object
from weft.lab.nodes import CLEAN_PATH, Node, start_time
from weft.lab.wiring import Wires
from weft.main import main

LAUNCHER = "/opt/cni/bin/weft"
NETWORK = "weft"
VERSION = "1.1.0"
READY_LIMIT = 30.0
SLACK = 5  # a time that is behaviour is asserted with fivefold slack
TABLE = "inet weft"
QUICK = ("apply", "delete", "describe", "get", "ipam", "label", "status")
"""Commands that only speak with the agent: a fork runs them, as starting Python and importing the
command line takes it ten times as long as their work. The others are started as people do."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the launcher: its CNI variables and its standard input."""

    env: dict[str, str]
    stdin: bytes

    @property
    def container(self) -> str:
        return self.env.get("CNI_CONTAINERID", "")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it. `status` None: killed at the time limit."""

    status: int | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def json(self) -> dict[str, Any] | None:
        """Standard output if it is exactly one JSON object."""
        return one_object(self.stdout)

    @property
    def code(self) -> int | None:
        return (self.json or {}).get("code")

    @property
    def addresses(self) -> list[str]:
        """The addresses of a result, without their lengths."""
        return [ip["address"].split("/")[0] for ip in (self.json or {}).get("ips", ())]

    @property
    def is_clean(self) -> bool:
        """Exactly one JSON object or nothing on success; exactly one error object on failure."""
        if self.status == 0:
            return not self.stdout or self.json is not None
        body = self.json or {}
        return (
            self.status == 1
            and isinstance(body.get("code"), int)
            and bool(body.get("msg"))
            and bool(body.get("cniVersion"))
        )


def ask(
    verb: str,
    container: str = "",
    *,
    pod: str | None = None,
    ifname: str = "eth0",
    cni_args: str = "",
    version: str | None = VERSION,
    network: str = NETWORK,
    **keys: Any,
) -> Ask:
    """A request; the pod's namespace has the container's name unless `pod` says another."""
    env = {"CNI_COMMAND": verb, "CNI_PATH": "/opt/cni/bin"}
    if container:
        env |= {
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{pod or container}",
            "CNI_IFNAME": ifname,
        }
    if cni_args:
        env["CNI_ARGS"] = cni_args
    conf: dict[str, Any] = {"name": network, "type": "weft", **keys}
    if version is not None:
        conf["cniVersion"] = version
    return Ask(env=env, stdin=json.dumps(conf).encode())


def keep(*attachments: tuple[str, str]) -> list[dict[str, str]]:
    """The value of a GC's key."""
    return [{"containerID": container, "ifname": ifname} for container, ifname in attachments]


def _execute(request: Ask, limit: float) -> tuple[int | None, bytes, bytes, float]:
    began = time.monotonic()
    try:
        done = subprocess.run(
            [LAUNCHER], env=request.env, input=request.stdin, capture_output=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return None, b"", b"", time.monotonic() - began
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


def execute_all(requests: Sequence[Ask], workers: int, limit: float) -> list[Any]:
    """Status, output, errors and seconds of each call. Runs inside the node."""
    if workers == 1:
        return [_execute(request, limit) for request in requests]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda request: _execute(request, limit), requests))


def _add_between(before: str, request: Ask, line: str) -> tuple[Any, str]:
    subprocess.run(["sh", "-c", before], check=True)
    said = _execute(request, 60.0)
    return said, subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout


def _weft(arguments: Sequence[str], environment: dict[str, str], stdin: bytes) -> list[Any]:
    """Status, output and errors of a command, in a process that has its modules already."""
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], stdin)
    os.lseek(streams[0], 0, os.SEEK_SET)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    return [status, *(os.pread(fd, os.fstat(fd).st_size, 0) for fd in streams[1:])]


def _make(names: Sequence[str]) -> None:
    for name in names:
        entering.create(Path("/run/netns", name))


def _unmake(names: Sequence[str]) -> None:
    for name in names:
        entering.remove(Path("/run/netns", name))


def _install(text: str) -> None:
    place_launcher(cluster.BINS)
    write_conflist(cluster.CONFLIST)
    cluster.SETTINGS.write_text(text)


def _snapshot() -> dict[str, dict[str, int]]:
    return {name: dict(found) for name, found in snapshot.take().items()}


class Host:
    """A node with launcher and agent. Every pod made here is given back with the node."""

    def __init__(self, node: Node, wires: Wires, settings: str = "") -> None:
        self.node = node
        self.wires = wires
        self.settings = settings
        self.environment: dict[str, str] = {}
        self.command: Sequence[str] = cluster.agent_command()
        self._agent: subprocess.Popen[bytes] | None = None
        calls.call(node, _install, settings)

    # -- the agent ------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._agent is not None
        return self._agent.pid

    @property
    def is_running(self) -> bool:
        return self._agent is not None and self._agent.poll() is None

    def start(self, *, wait: bool = True) -> float:
        """Start the agent; the seconds until it answered its first request."""
        began = time.monotonic()
        environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with self.node.path(cluster.AGENT_LOG).open("ab") as log:
            self._agent = self.node.popen(
                self.command,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.await_answer()
        return time.monotonic() - began

    def await_answer(self) -> None:
        """Until the agent answers; fails the test if it, or who keeps it, ends before."""
        deadline = time.monotonic() + READY_LIMIT
        while not self.answers():
            assert self.is_running, f"the agent, or its keeper, ended:\n{self.log()[-2000:]}"
            assert time.monotonic() < deadline, f"no answer:\n{self.log()[-2000:]}"
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether the agent answers STATUS, whatever it says."""
        socket = self.node.path(cluster.AGENT_SOCKET)
        if not socket.exists():
            return False
        said = self.send(ask("STATUS"))
        return said.status == 0 or b"agent-absent" not in said.stdout + said.stderr

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the agent and wait until it is gone."""
        if self._agent is not None:
            if self._agent.poll() is None:
                self._agent.send_signal(how)
            self._agent.wait(timeout=20)

    def restart(self) -> float:
        """kill -9 and start; the seconds until it answered."""
        self.end()
        return self.start()

    def log(self) -> str:
        return self.node.path(cluster.AGENT_LOG).read_text(errors="replace")

    @property
    def memory(self) -> int:
        """The agent's resident memory in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        raise AssertionError("the agent has no memory")

    def memory_left(self, before: float, patience: float = 5.0) -> int:
        """The agent's memory once it is no more than before, or patience is over: what a burst
        took is given back a second or two after its last request."""
        deadline = time.monotonic() + patience
        while (now := self.memory) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        return now

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def descriptors_left(self, before: int, patience: float = 5.0) -> int:
        """The agent's descriptors once there are no more than before, or patience is over.

        A caller has its answer before the agent has seen that the caller went.
        """
        deadline = time.monotonic() + patience
        while (now := self.descriptors) > before and time.monotonic() < deadline:
            time.sleep(0.02)
        return now

    # -- calls ----------------------------------------------------------------------------------

    def storm(
        self, requests: Sequence[Ask], *, workers: int = 8, limit: float = 60.0
    ) -> list[Answer]:
        """Execute the launcher once a request, in order of the list; the answers in that order."""
        patience = 120.0 + len(requests) * 2.0
        raw = calls.call(self.node, execute_all, requests, workers, limit, timeout=patience)
        return [Answer(status=a, stdout=b, stderr=c, seconds=d) for a, b, c, d in raw]

    def send(self, request: Ask, *, limit: float = 60.0) -> Answer:
        return self.storm([request], workers=1, limit=limit)[0]

    def add(self, container: str, **how: Any) -> Answer:
        """A pod with its namespace, attached; fails the test if ADD fails."""
        self.make([how.get("pod") or container])
        said = self.send(ask("ADD", container, **how))
        assert said.status == 0, f"ADD failed: {said.stdout!r} {said.stderr!r}"
        return said

    def drop(self, container: str, **how: Any) -> None:
        """DEL and removal of the namespace; fails the test if DEL fails."""
        said = self.send(ask("DEL", container, **how))
        assert said.status == 0, f"DEL failed: {said.stdout!r} {said.stderr!r}"
        self.unmake([how.get("pod") or container])

    def make(self, names: Sequence[str]) -> None:
        """Namespaces for pods."""
        calls.call(self.node, _make, list(names), timeout=120.0)

    def unmake(self, names: Sequence[str]) -> None:
        calls.call(self.node, _unmake, list(names), timeout=120.0)

    def network(self, pod: str) -> Path:
        return self.node.pod_network(pod)

    def weft(self, *arguments: str, stdin: str = "", good: bool = True) -> str:
        """What the command line prints, on the node."""
        environment = {
            "PATH": CLEAN_PATH,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        if arguments[0] in QUICK:
            status, out, err = calls.call(
                self.node, _weft, list(arguments), environment, stdin.encode(), timeout=30.0
            )
        else:
            done = self.node.run(
                [sys.executable, "-m", "weft.main", *arguments],
                env=environment,
                stdin=stdin.encode(),
            )
            status, out, err = done.returncode, done.stdout, done.stderr
        said = str(out.decode() + err.decode())
        assert (status == 0) == good, f"weft {' '.join(arguments)}: {said}"
        return said

    def apply(self, *manifests: dict[str, Any]) -> None:
        """`weft apply`."""
        text = "\n---\n".join(json.dumps(m) for m in manifests)
        self.node.path("/run/manifest.yaml").write_text(text)
        try:
            self.weft("apply", "-f", "/run/manifest.yaml")
        finally:
            self.node.path("/run/manifest.yaml").unlink()

    def shell(self, line: str) -> str:
        done = self.node.run(["sh", "-ec", line])
        assert done.returncode == 0, f"{line}: {done.stderr.decode()}"
        return done.stdout.decode()

    def shell_after_add(
        self, container: str, line: str, before: str = "true"
    ) -> tuple[Answer, str]:
        """ADD just after one command, and the output of another that runs once it has answered."""
        raw, shown = calls.call(self.node, _add_between, before, ask("ADD", container), line)
        return Answer(status=raw[0], stdout=raw[1], stderr=raw[2], seconds=raw[3]), shown

    # -- truth ----------------------------------------------------------------------------------

    @property
    def pod_links(self) -> set[str]:
        """The host ends of attachments."""
        return {name for name in truth.links(self.node.network) if name.startswith("wf")}

    def guarded(self) -> str:
        """Our table as text, for looking for an address in it."""
        return entering.output(self.node.network, ["nft", "list", "table", *TABLE.split()])

    def used(self) -> int:
        """How many addresses the agent counts as given out."""
        shown = json.loads(self.weft("ipam", "show", "-o", "json"))
        return sum(one.get("used", 0) for one in shown["pools"])

    def snapshot(self) -> snapshot.Snapshot:
        """Kernel truth and files. Without the blocks of addresses that the node has taken from
        its pools: those it keeps for the next pods."""
        raw = calls.call(self.node, _snapshot)
        found = {name: Counter(lines) for name, lines in raw.items()}
        for line in list(found["nftables"]):
            if snapshot.is_of_blocks(line):
                del found["nftables"][line]
        return found

    def settled(self, before: snapshot.Snapshot, patience: float = 5.0) -> list[str]:
        """What is different from before, once what the kernel does late is done."""
        return snapshot.settled(before, self.snapshot, patience)

    def close(self) -> None:
        """Let a stopped agent go on, so that it can be ended, and end it."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
        self.end()
        assert start_time(self.node.pid) is not None, "the node itself ended"


def warm(made: Host) -> snapshot.Snapshot:
    """Start the agent, attach and detach once; what the node holds then."""
    made.send(ask("DEL", "nobody"))  # queued, so that the queue's directory is there before
    made.start()
    made.add("warm-up")
    made.drop("warm-up")
    return made.snapshot()


@contextmanager
def compared(made: Host, before: snapshot.Snapshot) -> Iterator[Host]:
    """Fails if the agent met what it did not foresee, or the node does not hold what it held."""
    start = len(made.log())
    yield made
    said = made.log()[start:]
    for words in ("Traceback (most recent call last)", "a request failed", "outcome=internal"):
        assert words not in said, f"the agent met something unforeseen:\n{said[-3000:]}"
    left = made.settled(before)
    assert not left, "the node does not hold what it held before:\n" + "\n".join(left[:40])
    made.weft("ipam", "check")  # fails where an address has no owner, or two


@contextmanager
def watched(made: Host) -> Iterator[Host]:
    """A warm host, compared at the end."""
    with compared(made, warm(made)):
        yield made


def pool(name: str, cidr: str, **spec: Any) -> dict[str, Any]:
    """A manifest of an IPPool."""
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, **spec},
    }


def host_link(container: str, *, network: str = NETWORK, ifname: str = "eth0") -> str:
    """The name of an attachment's host end, as documented for people and written here apart."""
    digest = _digest(container, network, ifname)
    return "wf" + base64.b32encode(digest[:10]).decode().lower()[:13]


def pod_mac(container: str, *, network: str = NETWORK, ifname: str = "eth0") -> str:
    """The hardware address of an attachment's interface, likewise."""
    return "0a:" + _digest(container, network, ifname)[10:15].hex(":")


def _digest(container: str, network: str, ifname: str) -> bytes:
    return hashlib.sha256("\0".join((network, container, ifname)).encode()).digest()


def problems(answers: Sequence[Answer], *, status: int = 0, code: int | None = None) -> list[str]:
    """Answers that are not what was expected, in words; at most five."""
    found = []
    for number, said in enumerate(answers):
        good = said.status == status and said.is_clean and (code is None or said.code == code)
        if not good:
            shown = said.stdout[:300].decode(errors="replace")
            found.append(f"#{number}: status {said.status} in {said.seconds:.2f} s: {shown}")
    return found[:5] + ([f"and {len(found) - 5} more"] if len(found) > 5 else [])
