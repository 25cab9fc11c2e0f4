"""The configurations of a directory, and which of them a runtime takes.

Rules as the runtimes have them: containerd (go-cni) loads the first `max_conf_num` files by name
and stops at one that it cannot read; CRI-O (ocicni) passes over what it cannot read and what names
plugins that are not there; podman reads lists only and calls a network by its name, the first of
two that share one. All sort names by their octets, and know the three suffixes of libcni.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from weft.cni.runtimes.found import Rule, Runtime, Tree

SUFFIXES = (".conf", ".conflist", ".json")
"""What libcni takes for a configuration (ConfFiles)."""
TYPE = "weft"
"""The plugin type by which a configuration is ours."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A file that runtimes look at. `types` is None where it is no configuration."""

    file: str
    network: str = ""
    types: tuple[str, ...] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it calls weft."""
        return TYPE in (self.types or ())


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a runtime takes. `why`: why that is not weft, empty where it is. `shadows`: the files
    that would have to go."""

    taken: tuple[str, ...] = ()
    ours: str = ""
    why: str = ""
    shadows: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse(file: str, text: str | None) -> Configuration:
    """What a file says; never raises."""
    try:
        data: Any = json.loads(text or "")
        plugins = data["plugins"] if file.endswith(".conflist") else [data]
        types = tuple(str(each["type"]) for each in plugins)
        network = str(data.get("name") or "")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return Configuration(file=file)
    return Configuration(file=file, network=network, types=types or None)


def configurations(tree: Tree, directory: str) -> list[Configuration]:
    """Every file of a directory that runtimes look at, in their order."""
    names = [name for name in tree.names(directory) if name.endswith(SUFFIXES)]
    return [parse(name, tree.text(f"{directory}/{name}")) for name in names]


def choose(
    runtime: Runtime, present: Iterable[Configuration], has: Callable[[str], bool]
) -> Choice:
    """What `runtime` takes of these configurations; `has`: whether it finds a plugin type."""
    ordered = sorted(present, key=lambda each: each.file.encode(errors="surrogateescape"))
    if not any(each.is_ours for each in ordered):
        files = tuple(each.file for each in ordered[: runtime.count or None])
        why = f"no configuration in {runtime.networks} names weft"
        return Choice(taken=() if runtime.rule is Rule.NAMED else files, why=why)
    return _RULES[runtime.rule](runtime, ordered, has)


def _first(runtime: Runtime, ordered: list[Configuration], _has: Callable[[str], bool]) -> Choice:
    ours = next(each for each in ordered if each.is_ours)
    before = tuple(each.file for each in ordered[: ordered.index(ours)])
    taken = ordered[: runtime.count or None]
    files = tuple(each.file for each in taken)
    broken = tuple(each.file for each in taken if each.types is None)
    if before:
        why = f"{runtime.networks}/{before[0]} comes before {ours.file}, and is taken"
        return Choice(taken=files, ours=ours.file, why=why, shadows=before)
    if broken:
        why = f"{runtime.networks}/{broken[0]} is no CNI configuration; {runtime.name} stops there"
        return Choice(taken=files, ours=ours.file, why=why, shadows=broken)
    further = files[1:]
    note = (f"it attaches containers to {_listed(further)}, too (max_conf_num)",)
    return Choice(taken=files, ours=ours.file, notes=note if further else ())


def _valid(runtime: Runtime, ordered: list[Configuration], has: Callable[[str], bool]) -> Choice:
    valid = [each for each in ordered if each.types and all(map(has, each.types))]
    named = [each for each in valid if runtime.network in ("", each.network)]
    ours = next((each for each in named if each.is_ours), None)
    taken = tuple(each.file for each in named[:1])
    if ours is None:
        first = next(each for each in ordered if each.is_ours)
        if first not in valid:
            why = f"{first.file} names a plugin that is not in {_listed(runtime.plugins)}"
        else:
            why = (
                f"cni_default_network is {runtime.network}, not {first.network}: set it to "
                f"{first.network} or to nothing"
            )
        return Choice(taken=taken, ours=first.file, why=why)
    before = tuple(each.file for each in named[: named.index(ours)])
    if before:
        why = f"{runtime.networks}/{before[0]} comes before {ours.file}, and is taken"
        return Choice(taken=taken, ours=ours.file, why=why, shadows=before)
    return Choice(taken=taken, ours=ours.file)


def _named(runtime: Runtime, ordered: list[Configuration], _has: Callable[[str], bool]) -> Choice:
    lists = [each for each in ordered if each.types and each.file.endswith(".conflist")]
    ours = next((each for each in lists if each.is_ours), None)
    if ours is None:
        why = "podman reads lists only, and none with the suffix .conflist names weft"
        return Choice(why=why)
    same = [each for each in lists if each.network == ours.network]
    before = tuple(each.file for each in same[: same.index(ours)])
    if before:
        why = f"{runtime.networks}/{before[0]} comes first and is called {ours.network}, too"
        return Choice(taken=before[:1], ours=ours.file, why=why, shadows=before)
    note = (
        f"containers are attached to it by `--network {ours.network}`; without, podman takes "
        f"{runtime.network} (default_network)",
    )
    notes = () if runtime.network == ours.network else note
    return Choice(taken=(ours.file,), ours=ours.file, notes=notes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


_RULES: dict[Rule, Callable[[Runtime, list[Configuration], Callable[[str], bool]], Choice]] = {
    Rule.FIRST: _first,
    Rule.VALID: _valid,
    Rule.NAMED: _named,
}
