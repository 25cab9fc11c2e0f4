"""k3s and RKE2: a containerd of their own, whose config.toml they write at each start.

Before the first start there is no such file; then what they would write is told from their own
settings (config.yaml and config.yaml.d). k3s with a flannel of its own looks into directories of
its own, and writes flannel's network there at each start; with `flannel-backend: none`, and RKE2
always, it looks where everybody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from weft.cni.runtimes import containerd
from weft.cni.runtimes.found import NETWORKS, PLUGINS, Runtime, Tree, clean, has_program

DISTRIBUTIONS = ("k3s", "rke2")
OWN_NETWORK = (
    "k3s writes the network of its own flannel at each start: set `flannel-backend: none` in "
    "/etc/rancher/k3s/config.yaml"
)


def read(tree: Tree) -> Iterator[Runtime]:
    """Both, if they are there."""
    for name in DISTRIBUTIONS:
        settings = f"/etc/rancher/{name}/config.yaml"
        try:
            told, files = _settings(tree, settings)
        except ValueError as error:
            yield Runtime(name=name, plugins=(PLUGINS,), networks=NETWORKS, problem=str(error))
            continue
        data = clean(str(told.get("data-dir") or f"/var/lib/rancher/{name}"))
        if files or tree.names(data) or has_program(tree, name):
            yield from _described(tree, name, told, data, files)


def _described(
    tree: Tree, name: str, told: dict[str, Any], data: str, files: tuple[str, ...]
) -> Iterator[Runtime]:
    networks, plugins, notes = NETWORKS, PLUGINS, ()
    file = f"{data}{containerd.AGENT_FILE}"
    if name == "k3s" and told.get("flannel-backend") != "none":
        networks, plugins = f"{data}/agent/etc/cni/net.d", _plugins(tree, data)
        notes = (OWN_NETWORK,)  # type: ignore[assignment]  # a longer tuple
    if tree.text(file) is not None:
        found = containerd.described(tree, name, file)  # it holds the directories, or wants all's
    else:
        found = iter((Runtime(name=name, networks=networks, plugins=(plugins,)),))
    for each in found:
        yield msgspec.structs.replace(
            each, settings=(*files, *each.settings), notes=(*each.notes, *notes)
        )


def _plugins(tree: Tree, data: str) -> str:
    """k3s' own directory of plugins: a fixed one from the releases of October 2024 on."""
    fixed, former = f"{data}/data/cni", f"{data}/data/current/bin"
    return former if tree.names(former) and not tree.names(fixed) else fixed


def _settings(tree: Tree, path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Their own settings and the files they are in; ValueError where one cannot be read."""
    import yaml

    paths = [path, *(f"{path}.d/{n}" for n in tree.names(f"{path}.d") if n.endswith(".yaml"))]
    told: dict[str, Any] = {}
    files = []
    for each in paths:
        text = tree.text(each)
        if text is None:
            continue
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{each} is no YAML: {error}") from error
        if found is not None and not isinstance(found, dict):
            raise ValueError(f"{each} must be a mapping")
        told |= found or {}
        files.append(each)
    return told, tuple(files)
