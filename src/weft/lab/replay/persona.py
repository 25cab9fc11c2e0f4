"""What a runtime is, as far as a plugin can see: the shape of the data in `runtimes`.

Texts in braces are filled in by the player: {container}, {netns}, {ifname}, {verb}, {args} of a
call, {bin} the plugin's directory, {bins} all of them; {uuid}, {hex64} and {pid} of the container,
{ip4} an address nobody has. Every datum is from the sources named, which were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Variables = Mapping[str, str]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a datum comes from: a public repository, a path in it, and what was read there."""

    repository: str
    path: str
    what: str


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port that the container publishes, and whether the replay asks it from outside."""

    host: int
    inner: int
    address: str = ""  # of the node; empty: every one
    protocol: Literal["tcp", "udp"] = "tcp"


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the runtime does next. `says`: for people."""

    says: str


class Call(Step, frozen=True, kw_only=True):
    """One verb, for every network. `netns`: as it was given at first, or an empty text.

    `bare`: without CNI_ARGS. `kept`: what GC's list says: nobody (`null`), or this container.
    `needs`: a later verb without which there is no point in this one.
    """

    verb: str
    netns: Literal["given", "empty"] = "given"
    bare: bool = False
    kept: Literal["nobody", "this"] = "this"
    needs: str = ""


class Run(Step, frozen=True, kw_only=True):
    """The plugin executed with arguments and no CNI variable. `reads`: a function of `reading`."""

    arguments: tuple[str, ...] = ()
    reads: str


class Reserve(Step, frozen=True, kw_only=True):
    """The runtime's own process listens on the published ports. `shared`: with SO_REUSEPORT;
    `kept`: a child holds them as well, as long as the container lives."""

    shared: bool = False
    kept: bool = False


class Link(Step, frozen=True, kw_only=True):
    """The container has an interface of somebody else's already, with the default routes."""

    name: str


class Reach(Step, frozen=True, kw_only=True):
    """Traffic: the node to the container's addresses, the container to the outside, and from
    outside to its published ports."""


class Vanish(Step, frozen=True, kw_only=True):
    """The container's namespace ends."""


LIBCNI: Variables = {
    "CNI_COMMAND": "{verb}",
    "CNI_CONTAINERID": "{container}",
    "CNI_NETNS": "{netns}",
    "CNI_ARGS": "{args}",
    "CNI_IFNAME": "{ifname}",
    "CNI_PATH": "{bins}",
}
"""All six, whether they say something or not (containernetworking/cni, pkg/invoke/args.go)."""


class Persona(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime."""

    name: str
    title: str
    sources: tuple[Source, ...]
    # where it looks
    conf_file: str
    conf: Mapping[str, Any]
    bins: tuple[str, ...]
    placed: int = 0  # which of them has the plugin
    # what it says
    env: Variables = {}  # its own, inherited by the plugin
    variables: Variables = msgspec.field(default_factory=lambda: LIBCNI)
    stdin: Literal["libcni", "mesos", "file", "python"] = "libcni"
    version: str  # at which it calls weft's configuration; "": that names none
    known: str = ""  # the newest that its libcni knows, where that is another
    container: str = "{hex64}"
    netns: str = "/run/netns/{container}"
    networks: tuple[str, ...] = ("weft",)
    ifnames: tuple[str, ...] = ("eth0",)
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, Any] = {}  # passed where the plugin declares them
    ungated: Mapping[str, Any] = {}  # keys of the input of ADD, declared or not
    # how it goes about it
    program: str  # the name of the process that executes plugins
    at_once: tuple[str, ...] = ()  # verbs that go to all networks of a container in parallel
    limit: float  # seconds for all calls of one step
    steps: tuple[Step, ...]
    # what it makes of it
    reads: str  # a function of `reading`
    ports: tuple[Port, ...] = ()
    beyond: bool = True  # the container is to reach the outside
