"""A small container runtime: what libcni does with a network configuration list.

Plugins run in the list's order (backwards for DEL) with exactly the protocol's environment, each
gets the result of the one before, `runtimeConfig` holds the capabilities it declares, and the
final result is kept for CHECK and DEL. Every execution is recorded whole: environment, input,
output, exit status, time. The functions that alter a request for a test are in `invocation`.
Rules: CNI specification 1.1.0, sections 2 and 3.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from weft.lab.invocation import Call, Spawn, execute, find
from weft.model.errors import Invalid

KNOWN_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
VERB_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
Json = dict[str, Any]


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of one container. `netns` is the path as the plugin sees it."""

    container: str
    netns: str
    ifname: str = "eth0"
    args: str = ""
    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one verb: the executions, the chain's final result or the first error."""

    calls: tuple[Call, ...]
    result: dict[str, Any] | None = None

    @property
    def is_good(self) -> bool:
        return all(call.status == 0 for call in self.calls)

    @property
    def failure(self) -> str:
        """The first failed execution, for a person; empty when all were good."""
        return next((call.summary for call in self.calls if call.status != 0), "")

    @property
    def seconds(self) -> float:
        return sum(call.seconds for call in self.calls)


def order(version: str) -> tuple[int, ...]:
    """A version as numbers, for comparing."""
    return tuple(int(part) for part in version.split("."))


