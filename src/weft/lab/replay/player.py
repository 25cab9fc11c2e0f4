"""Acts a runtime out: its steps against a real plugin, each of them judged.

Runs inside a lab node, in a process of its own (`room`). A step that fails is a finding and the
next one follows, as DEL follows an ADD that failed. Every execution is recorded whole.
"""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

import msgspec

from weft.lab import entering, truth
from weft.lab.conformance.case import Finding
from weft.lab.invocation import Call as Execution
from weft.lab.replay import forms, reading, traffic
from weft.lab.replay.forms import Asked, Json
from weft.lab.replay.persona import Call, Link, Persona, Reach, Reserve, Run, Step, Vanish
from weft.lab.replay.reading import Misread, Printed
from weft.lab.replay.room import Room
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses
from weft.model.errors import NotFound

GONE = "/run/netns/replay"
_UNUSED = uuid.UUID("6f1c7e52-3b0a-4d4f-9a55-2f4d2c9a7b10")


class Failed(Exception):
    """The step did not go as the runtime needs it."""


class Without(Exception):
    """The step does not apply."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a play is set in.

    `plugins`: the directory with the plugins under test; `list`: their configuration list where
    they are not weft's; `free`: an IPv4 address that nobody has; `outside`: the namespace of a
    host beyond the node; `patience`: seconds until what is left counts, None: nobody looks.
    """

    plugins: str
    list: Json | None = None
    free: str = ""
    outside: str
    patience: float | None = 3.0


