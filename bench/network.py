"""A configuration list as libcni runs it: in order with `prevResult`, backwards for DEL.

Apart from `weft.lab.runtime`, which records every execution for tests: this one is timed, so it
does only what a runtime must. An attachment's result stays with it, as in libcni's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.execution import Course, Execution
from weft.lab.invocation import find
from weft.lab.nodes import CLEAN_PATH

Json = dict[str, Any]
CONTAINER_PORT = 8080
"""Where published ports lead to in every container."""


class Container:
    """A container's network namespace, the ports it wants, and what ADD said about it."""

    __slots__ = ("id", "path", "ports", "result")

    def __init__(self, id: str, path: str, ports: Sequence[int] = ()) -> None:
        self.id = id
        self.path = path
        self.ports = ports
        self.result: Json = {}

    def ip(self, version: int) -> str | None:
        """The address that ADD promised, without its length."""
        for entry in self.result.get("ips", ()):
            if (":" in entry["address"]) == (version == 6):
                return str(entry["address"]).split("/")[0]
        return None


class Network:
    """A list of plugins, found once."""

    def __init__(self, conflist: Mapping[str, Any], bins: str) -> None:
        self.name: str = conflist["name"]
        self._bins = bins
        self._plugins: list[tuple[str, Json]] = []
        self._publishing: set[str] = set()
        for plugin in conflist["plugins"]:
            config = {key: value for key, value in plugin.items() if key != "capabilities"}
            config |= {"cniVersion": conflist["cniVersion"], "name": self.name}
            path = str(find(plugin["type"], [Path(bins)]))
            self._plugins.append((path, config))
            if plugin.get("capabilities", {}).get("portMappings"):
                self._publishing.add(path)

    def environment(self, verb: str, container: Container | None) -> dict[str, str]:
        """The protocol's variables, and PATH for plugins that exec."""
        env = {"CNI_COMMAND": verb, "CNI_PATH": self._bins, "PATH": CLEAN_PATH}
        if container is not None:
            env |= {
                "CNI_CONTAINERID": container.id,
                "CNI_NETNS": container.path,
                "CNI_IFNAME": "eth0",
            }
        return env

    def add(self, container: Container) -> Course:
        """The course of an ADD."""
        env = self.environment("ADD", container)
        result: Json = {}
        for path, config in self._plugins:
            given = self._given(path, config, container, result)
            said = yield Execution(path, env, msgspec.json.encode(given))
            result = msgspec.json.decode(said)
        container.result = result

    def delete(self, container: Container) -> Course:
        """The course of a DEL."""
        env = self.environment("DEL", container)
        for path, config in reversed(self._plugins):
            given = self._given(path, config, container, container.result)
            yield Execution(path, env, msgspec.json.encode(given))

    def _given(self, path: str, config: Json, container: Container, previous: Json) -> Json:
        """What a runtime gives to one plugin."""
        given = {**config, "prevResult": previous} if previous else {**config}
        if container.ports and path in self._publishing:
            mappings = [
                {"hostPort": port, "containerPort": CONTAINER_PORT, "protocol": "tcp"}
                for port in container.ports
            ]
            given["runtimeConfig"] = {"portMappings": mappings}
        return given

    def once(self, verb: str, container: Container | None, **more: Any) -> Execution:
        """One request to the first plugin."""
        path, config = self._plugins[0]
        stdin = msgspec.json.encode({**config, **more})
        return Execution(path, self.environment(verb, container), stdin)
