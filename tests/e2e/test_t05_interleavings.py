"""T05: ADD, DEL and CHECK for one attachment from eight workers at once, through the launcher.

CNI forbids runtimes to do this, and they do when they restart or time out.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from acceptance import LAUNCHER, Ask, Host, ask, host_link
from histories import BUSY, Op, State, problems
from weft.lab import calls

WORKERS = 8
SEED = 5
ROUNDS_AT_ONCE = 200
_POD = "pod"


class _Round:
    """What eight workers do at once: each one call, begun at a random moment."""

    def __init__(self, dice: random.Random, latest: dict[str, Any]) -> None:
        self.plan = [
            (dice.choices(("ADD", "DEL", "CHECK"), (5, 4, 2))[0], dice.random() * 0.006)
            for _ in range(WORKERS)
        ]
        self.latest = latest
        self.barrier = threading.Barrier(WORKERS)
        self.said: list[list[Any]] = []

    def play(self) -> list[list[Any]]:
        workers = [threading.Thread(target=self._work, args=each) for each in self.plan]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.said

    def _work(self, verb: str, pause: float) -> None:
        known = self.latest.get("result")
        if verb == "CHECK" and known is None:
            verb = "DEL"
        request: Ask = ask(verb, _POD, **({"prevResult": known} if verb == "CHECK" else {}))
        self.barrier.wait()
        time.sleep(pause)
        begin = time.monotonic()
        done = subprocess.run(
            [LAUNCHER], env=request.env, input=request.stdin, capture_output=True, timeout=60
        )
        end = time.monotonic()
        body = json.loads(done.stdout) if done.stdout else {}
        if verb == "ADD" and done.returncode == 0:
            self.latest["result"] = body
        about = known if verb == "CHECK" else body
        code = 0 if done.returncode == 0 else body.get("code", -1)
        self.said.append([verb, begin, end, code, _addresses(about)])


def _addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"].split("/")[0] for ip in result.get("ips", ())]


def _state(link: str) -> list[str] | None:
    """The addresses in the record of the link, as the kernel has it. Asked by name first: files
    of a link that is gone are taken down a little later."""
    try:
        socket.if_nametoindex(link)
        return Path(f"/sys/class/net/{link}/ifalias").read_text().split(" ")[6].strip().split(",")
    except OSError:
        return None


def _rounds(first: int, count: int, link: str) -> list[Any]:
    """Runs inside the node."""
    latest: dict[str, Any] = {}
    found = []
    for number in range(first, first + count):
        history = _Round(random.Random(f"{SEED}/{number}"), latest).play()
        found.append([history, _state(link)])
    return found


def _op(raw: list[Any]) -> Op:
    verb, begin, end, code, addresses = raw
    return Op(verb=verb, begin=begin, end=end, code=code, addresses=tuple(addresses))


@pytest.mark.matrix(id="T05", full=10_000, reduced=100)
def test_calls_at_once_for_one_attachment_end_as_if_one_had_followed_the_other(
    host: Host, count: int
) -> None:
    """Every round's answers and its end have a right order; DEL overtakes ADDs that wait."""
    witness = set(host.add("witness").addresses)
    host.make([_POD])
    state: State = None
    overtaken = attached = 0
    for first in range(0, count, ROUNDS_AT_ONCE):
        rounds = min(ROUNDS_AT_ONCE, count - first)
        raw = calls.call(host.node, _rounds, first, rounds, host_link(_POD), timeout=600.0)
        for number, (said, ended) in enumerate(raw, first):
            history = [_op(each) for each in said]
            found = tuple(ended) if ended is not None else None
            wrong = problems(history, state, found)
            assert not wrong, f"round {number} (seed {SEED}) from {state}: {wrong}\n{history}"
            assert not witness & {a for op in history if op.verb == "ADD" for a in op.addresses}
            overtaken += sum(op.verb == "ADD" and op.code == BUSY for op in history)
            attached += found is not None
            state = found
    print(f"seed {SEED}: {overtaken} ADDs were overtaken, {attached} rounds ended attached")
    assert 0 < attached < count, "the rounds do not end differently, so nothing is proven"
    assert overtaken > 0, "no DEL ever overtook an ADD, so nothing is proven"
    host.drop(_POD)
    host.drop("witness")