class Player:
    """One runtime with one container."""

    def __init__(self, persona: Persona, scene: Scene) -> None:
        version = forms.negotiated(persona, scene.list)
        self._persona = persona = msgspec.structs.replace(persona, version=version)
        self._scene = scene
        self._room = Room()
        self._bins = [Path(self._filled(each)) for each in persona.bins]
        self._network = Path(GONE)
        self._pid = 0
        self._reserver = 0
        self._results: dict[int, Json] = {}
        self._addresses: dict[int, list[str]] = {}
        self.executions: list[Execution] = []

    # -- the stage

    def play(self) -> list[Finding]:
        """All steps; the room is cleared whatever happens."""
        persona = self._persona
        try:
            # pods of lists that are read by name, one file each
            for network in persona.networks:
                _, data = forms.configured(persona, network, self._scene.list)
                path = Path(persona.conf_file)
                self._room.write(path.with_name(path.name.replace("weft", network)), data)
            for each in self._bins:
                self._room.directory(each)
            self._room.show(Path(self._scene.plugins), self._bins[persona.placed])
            self._container()
            Path("/proc/self/comm").write_text(persona.program)
            return [self._judged(number, step) for number, step in enumerate(persona.steps, 1)]
        finally:
            self._room.clear()

    def _container(self) -> None:
        """The namespace, and a process in it where the runtime names one."""
        persona = self._persona
        named = "{pid}" in persona.netns
        where = GONE if named else persona.netns
        needs = named or "{pid}" in persona.container
        if "{pid}" in where or ("{container}" in where and "{pid}" in persona.container):
            where = GONE
        self._network = Path(self._filled(where))
        self._room.namespace(self._network)
        if needs:
            self._pid = self._room.process(self._network)

    def _filled(self, text: str, **more: str) -> str:
        name = self._persona.name
        known = {
            "hex64": hashlib.sha256(name.encode()).hexdigest(),
            "uuid": str(uuid.uuid5(_UNUSED, name)),
            "pid": str(getattr(self, "_pid", 0)),
            "ip4": self._scene.free,
        }
        known["container"] = _fill(self._persona.container, known)
        return _fill(text, known | more)

    # -- the steps

    def _judged(self, number: int, step: Step) -> Finding:
        acts: dict[type[Step], Callable[..., None]] = {
            Call: self._call,
            Run: self._run,
            Reserve: self._reserve,
            Link: self._link,
            Reach: self._reach,
            Vanish: self._vanish,
        }
        began = time.monotonic()
        verdict, reason = "pass", ""
        try:
            acts[type(step)](step)
        except Without as why:
            verdict, reason = "not applicable", str(why)
        except (Failed, Misread, NotFound) as evidence:
            verdict, reason = "fail", str(evidence)
        except (KeyError, TypeError, ValueError, AttributeError) as odd:
            verdict, reason = "fail", f"an answer of unforeseen shape: {type(odd).__name__}: {odd}"
        return msgspec.convert(
            {
                "id": f"{self._persona.name}.{number}",
                "title": step.says,
                "spec": self._persona.title,
                "verdict": verdict,
                "reason": reason,
                "seconds": round(time.monotonic() - began, 3),
            },
            Finding,
        )

    def _call(self, step: Call) -> None:
        """The verb for every network: in order, or all at once."""
        persona = self._persona
        numbers = range(len(persona.networks))
        for verb in (step.verb, step.needs):
            if not forms.asks(persona, verb):
                raise Without(f"the list has version {persona.version}, which knows no {verb}")
        if step.verb in {"VERSION", "STATUS", "GC"}:
            numbers = range(1)
        began = time.monotonic()
        if step.verb in persona.at_once:
            with ThreadPoolExecutor(len(numbers)) as workers:
                tried = list(workers.map(lambda number: self._tried(step, number), numbers))
        else:
            tried = [self._tried(step, number) for number in numbers]
        took = time.monotonic() - began
        problems = [problem for problem in tried if problem]
        if problems:
            raise Failed("; ".join(problems))
        if took > persona.limit:
            raise Failed(f"took {took:.1f} s; the runtime gives up after {persona.limit:.0f} s")

    def _tried(self, step: Call, number: int) -> str:
        try:
            self._one(step, number)
        except (Failed, Misread) as evidence:
            return str(evidence)
        return ""

    def _one(self, step: Call, number: int) -> None:
        persona = self._persona
        conf, _ = forms.configured(persona, persona.networks[number], self._scene.list)
        plugins = conf.get("plugins", [conf])
        known = self._results.get(number)
        previous = known if forms.takes_previous(persona, step.verb) else None
        for plugin in reversed(plugins) if step.verb == "DEL" else plugins:
            done = self._executed(step, number, plugin, previous)
            if done.status != 0:
                raise Failed(done.summary)
            if step.verb == "ADD":
                previous = done.json
        if step.verb == "ADD":
            self._results[number] = done.json or {}
            self._understood(done, number)
        else:
            printed = Printed(stdout=done.stdout, stderr=done.stderr, version=persona.version)
            (reading.versions if step.verb == "VERSION" else reading.nothing)(printed)
            if step.verb == "DEL":
                self._results.pop(number, None)

    def _executed(self, step: Call, number: int, plugin: Json, previous: Json | None) -> Execution:
        persona = self._persona
        asked = Asked(
            call=step,
            network=persona.networks[number],
            container=self._filled("{container}"),
            ifname=persona.ifnames[number],
            previous=previous,
        )
        if step.verb == "VERSION":
            stdin = forms.go({"cniVersion": persona.version})
        else:
            stdin = forms.FORMS[persona.stdin](persona, plugin, asked)
        program = self._found(plugin["type"])
        env = self._environment(step, number, program.parent)
        return self._spawned([str(program)], env, stdin)

    def _found(self, kind: str) -> Path:
        """The first directory that has it as a regular file."""
        for each in self._bins:
            if (each / kind).is_file():
                return each / kind
        raise Failed(f"there is no plugin {kind!r} in {', '.join(map(str, self._bins))}")

    def _environment(self, step: Call, number: int, directory: Path) -> dict[str, str]:
        persona = self._persona
        attached = step.verb in {"ADD", "DEL", "CHECK"}
        values = {
            "verb": step.verb,
            "container": self._filled("{container}") if attached else "",
            "netns": self._filled(persona.netns) if attached and step.netns == "given" else "",
            "ifname": persona.ifnames[number] if attached else "",
            "args": self._filled(";".join("=".join(pair) for pair in persona.args))
            if attached and not step.bare
            else "",
            "bin": str(directory),
            "bins": ":".join(map(str, self._bins)),
        }
        if step.verb == "VERSION":  # libcni: for plugins that ask for more than the specification
            values |= dict.fromkeys(("netns", "ifname", "bins"), "dummy")
        made = {name: _fill(pattern, values) for name, pattern in persona.variables.items()}
        return {**persona.env, **made}

    def _spawned(self, argv: Sequence[str], env: dict[str, str], stdin: bytes) -> Execution:
        """Executed to its end, killed at the runtime's limit. Mesos hands over a file."""
        began = time.monotonic()
        limit = self._persona.limit
        status: int | None
        with TemporaryFile(dir="/run") as file:
            given: dict[str, object] = {"input": stdin}
            if self._persona.stdin == "mesos":
                file.write(stdin)
                file.seek(0)
                given = {"stdin": file}
            try:
                done = subprocess.run(
                    list(argv),
                    env=env,
                    capture_output=True,
                    timeout=limit,
                    **given,  # type: ignore[call-overload]  # one of two keywords
                )
                out, err, status = done.stdout, done.stderr, done.returncode
            except subprocess.TimeoutExpired as late:
                out, err, status = late.stdout or b"", late.stderr or b"", None
        made = Execution(
            plugin=Path(argv[0]).name,
            env=env,
            stdin=stdin,
            stdout=out,
            stderr=err,
            status=status,
            seconds=round(time.monotonic() - began, 4),
        )
        self.executions.append(made)
        return made

    def _understood(self, done: Execution, number: int) -> None:
        """The result as the runtime reads it must be what the kernel has."""
        persona = self._persona
        ifname = persona.ifnames[number]
        seen = truth.addresses(self._network, ifname)
        printed = Printed(
            stdout=done.stdout,
            stderr=done.stderr,
            version=persona.version,
            ifname=ifname,
            seen=tuple(sorted(seen)),
        )
        read = reading.READERS[persona.reads](printed)
        false = set(read) - {each.partition("/")[0] for each in seen}
        if false:
            raise Failed(f"{ifname} has no {', '.join(sorted(false))}; it has {sorted(seen)}")
        wished = [value for key, value in persona.args if key == "IP" and self._scene.free]
        if wished and self._scene.free not in read:
            raise Failed(f"the address asked for, {self._scene.free}, was not given: {read}")
        self._addresses[number] = read

    def _run(self, step: Run) -> None:
        plugin = forms.configured(self._persona, "weft", self._scene.list)[0]
        kind = plugin.get("plugins", [plugin])[0]["type"]
        done = self._spawned(
            [str(self._found(kind)), *step.arguments], dict(self._persona.env), b""
        )
        if done.status != 0:
            raise Failed(done.summary)
        reading.READERS[step.reads](Printed(stdout=done.stdout, stderr=done.stderr))

    def _reserve(self, step: Reserve) -> None:
        held = []
        for port in self._persona.ports:
            stream = port.protocol == "tcp"
            kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
            made = socket.socket(socket.AF_INET, kind)
            self._room.keep(made)
            option = socket.SO_REUSEPORT if step.shared else socket.SO_REUSEADDR
            made.setsockopt(socket.SOL_SOCKET, option, 1)
            made.bind((port.address, port.host))
            if stream:
                made.listen(1)
            held.append(made.fileno())
        if step.kept:
            self._reserver = self._room.process(Path(entering.OWN), held)

    def _link(self, step: Link) -> None:
        entering.ip_batch(
            self._network,
            f"link add {step.name} type veth peer name elsewhere\n"
            f"addr add 172.17.0.2/16 dev {step.name}\n"
            f"link set {step.name} up\n"
            "link set elsewhere up\n"
            f"route add default via 172.17.0.1 dev {step.name}\n",
        )

    def _reach(self, step: Reach) -> None:
        del step
        if not self._addresses:
            raise Without("there was no container")
        problems = self._unreached(self._addresses[self._answering()])
        if self._persona.beyond:
            six = any(":" in address for each in self._addresses.values() for address in each)
            for address in (OUTSIDE_V4, *([OUTSIDE_V6] if six else [])):
                why = traffic.refusal(self._network, self._scene.outside, address, 0)
                if why:
                    problems.append(f"the container does not reach {address}: {why}")
        problems += self._unreached_ports()
        if problems:
            raise Failed("; ".join(problems))

    def _answering(self) -> int:
        """Which network's addresses are to be reached: of several that with a default route."""
        names = [route["dev"] for route in truth.routes(self._network, 4) if is_default(route)]
        routed = [n for n in self._addresses if self._persona.ifnames[n] in names]
        return min(routed or self._addresses)

    def _unreached(self, addresses: Sequence[str]) -> list[str]:
        found = []
        for address in addresses:
            why = traffic.refusal(entering.OWN, self._network, address, 0)
            if why:
                found.append(f"the node does not reach {address}: {why}")
        return found

    def _unreached_ports(self) -> list[str]:
        if not self._publishes():
            return []
        goal = node_addresses(0)[0]
        found = []
        for port in self._persona.ports:
            asked = traffic.refusal if port.protocol == "tcp" else traffic.datagram_refusal
            why = asked(self._scene.outside, self._network, goal, port.host, port.inner)
            if why:
                found.append(
                    f"the outside does not reach {goal}:{port.host}/{port.protocol}: {why}"
                )
        return found

    def _publishes(self) -> bool:
        """Whether weft is played to, or plugins of which one says that it publishes ports."""
        conf, _ = forms.configured(self._persona, "weft", self._scene.list)
        return self._scene.list is None or any(
            plugin.get("capabilities", {}).get("portMappings")
            for plugin in conf.get("plugins", [conf])
        )

    def _vanish(self, step: Vanish) -> None:
        del step
        if self._pid:
            self._room.end_process(self._pid)
        if self._reserver:
            self._room.end_process(self._reserver)
        self._room.end_namespace(self._network)


def is_default(route: Json) -> bool:
    """As iproute2 spells it."""
    return bool(route.get("dst") == "default")


def _fill(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
