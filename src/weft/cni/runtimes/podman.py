"""podman with its CNI backend: containers.conf and its drop-ins, the later one's values hold
(containers.conf(5)).

Podman from 5 on has no such backend, and podman 4 chooses it where Netavark is not installed or
where it chose it before, which it remembers beside its images. With Netavark it calls no plugin
and is no runtime of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.cni.runtimes.found import NETWORKS, Rule, Runtime, Tree, clean, has_program
from weft.cni.runtimes.settings import Table, Unreadable, laid_over, load, table, text, texts

FILES = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
CHOSEN = "/var/lib/containers/storage/defaultNetworkBackend"
NETAVARK = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman",
            "/usr/local/libexec/podman")  # fmt: skip
PLUGINS = ("/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni",
           "/opt/cni/bin")  # fmt: skip


def read(tree: Tree) -> Iterator[Runtime]:
    """Podman, if it is there and calls plugins."""
    if not has_program(tree, "podman"):
        return
    paths = []
    for file in FILES:
        drop_ins = [name for name in tree.names(f"{file}.d") if name.endswith(".conf")]
        paths += [file, *(f"{file}.d/{name}" for name in drop_ins)]
    files = tuple(path for path in paths if tree.text(path) is not None)
    try:
        merged: Table = {}
        for path in files:
            merged = laid_over(merged, load(tree, path))
        network = table(merged, "network")
        if _backend(tree, text(network, "network_backend")) == "cni":
            yield _described(network, files)
    except Unreadable as error:
        yield Runtime(
            name="podman",
            settings=files,
            plugins=PLUGINS,
            networks=NETWORKS,
            rule=Rule.NAMED,
            problem=str(error),
        )


def _backend(tree: Tree, told: str) -> str:
    there = any("netavark" in tree.names(place) for place in NETAVARK)
    remembered = (tree.text(CHOSEN) or "").strip()
    return told or remembered or ("netavark" if there else "cni")


def _described(network: Table, files: tuple[str, ...]) -> Runtime:
    default = text(network, "default_network", "podman")
    return Runtime(
        name="podman",
        settings=files,
        plugins=tuple(clean(each) for each in texts(network, "cni_plugin_dirs") or PLUGINS),
        networks=clean(text(network, "network_config_dir", NETWORKS)),
        rule=Rule.NAMED,
        network=default,
    )
