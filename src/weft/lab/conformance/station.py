"""What every conformance test works with: pods, the chain under test, and the way back.

Runs inside the kit's own node. Tests take pods from here, so that each one is given back also
when the test fails, and build broken requests from good ones, so that exactly one thing is
wrong with each.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from weft.lab import entering, invocation, truth
from weft.lab.conformance.case import Failed, NotApplicable
from weft.lab.invocation import Call
from weft.lab.runtime import Attachment, Json, Outcome, Runtime, order
from weft.model.errors import WeftError

PODS = Path("/run/netns")
CACHE = Path("/run/kit-results")  # the kit is the runtime: its own files are nobody's leak


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """An attached pod: its namespace, its attachment, and what ADD answered."""

    network: Path
    attachment: Attachment
    outcome: Outcome

    @property
    def result(self) -> Json:
        return self.outcome.result or {}

    def addresses(self, family: int) -> list[str]:
        """The promised addresses of one family, without their lengths; any result shape."""
        return [a.split("/")[0] for a in promised(self.result) if (":" in a) == (family == 6)]


def promised(result: Mapping[str, Any]) -> list[str]:
    """All addresses of a result of any version, as `address/length`."""
    found = [entry["address"] for entry in result.get("ips", ()) if "address" in entry]
    found += [result[key]["ip"] for key in ("ip4", "ip6") if key in result]
    return found


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything; see `run.Plan`."""

    count: int = 16
    frames: int = 64
    mutants: int = 64
    limit: float = 10.0


class Station:
    """The chain under test on a node. `outside`: the namespace of a host beyond the node."""

    def __init__(
        self, conflist: bytes, bins: Sequence[Path], *, sizes: Sizes, outside: Path, node: Path
    ) -> None:
        self.conflist = conflist
        self.bins = tuple(bins)
        self.sizes = sizes
        self.count = sizes.count
        self.outside = outside
        self.node = node
        self.calls = 0
        self._number = 0
        self.runtime = self.at(None)
        self.inputs: dict[str, Json] = {}

    def at(self, version: str | None) -> Runtime:
        """The chain run at one version of the protocol; None: the best it speaks."""
        return Runtime(self.conflist, self.bins, spawn=self._spawn, cache=CACHE, version=version)

    def _spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        self.calls += 1
        return invocation.local(argv, env=env, stdin=stdin, timeout=timeout)

    def needs(self, version: str, what: str) -> None:
        """Not applicable unless the chain is run at this version or a newer one."""
        if order(self.runtime.version) < order(version):
            raise NotApplicable(f"{what} needs {version}; the chain speaks {self.runtime.version}")

    def warm_up(self) -> Outcome:
        """One ADD and DEL, so that what a chain makes once a node is not taken for a leak.

        Keeps each plugin's input, from which the tests make their broken requests.
        """
        with self.pod() as pod:
            for call in pod.outcome.calls:
                self.inputs[call.plugin] = json.loads(call.stdin)
            # duplicate address detection on what the chain made needs the pod to be there
            deadline = time.monotonic() + 4.0
            while truth.is_tentative(entering.OWN) and time.monotonic() < deadline:
                time.sleep(0.05)
            return pod.outcome

    def fresh(self, *, container: str | None = None, **fields: Any) -> Attachment:
        """An attachment that nobody has used, for a namespace that does not exist yet."""
        self._number += 1
        name = f"kit-{self._number}"
        made = container or hashlib.sha256(name.encode()).hexdigest()
        return Attachment(container=made, netns=str(PODS / name), **fields)

    @contextmanager
    def namespace(self, attachment: Attachment) -> Iterator[Path]:
        """An empty namespace for the attachment; DEL and removal when the block ends."""
        path = Path(attachment.netns)
        entering.create(path)
        try:
            yield path
        finally:
            self.runtime.delete(attachment)
            entering.remove(path)

    @contextmanager
    def pod(
        self, attachment: Attachment | None = None, runtime: Runtime | None = None
    ) -> Iterator[Pod]:
        """An attached pod, detached when the block ends."""
        wanted = attachment or self.fresh()
        with self.namespace(wanted) as path:
            outcome = (runtime or self.runtime).add(wanted)
            if not outcome.is_good:
                raise Failed(f"ADD failed: {outcome.failure}")
            if outcome.result is None and outcome.calls[-1].stdout.strip():
                raise Failed("ADD printed something that is not one JSON object")
            yield Pod(network=path, attachment=wanted, outcome=outcome)

    @contextmanager
    def pods(self, number: int) -> Iterator[list[Pod]]:
        """Several attached pods."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.pod()) for _ in range(number)]

    def request(
        self, plugin: Json, verb: str, attachment: Attachment
    ) -> tuple[dict[str, str], Json]:
        """A good request for one plugin, to be broken in one place."""
        env = self.runtime.environment(verb, attachment)
        config = self.runtime.config(plugin, attachment)
        previous = self.inputs.get(plugin["type"], {}).get("prevResult")
        if previous is not None:
            config["prevResult"] = previous
        return env, config

    def send(
        self,
        plugin: Json,
        env: Mapping[str, str],
        config: Json | bytes,
        *,
        undo: bool = False,
        timeout: float = 30.0,
    ) -> Call:
        """Send a request as it is. `undo`: an ADD that succeeds is followed by its DEL."""
        stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
        call = self.runtime.execute(plugin["type"], env, stdin, timeout)
        if undo and call.status == 0 and call.verb == "ADD":
            base = config if isinstance(config, dict) else self.runtime.config(plugin)
            again = {**base, "prevResult": call.json} if call.json else base
            self.runtime.execute(
                plugin["type"], {**env, "CNI_COMMAND": "DEL"}, json.dumps(again).encode(), timeout
            )
        return call

    def host_links(self) -> set[str]:
        """The names of the node's own links."""
        return set(truth.links(entering.OWN))

    def new_links(self, before: set[str], patience: float = 1.0) -> set[str]:
        """Links of the node that came and stay; the other end of a cable goes a little later."""
        deadline = time.monotonic() + patience
        while True:
            found = self.host_links() - before
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


def error_problems(call: Call, codes: Sequence[int] = ()) -> list[str]:
    """What is wrong with an answer that should be an error; empty when it is as specified."""
    if call.status is None:
        return [call.summary]
    if call.status == 0:
        return [f"{call.plugin} {call.verb} succeeded"]
    body = call.json
    if body is None:
        shown = call.stdout[:80].decode(errors="replace")
        return [f"{call.plugin}: standard output is not exactly one JSON object: {shown!r}"]
    problems = []
    if call.code is None:
        problems.append(f"{call.plugin}: `code` is {body.get('code')!r}")
    elif codes and call.code not in codes:
        wanted = " or ".join(str(code) for code in codes)
        problems.append(f"{call.plugin}: code {call.code}, expected {wanted} ({body.get('msg')})")
    if not isinstance(body.get("msg"), str) or not body["msg"]:
        problems.append(f"{call.plugin}: `msg` is {body.get('msg')!r}")
    if not isinstance(body.get("details", ""), str):
        problems.append(f"{call.plugin}: `details` is not a string")
    return problems


def damage(network: Path, *argv: str) -> None:
    """Change something behind the plugin's back; `argv` is an `ip` command."""
    try:
        entering.output(network, ["ip", *argv])
    except WeftError as refused:
        raise NotApplicable(f"the damage could not be done: {refused.message}") from refused
