"""Where the sweep plays: a lab node with a real agent, two bystander pods, and two pods to strike.

The stage is made once and played on for thousands of trials, because each trial must end with
exactly what stood before it. A trial that does not is a finding, and the next one gets a new stage.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from weft.lab import calls, cluster, entering, nodes, snapshot, wiring
from weft.lab.crash import dumps, tracing
from weft.lab.crash.bystanders import Flow, Traffic
from weft.lab.crash.scope import Scope
from weft.lab.crash.tracing import Injection
from weft.lab.invocation import Call, execute
from weft.lab.nodes import CLEAN_PATH
from weft.lab.runtime import Attachment
from weft.lab.snapshot import Snapshot
from weft.model.errors import NotReady, PeerFault, WeftError
from weft.wire.api import IpamCheck, IpamShow, Nothing, decode_result, encode_params
from weft.wire.local import (
    MAX_ANSWER,
    ApiRequest,
    Frames,
    Kind,
    decode_api_answer,
    decode_api_error,
    encode_api,
)

BYSTANDERS = ("bystander-1", "bystander-2")
SUBJECTS = ("subject-1", "subject-2")
LIMITS = {"ingressRate": 10**8, "egressRate": 10**8}
"""Every pod has them, so that a link, its queues and its ifb are struck, too."""
LOG = Path("/run/crash.strace")
AGENT = cluster.agent_command()
LAUNCHER = cluster.BINS / "weft"
UNFORESEEN = ("Traceback (most recent call last)", "a request failed", "outcome=internal")
# a launcher waits that long for an ADD; a fault that keeps the agent from answering costs it whole
SETTINGS = "attach:\n  addTimeout: 3\n"
_START_LIMIT = 30.0
_TRACEBACK = 40  # lines
_MENDING = 15.0  # seconds in which an agent has its journal in order again
_AGAIN = 11  # CNI: try again later
PATIENCE = 5.0  # seconds for what kernel and agent do late
_GLIMPSES = 0.3  # seconds between two looks while a glimpse tells a difference
_ANSWER_LIMIT = 60.0
_POD_QUESTIONS = (["link"], ["addr"], ["-4", "route"], ["-6", "route"])


class Stage(Scope):
    """A node, its agent and its pods, for the length of a `with` block."""

    def __init__(self, name: str, *, bare: bool = False) -> None:
        """`bare`: without bystanders, and given back by `weft agent --teardown`: what stands
        there is what a teardown leaves, and no agent runs."""
        self._name = name
        self._bare = bare
        self.pods = SUBJECTS if bare else (*BYSTANDERS, *SUBJECTS)
        self._stack = ExitStack()
        self._agent: subprocess.Popen[bytes] | None = None
        self._read = 0  # octets of the agent's log that have been looked at
        self.bystanders: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Give everything back."""
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        wires = wiring.lay(self._name, tied=True)
        stack.callback(wiring.remove, wires)
        self.node = nodes.start(f"{self._name}-n1")
        stack.callback(nodes.stop, self.node)
        wiring.connect(wires, self.node, 0)
        calls.call(self.node, cluster._install, SETTINGS)
        self._runtime = cluster.runtime(self.node)
        stack.callback(self.kill)
        # a DEL without an agent, so that the directory of the queue is there from the beginning
        self.send("DEL", SUBJECTS[0])
        self.start()
        calls.call(self.node, _make, self.pods)
        for name in self.pods[: -len(SUBJECTS)]:
            self.bystanders[name] = self.must("ADD", name).json or {}
        self._warm_up()
        self.closed: list[str] = []  # the barrier of a bare node
        if self._bare:
            self.give_back()
            self.command("--close-boot")
            self.closed = self.barrier()
            self.give_back()
        self.traffic = stack.enter_context(Traffic(self._flows()))
        self._glimpses = list(self._open_glimpses(stack))
        self._glimpsed = [glimpse() for glimpse in self._glimpses]
        self.before = self.look()

    def _warm_up(self) -> None:
        """What a node makes once - blocks, threads, sockets - is made before anything is traced."""
        for _ in range(2):
            for name in SUBJECTS:
                self.must("ADD", name)
            self.must("GC", keep=BYSTANDERS)

    def _flows(self) -> list[Flow]:
        places = {name: str(self.node.pod_network(name)) for name in self.bystanders}
        flows = []
        for goal in self.bystanders:
            (origin,) = set(BYSTANDERS) - {goal}
            for address in addresses(self.bystanders[goal]):
                flows.append(Flow(places[origin], places[goal], address))
        return flows

    # -- calls of the launcher ------------------------------------------------------------------

    def request(
        self,
        verb: str,
        name: str = "",
        *,
        previous: Mapping[str, Any] | None = None,
        keep: Sequence[str] = (),
    ) -> tuple[dict[str, str], bytes]:
        """Environment and standard input of a call, as a runtime would make them."""
        runtime = self._runtime
        attachment = _attachment(name) if name else None
        kept = dict(previous) if previous is not None else None
        config = runtime.config(runtime.plugins[0], attachment, kept)
        if attachment is not None:
            config["runtimeConfig"] = {"bandwidth": LIMITS}
        if verb == "GC":
            valid = [{"containerID": each, "ifname": "eth0"} for each in keep]
            config["cni.dev/valid-attachments"] = valid
        return runtime.environment(verb, attachment), json.dumps(config).encode()

    def send(self, verb: str, name: str = "", **how: Any) -> Call:
        """Execute the launcher."""
        env, stdin = self.request(verb, name, **how)
        return self.deliver(env, stdin)

    def deliver(self, env: dict[str, str], stdin: bytes) -> Call:
        """Execute the launcher with a request made before."""
        return execute(self.node.run, LAUNCHER, env, stdin, _ANSWER_LIMIT)

    def deliver_traced(
        self, env: dict[str, str], stdin: bytes, injection: Injection | None = None
    ) -> Call:
        """Execute the launcher under strace; its log is `log`."""

        def spawn(
            argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
        ) -> subprocess.CompletedProcess[bytes]:
            traced = tracing.around(argv, LOG, injection)
            return self.node.run(traced, env=env, stdin=stdin, timeout=timeout)

        return execute(spawn, LAUNCHER, env, stdin, _ANSWER_LIMIT)

    def must(self, verb: str, name: str = "", **how: Any) -> Call:
        """As `send`, where nothing is done that could make it fail. What the fault before has
        broken may take the agent a moment to mend: until then it asks to try again."""
        deadline = time.monotonic() + _MENDING
        said = self.send(verb, name, **how)
        while said.code == _AGAIN and time.monotonic() < deadline:
            time.sleep(0.05)
            said = self.send(verb, name, **how)
        if said.status != 0:
            raise WeftError(f"the stage of the sweep cannot be set: {said.summary}")
        return said

    # -- the agent ------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """Where strace writes, as seen from here."""
        return self.node.path(LOG)

    @property
    def pid(self) -> int:
        assert self._agent is not None
        return self._agent.pid

    @property
    def is_running(self) -> bool:
        return self._agent is not None and self._agent.poll() is None

    def ended(self, patience: float) -> bool:
        """Whether the agent is dead by then."""
        deadline = time.monotonic() + patience
        while self.is_running and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self.is_running

    def launch(
        self,
        before: Sequence[str] = (),
        *,
        program: Sequence[str] = AGENT[:-1],
        arguments: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Begin to start an agent. `before` wraps the command; `program` is another way to run
        weft, which gets these descriptors."""
        environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with self.node.path(cluster.AGENT_LOG).open("ab") as log:
            self._agent = self.node.popen(
                [*before, *program, AGENT[-1], *arguments],
                env=environment,
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start an agent, if none runs, and wait until it serves."""
        if not self.is_running:
            self.launch()
        deadline = time.monotonic() + _START_LIMIT
        while not self.serves():
            if not self.is_running or time.monotonic() > deadline:
                raise NotReady(f"the agent does not serve:\n{self.logged()[-1500:]}")
            time.sleep(0.01)

    def command(self, *arguments: str) -> None:
        """Run `weft agent` with these to its good end."""
        self.launch(arguments=arguments)
        if not self.ended(_START_LIMIT) or self.status != 0:
            raise WeftError(f"weft agent {' '.join(arguments)}: status {self.status}")

    def give_back(self) -> None:
        """Everything but the store is taken away, by a teardown after an agent's life."""
        self.start()
        for name in SUBJECTS:
            self.must("DEL", name)
        self.kill()
        self.command("--teardown")

    @property
    def status(self) -> int | None:
        """The exit status of the agent that ran last; None while it runs."""
        return None if self._agent is None else self._agent.poll()

    def serves(self) -> bool:
        """Whether the agent answers calls."""
        with suppress(OSError, PeerFault):
            self._ask("ipam.show")
            return True
        return False

    def kill(self) -> None:
        """kill -9 of the agent; one that is gone is fine."""
        if self._agent is not None:
            if self._agent.poll() is None:
                self._agent.kill()
            self._agent.wait()

    def logged(self) -> str:
        """Everything that agents have logged on this stage."""
        return self.node.path(cluster.AGENT_LOG).read_text(errors="replace")

    def unforeseen(self) -> list[str]:
        """What the agent has logged since the last time that it must never log."""
        text = self.logged()
        fresh, self._read = text[self._read :], len(text)
        lines = fresh.splitlines()
        return [
            # a traceback is told by its end
            " / ".join(lines[at : at + _TRACEBACK])
            for at, line in enumerate(lines)
            if any(words in line for words in UNFORESEEN)
        ]

    def _ask(self, method: str) -> Any:
        """A call of the agent's API."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10.0)
            connection.connect(str(self.node.path(cluster.AGENT_SOCKET)))
            connection.sendall(
                encode_api(ApiRequest(method=method, params=encode_params(Nothing())))
            )
            frames = Frames(limit=MAX_ANSWER)
            while data := connection.recv(1 << 16):
                for frame in frames.feed(data):
                    if frame.kind == Kind.API_ERROR:
                        raise WeftError(decode_api_error(frame.payload).message)
                    return decode_result(method, decode_api_answer(frame.payload).result)
        raise PeerFault(f"the agent closed the connection instead of answering {method}")

    # -- what is there --------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Kernel and files of the node, and the kernel's side of all pods. Without the blocks of
        addresses that the node has taken from its pools: those it keeps for the next pods."""
        raw = calls.call(self.node, _look, self.pods)
        found = {name: Counter(lines) for name, lines in raw.items()}
        found["nftables"] = _without_blocks(found["nftables"])
        return found

    def left(self) -> list[str]:
        """What is not as it was before, once what the kernel does late is done. As long as a
        glimpse tells a difference, now and then a look judges it."""
        deadline = time.monotonic() + PATIENCE
        turn = time.monotonic() + _GLIMPSES
        while self.differs():
            now = time.monotonic()
            if now >= turn or now > deadline:
                lines = snapshot.diff(self.before, self.look())
                if not lines:  # different in what does not count
                    self._glimpsed = [glimpse() for glimpse in self._glimpses]
                    return []
                if now > deadline:
                    return lines
                turn = time.monotonic() + _GLIMPSES
            time.sleep(0.01)
        return []

    def differs(self) -> bool:
        """Whether anything that `look` sees may have changed. What is read fastest comes first."""
        return any(
            glimpse() != seen for glimpse, seen in zip(self._glimpses, self._glimpsed, strict=True)
        )

    def _open_glimpses(self, stack: ExitStack) -> Iterator[Callable[[], Any]]:
        """All that `look` sees, in forms that are read fast: equal only where that is equal."""
        yield stack.enter_context(dumps.Dumper(self.node.network, dumps.OF_A_NODE)).take
        for name in self.pods:
            place = self.node.pod_network(name)
            yield stack.enter_context(dumps.Dumper(place, dumps.OF_A_POD)).take
        yield lambda: [list(snapshot.files(self.node.path(top))) for top in snapshot.STATE]
        yield self.rules
        yield lambda: self._inside(snapshot.sysctls)

    def rules(self) -> Counter[str]:
        """The node's packet rules, without its blocks of addresses."""
        return _without_blocks(self._inside(snapshot.rules))

    def barrier(self) -> list[str]:
        """The packet rules as text without the flags of tables: where a kernel refuses to protect
        a table, it is loaded without protection."""
        text = entering.output(self.node.network, ["nft", "-s", "list", "ruleset"])
        lines = text.splitlines()
        return [line for line in lines if line and not line.startswith("\tflags")]

    def _inside(self, read: Callable[[], Counter[str]]) -> Counter[str]:
        with entering.network(self.node.network):
            return read()

    def ledger(self, wanted: Sequence[str]) -> list[str]:
        """What is wrong with the agent's account of addresses when these pods have them."""
        checked: IpamCheck = self._ask("ipam.check")
        shown: IpamShow = self._ask("ipam.show")
        owners = Counter(use.owner for use in shown.addresses if use.state == "used")
        held = {owner.split("/")[1]: times for owner, times in owners.items()}
        expected = {name: len(addresses(self.bystanders[BYSTANDERS[0]])) for name in wanted}
        problems = [f"ledger: {each.what} {each.address}: {each.text}" for each in checked.problems]
        if held != expected:
            problems.append(f"ledger: addresses are held by {held}, not by {expected}")
        return problems

    def pod_addresses(self, name: str) -> set[str]:
        """What the pod's own kernel has, without link-local addresses."""
        text = entering.output(self.node.pod_network(name), ["ip", "-j", "addr", "show"])
        return {
            entry["local"]
            for link in json.loads(text)
            if link and link.get("ifname") == "eth0"
            for entry in link["addr_info"]
            if entry.get("scope") != "link"
        }


def _attachment(name: str) -> Attachment:
    return Attachment(container=name, netns=f"/run/netns/{name}")


def _without_blocks(rules: Counter[str]) -> Counter[str]:
    return Counter(
        {line: times for line, times in rules.items() if not snapshot.is_of_blocks(line)}
    )


def addresses(result: Mapping[str, Any]) -> list[str]:
    """The addresses of a result, without their lengths."""
    return [ip["address"].split("/")[0] for ip in result.get("ips", ())]


def _make(names: Sequence[str]) -> None:
    for name in names:
        entering.create(Path("/run/netns", name))


def _look(pods: Sequence[str]) -> dict[str, dict[str, int]]:
    """Runs inside the node."""
    found = {name: dict(lines) for name, lines in snapshot.take().items()}
    for pod in pods:
        place = Path("/run/netns", pod)
        items: Counter[str] = Counter()
        for question in _POD_QUESTIONS:
            items += snapshot.items(entering.output(place, ["ip", "-j", *question, "show"]))
        found[f"pod {pod}"] = dict(items)
    return found
