"""What is measured inside a node: a CNI network, one attachment at a time or many at once.

A worker holds one `Side`. Namespaces are made before a block of samples and given back after the
benchmark, because the kernel tears namespaces down in the background and would disturb the next
sample.
"""

from __future__ import annotations

import subprocess
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench import execution, remains
from bench.network import Container, Network
from bench.reach import Listener
from weft.lab import entering, rates
from weft.model.errors import WeftError

PODS = Path("/run/netns")
PATIENCE = 10.0
WIDTH = 16
_LOOK_AGAIN = 0.0001
_FIRST_PORT, _LAST_PORT = 10_000, 32_000
"""Host ports of containers, given out in turn: above the agent's own, below those that connections
get by themselves."""


class Side:
    """A network on this node. `agent`: process id of weft's agent; 0 for a chain without one."""

    def __init__(
        self, conflist: dict[str, Any], bins: str, agent: int, addresses: list[str]
    ) -> None:
        self.network = Network(conflist, bins)
        self.agent = agent
        self._addresses = addresses
        self._listener = Listener(addresses)
        self._elements = remains.Elements() if agent else None
        self._host = remains.probe_socket()
        self._made = 0
        self._standing = 0  # elements of containers that stay attached
        self._port = self._first_port = _FIRST_PORT
        self._fresh: list[Container] = []
        self._used: list[Container] = []

    # -- namespaces

    def prepare(self, count: int) -> None:
        """Make as many namespaces as the next block needs."""
        while len(self._fresh) < count:
            self._made += 1
            name = f"bench-{self._made}"
            path = entering.create(PODS / name)
            self._fresh.append(Container(f"{name:x>64}", str(path)))

    def _take(self, ports: int = 0) -> Container:
        container = self._fresh.pop()
        if self._port + ports > _LAST_PORT:
            self._port = self._first_port
        container.ports = range(self._port, self._port + ports)
        self._port += ports
        self._used.append(container)
        return container

    def drop(self) -> None:
        """Give all namespaces back."""
        for container in [*self._fresh, *self._used]:
            entering.remove(Path(container.path))
        self._fresh, self._used = [], []

    # -- one after the other

    def block(self, count: int, check: bool, ports: int = 0) -> dict[str, list[float]]:
        """ADD and DEL of a container with so many host ports, `count` times: seconds of ADD, of
        DEL to its answer, and until all is gone. `check`: the first must be able to talk."""
        self.prepare(count)
        times: dict[str, list[float]] = {"add": [], "del": [], "gone": []}
        for number in range(count):
            container = self._take(ports)
            begin = time.perf_counter()
            execution.follow(self.network.add(container))
            times["add"].append(time.perf_counter() - begin)
            if check and number == 0:
                self._listener.hear(container)
                if ports:
                    self._listener.reach(container)
            watched = remains.Watched(container, self._host)
            begin = time.perf_counter()
            execution.follow(self.network.delete(container))
            times["del"].append(time.perf_counter() - begin)
            self._wait_gone(watched, container, check or not self._standing)
            times["gone"].append(time.perf_counter() - begin)
            watched.close()
        return times

    def _wait_gone(self, watched: remains.Watched, container: Container, count: bool) -> None:
        """`count`: look at the elements, too, which takes long where many containers stay."""
        deadline = time.perf_counter() + PATIENCE
        while watched.stands() or (self.agent and remains.is_sending(self.agent)):
            if time.perf_counter() > deadline:
                raise WeftError(f"{container.id}: its links still stand {PATIENCE:.0f} s after DEL")
            time.sleep(_LOOK_AGAIN)
        if self._elements is None or not count:
            return
        if left := self._elements.count() - self._standing:
            raise WeftError(f"{container.id}: {left} elements are left after DEL")

    # -- many at once

    def burst(self, count: int, width: int) -> dict[str, Any]:
        """`count` ADDs at once, then as many DELs; what is left one second after the last."""
        added = self.attach(count, width)
        removed = self.detach(width)
        removed["left"] = self._left_after(1.0)
        return {"add": added, "del": removed}

    def stay(self, count: int, ports: int, width: int) -> dict[str, Any]:
        """As `attach`, and what is measured after it is measured beside them."""
        done = self.attach(count, width, ports)
        if self._elements is not None:
            self._standing = self._elements.count()
        self._first_port = self._port
        return done

    def attach(self, count: int, width: int, ports: int = 0) -> dict[str, Any]:
        """ADDs at once; some of the containers must be able to talk."""
        self.prepare(count)
        mine = [self._take(ports) for _ in range(count)]
        done = execution.race((self.network.add(each) for each in mine), width)
        if not done.failures:
            for container in mine[:: max(1, count // 5)]:
                self._listener.hear(container)
                if ports:
                    self._listener.reach(container)
        return done._asdict()

    def talk(self) -> None:
        """Raise WeftError unless one of the containers that are attached can talk."""
        self._listener.hear(next(each for each in self._used if each.result))

    def stream(
        self, protocol: str, version: int, inwards: bool, rate: int, seconds: float, windows: int
    ) -> list[tuple[float, float]]:
        """A stream between this node and the container that is attached, as `lab.rates` counts
        it: bits a second of IP packets and of what programs get, of each window."""
        container = next(each for each in self._used if each.result)
        own = next(each for each in self._addresses if (":" in each) == (version == 6))
        ends = (entering.OWN, container.path) if inwards else (container.path, entering.OWN)
        stream = rates.Stream(
            origin=ends[0],
            goal=ends[1],
            address=(container.ip(version) or "") if inwards else own,
            protocol=protocol,
        )
        said = [rates.measure(stream, rate, seconds=seconds) for _ in range(windows)]
        return [(each.packets, each.payload) for each in said]

    def attached(self) -> list[dict[str, Any]]:
        """Namespace, addresses by family and host ports of every container that is attached."""
        return [
            {"path": each.path, "ips": {str(v): each.ip(v) for v in (4, 6)},
             "ports": list(each.ports)}
            for each in self._used if each.result
        ]  # fmt: skip

    def words(self) -> dict[str, str]:
        """The link, addresses and hardware address of one container that is attached."""
        of = next(each for each in self._used if each.result)
        host, pod = of.result["interfaces"]
        found = {"link": host["name"], "mac": pod["mac"], "four": of.ip(4), "six": of.ip(6)}
        return {name: str(value) for name, value in found.items()}

    def churn(self, count: int, width: int) -> dict[str, Any]:
        """As many ADDs, in turn with the DELs of all that is attached; one must be able to talk."""
        self.prepare(count)
        old = [each for each in self._used if each.result]
        new = [self._take() for _ in range(count)]
        courses: list[execution.Course] = []
        for leaving, coming in zip_longest(old, new):
            courses += [self.network.delete(leaving)] if leaving else []
            courses += [self.network.add(coming)] if coming else []
        done = execution.race(courses, width)
        for container in old:
            self._used.remove(container)
            entering.remove(Path(container.path))
        if not done.failures and new:
            self._listener.hear(new[-1])
        return done._asdict()

    def adds_beside(self, count: int, ports: int) -> list[float]:
        """Seconds of ADDs without ports that go on in turn with ADDs that have so many, two
        programs at a time; what has ports stays."""
        plain: list[float] = []
        laden: list[Container] = []
        courses: list[execution.Course] = []
        for _ in range(count):
            laden.append(self._take(ports))
            courses += [self._timed(self._take(), plain), self.network.add(laden[-1])]
        done = execution.race(courses, 2)
        if done.failures:
            raise WeftError(f"{len(done.failures)} ADDs failed: {done.failures[0]}")
        self._listener.reach(laden[-1])
        self._detach_but(laden)
        return plain

    def adds_while(self, command: list[str], most: int) -> list[float]:
        """Seconds of ADDs, one after the other, as long as a command runs; it must succeed. What
        they have attached is detached again, and all that stood before stands."""
        before = [each for each in self._used if each.result]
        taken: list[float] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as load:
            while load.poll() is None:
                if len(taken) < most:
                    execution.follow(self._timed(self._take(), taken))
            said = load.communicate()[0].decode(errors="replace")
        if load.returncode != 0:
            raise WeftError(f"{command} failed: {said[-300:]}")
        self._detach_but(before)
        if self._elements is not None and (left := self._elements.count() - self._standing):
            raise WeftError(f"{left} elements too many beside {command}")
        return taken

    def _timed(self, container: Container, into: list[float]) -> execution.Course:
        begin = time.perf_counter()
        yield from self.network.add(container)
        into.append(time.perf_counter() - begin)

    def _detach_but(self, kept: list[Container]) -> None:
        """DEL of all but some; what is counted as left from now on is beside these."""
        gone = [each for each in self._used if each.result and each not in kept]
        done = execution.race((self.network.delete(each) for each in gone), WIDTH)
        if done.failures:
            raise WeftError(f"{len(done.failures)} DELs failed: {done.failures[0]}")
        for container in gone:
            container.result = {}
        if kept and not self._standing and self._elements is not None:
            self._standing = self._elements.count()
            self._first_port = self._port

    def detach(self, width: int) -> dict[str, Any]:
        """DEL of everything that is attached."""
        mine = [each for each in self._used if each.result]
        done = execution.race((self.network.delete(each) for each in mine), width)
        for container in mine:
            container.result = {}
        self._standing = 0
        self._first_port = _FIRST_PORT
        return done._asdict()

    def _left_after(self, seconds: float) -> list[str]:
        time.sleep(seconds)
        left = [f"link {name}" for name in remains.host_links()]
        if self._elements is not None and (count := self._elements.count()):
            left.append(f"{count} elements")
        return left

    # -- other requests

    def serves(self) -> bool:
        """Whether STATUS succeeds now."""
        asked = self.network.once("STATUS", None, cniVersion="1.1.0")
        return execution.answer(asked)[0] == 0

    def request(self, verb: str, count: int, more: dict[str, Any]) -> list[tuple[float, int, int]]:
        """One request `count` times: seconds, exit status, error code (0: none)."""
        self.prepare(count)
        answers = []
        for number in range(count):
            container = None if verb in ("GC", "STATUS") else self._fresh[number]
            run = self.network.once(verb, container, **more)
            begin = time.perf_counter()
            status, said = execution.answer(run)
            took = time.perf_counter() - begin
            answers.append((took, status, _code(said)))
        return answers


def _code(said: bytes) -> int:
    import json

    try:
        return int(json.loads(said)["code"])
    except (ValueError, KeyError, TypeError):
        return 0