class Runtime:
    """Runs one configuration list.

    `cache`: where results are kept; `root`: the file tree of the plugins. Both as the caller
    sees them, who may stand outside of the node that `spawn` runs them in.
    """

    def __init__(
        self,
        conflist: bytes,
        bins: Sequence[Path],
        *,
        spawn: Spawn,
        cache: Path,
        root: Path = Path("/"),
        version: str | None = None,
    ) -> None:
        self.raw = conflist
        self.conflist = _list_of(conflist)
        self.bins = tuple(bins)
        self.spawn = spawn
        self.root = root
        self.cache = cache
        self.plugins: list[Json] = self.conflist["plugins"]
        self.network: str = self.conflist["name"]
        self._supported: dict[str, tuple[str, ...]] = {}
        self.version = version or self._best()

    def _best(self) -> str:
        asked: set[str] = {
            self.conflist.get("cniVersion", "0.1.0"),
            *self.conflist.get("cniVersions", ()),
        }
        both = asked & set(self.claimed()) & set(KNOWN_VERSIONS)
        if not both:
            raise Invalid(
                f"no CNI version is both in the list ({', '.join(sorted(asked))}) and spoken by "
                f"all of its plugins ({', '.join(self.claimed())})",
                field="cniVersion",
            )
        return max(both, key=order)

    def claimed(self) -> tuple[str, ...]:
        """The versions that every plugin of the chain reports."""
        sets = [set(self.supported(plugin["type"])) for plugin in self.plugins]
        return tuple(sorted(set.intersection(*sets), key=order))

    def supported(self, kind: str) -> tuple[str, ...]:
        """What one plugin answers to VERSION; a plugin without an answer speaks 0.1.0."""
        if kind not in self._supported:
            stdin = json.dumps({"cniVersion": "1.0.0"}).encode()
            call = self.execute(kind, {"CNI_COMMAND": "VERSION"}, stdin)
            answer = call.json or {}
            known = [v for v in answer.get("supportedVersions", ()) if v in KNOWN_VERSIONS]
            self._supported[kind] = tuple(known) or ("0.1.0",)
        return self._supported[kind]

    def execute(
        self, kind: str, env: Mapping[str, str], stdin: bytes, timeout: float = 60.0
    ) -> Call:
        """Run one plugin's executable with this environment and input."""
        return execute(self.spawn, find(kind, self.bins, self.root), env, stdin, timeout)

    def environment(self, verb: str, attachment: Attachment | None) -> dict[str, str]:
        """The CNI variables of a request; GC and STATUS name no attachment."""
        env = {"CNI_COMMAND": verb, "CNI_PATH": ":".join(str(path) for path in self.bins)}
        if attachment is not None:
            env["CNI_CONTAINERID"] = attachment.container
            env["CNI_NETNS"] = attachment.netns
            env["CNI_IFNAME"] = attachment.ifname
            if attachment.args:
                env["CNI_ARGS"] = attachment.args
        return env

    def config(
        self, plugin: Json, attachment: Attachment | None = None, previous: Json | None = None
    ) -> Json:
        """The request configuration of one plugin (section 3, "Deriving execution config")."""
        made = {key: value for key, value in plugin.items() if key != "capabilities"}
        made["cniVersion"] = self.version
        made["name"] = self.network
        if attachment is not None:
            declared = plugin.get("capabilities", {})
            wanted = {k: v for k, v in attachment.capabilities.items() if declared.get(k)}
            if wanted:
                made["runtimeConfig"] = wanted
        if previous is not None:
            made["prevResult"] = previous
        return made

    def _one(self, verb: str, plugin: Json, attachment: Attachment | None, config: Json) -> Call:
        stdin = json.dumps(config).encode()
        return self.execute(plugin["type"], self.environment(verb, attachment), stdin)

    def add(self, attachment: Attachment) -> Outcome:
        """ADD in order, halting at the first error; a good final result is cached."""
        calls: list[Call] = []
        result: Json | None = None
        for plugin in self.plugins:
            config = self.config(plugin, attachment, result)
            calls.append(self._one("ADD", plugin, attachment, config))
            if calls[-1].status != 0:
                return Outcome(calls=tuple(calls))
            result = calls[-1].json
        if result is not None:
            self._keep(attachment, result)
        return Outcome(calls=tuple(calls), result=result)

    def delete(self, attachment: Attachment, *, previous: bool = True) -> Outcome:
        """DEL backwards with the stored result (or, for a test, without); forgets on success."""
        stored = self.stored(attachment) if previous and order(self.version) >= (0, 4) else None
        calls: list[Call] = []
        for plugin in reversed(self.plugins):
            config = self.config(plugin, attachment, stored)
            calls.append(self._one("DEL", plugin, attachment, config))
            if calls[-1].status != 0:
                return Outcome(calls=tuple(calls))
        self._cached(attachment).unlink(missing_ok=True)
        return Outcome(calls=tuple(calls))

    def check(self, attachment: Attachment) -> Outcome:
        """CHECK in order with the stored result, halting at the first error."""
        stored = self.stored(attachment)
        calls: list[Call] = []
        for plugin in self.plugins:
            config = self.config(plugin, attachment, stored)
            calls.append(self._one("CHECK", plugin, attachment, config))
            if calls[-1].status != 0:
                break
        return Outcome(calls=tuple(calls))

    def status(self) -> Outcome:
        """STATUS in order, halting at the first error."""
        calls: list[Call] = []
        for plugin in self.plugins:
            calls.append(self._one("STATUS", plugin, None, self.config(plugin)))
            if calls[-1].status != 0:
                break
        return Outcome(calls=tuple(calls))

    def collect(self, keys: Mapping[str, Sequence[Attachment]]) -> Outcome:
        """GC in order, going on after errors; `keys`: name of the key -> attachments to keep."""
        extra = {
            key: [{"containerID": a.container, "ifname": a.ifname} for a in kept]
            for key, kept in keys.items()
        }
        calls = [
            self._one("GC", plugin, None, {**self.config(plugin), **extra})
            for plugin in self.plugins
        ]
        return Outcome(calls=tuple(calls))

    def stored(self, attachment: Attachment) -> Json | None:
        """The cached result of the attachment's ADD."""
        try:
            entry = json.loads(self._cached(attachment).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        found: Json = entry["result"]
        return found

    def _cached(self, attachment: Attachment) -> Path:
        return self.cache / f"{self.network}-{attachment.container}-{attachment.ifname}"

    def _keep(self, attachment: Attachment, result: Json) -> None:
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = {
            "kind": "cniCacheV1",
            "containerId": attachment.container,
            "config": b64encode(self.raw).decode(),
            "ifName": attachment.ifname,
            "networkName": self.network,
            "netns": attachment.netns,
            "cniArgs": [pair.split("=", 1) for pair in attachment.args.split(";") if pair],
            "capabilityArgs": attachment.capabilities,
            "result": result,
        }
        target = self._cached(attachment)
        fresh = target.with_name(f"{target.name}.tmp")
        fresh.write_text(json.dumps(entry))
        fresh.chmod(0o600)
        fresh.replace(target)


def _list_of(raw: bytes) -> Json:
    """A configuration list; a single plugin's configuration becomes a list of one."""
    try:
        found = json.loads(raw)
    except ValueError as broken:
        raise Invalid(f"the network configuration is not JSON: {broken}") from broken
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise Invalid("the network configuration has no name", field="name")
    if "plugins" not in found:
        found = {"name": found["name"], "cniVersion": found.get("cniVersion"), "plugins": [found]}
        if found["cniVersion"] is None:
            del found["cniVersion"]
    if not found["plugins"] or any("type" not in plugin for plugin in found["plugins"]):
        raise Invalid("every plugin needs a type, and there must be one", field="plugins")
    return found
