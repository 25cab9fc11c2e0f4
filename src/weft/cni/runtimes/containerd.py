"""containerd: config.toml of versions 1 to 4, and what it imports.

Containerd 1.x replaces a plugin's whole section by that of an imported file, 2.x merges them
(containerd pull request 9982; 1.6.20 was seen to replace). A file of version 2 may be read by
either, so where the two differ, both are told. Its `ctr run --cni` reads no settings: it looks
where everybody does.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from weft.cni.runtimes.found import NETWORKS, PLUGINS, Runtime, Tree, clean, has_program
from weft.cni.runtimes.settings import (
    Table,
    Unreadable,
    laid_over,
    load,
    number,
    table,
    text,
    texts,
)

FILE = "/etc/containerd/config.toml"
DROP_INS = "/etc/containerd/conf.d/*.toml"
"""What containerd from 2.2 on imports where nothing is said (pull request 12323)."""
SECTIONS = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""The CRI's names in files of version 1, 2, and 3 on."""
AGENT_FILE = "/agent/etc/containerd/config.toml"
"""What k3s and RKE2 write for their containerd, below their own directory."""
OFF = "its CRI is switched off by disabled_plugins: only `ctr run --cni` uses networks"
MERGING = 3
MOST_FILES = 256


def read(tree: Tree) -> Iterator[Runtime]:
    """The machine's own containerd, if there is one, and those that run with other settings."""
    if tree.text(FILE) is not None or has_program(tree, "containerd"):
        yield from described(tree, "containerd", FILE)
    for file in running(tree):
        found = described(tree, f"containerd with {file}", file)
        yield from (each for each in found if OFF not in each.notes)  # e.g. Docker's own


def running(tree: Tree) -> list[str]:
    """Other files than the usual one with which a containerd runs now (its option --config), but
    for those of k3s and RKE2, which are read by themselves."""
    found = set()
    for entry in tree.names("/proc"):
        if not entry.isdigit() or (tree.text(f"/proc/{entry}/comm") or "").strip() != "containerd":
            continue
        words = (tree.text(f"/proc/{entry}/cmdline") or "").split("\0")
        for word, after in zip(words, [*words[1:], ""], strict=True):
            option, _, value = word.partition("=")
            if option in ("-c", "--config", "-config"):
                found.add(value or after)
    others = (each for each in found if each.startswith("/") and each != FILE)
    return sorted(each for each in others if not each.endswith(AGENT_FILE))


def described(
    tree: Tree, name: str, file: str, networks: str = NETWORKS, plugins: str = PLUGINS
) -> Iterator[Runtime]:
    """A containerd that is started with `file`; `networks` and `plugins`: its defaults."""
    read_: list[str] = []
    try:
        files = list(_files(tree, file, read_))
        version = max((number(each, "version", 1) for each in files), default=MERGING)
        one = _runtimes(_merged(files, whole=False), name, read_, networks, plugins)
        other = _runtimes(_merged(files, whole=True), name, read_, networks, plugins)
        if version >= MERGING or one == other:
            other = []
        for words, several in (("1.x", other), ("2.x", one)):
            for each in several:
                new = each.name.replace(name, f"{name} {words}", 1) if other else each.name
                notes = each.notes + _wants_loopback(tree, each)
                yield msgspec.structs.replace(each, name=new, notes=notes)
    except Unreadable as error:
        problem = str(error) if file in str(error) else f"{file}: {error}"
        yield Runtime(
            name=name,
            settings=tuple(read_) or (file,),
            plugins=(plugins,),
            networks=networks,
            problem=problem,
        )


def _wants_loopback(tree: Tree, runtime: Runtime) -> tuple[str, ...]:
    """The CRI has the loopback link set up by a plugin of its own choice, 2.x unless it is told to
    do it itself (`use_internal_loopback`)."""
    if runtime.notes or any("loopback" in tree.names(each) for each in runtime.plugins):
        return ()
    where = ", ".join(runtime.plugins)
    return (
        f"there is no plugin loopback in {where}, without which its CRI starts no pod: install the "
        "reference plugins there (Debian: containernetworking-plugins)",
    )


def _files(tree: Tree, file: str, seen: list[str]) -> Iterator[Table]:
    """The file, then what it imports, breadth first, each file once."""
    waiting = [file] if tree.text(file) is not None else _matching(tree, DROP_INS)
    while waiting:
        path = waiting.pop(0)
        if path in seen or tree.text(path) is None:
            continue
        if len(seen) >= MOST_FILES:
            raise Unreadable(f"{file} imports more than {MOST_FILES} files")
        seen.append(path)
        found = load(tree, path)
        yield found
        for pattern in texts(found, "imports"):
            waiting += _matching(tree, posixpath.join(posixpath.dirname(path), pattern))


def _matching(tree: Tree, pattern: str) -> list[str]:
    """Paths that fit a shell pattern in its last part, sorted."""
    directory, last = posixpath.split(posixpath.normpath(pattern))
    if not any(each in last for each in "*?["):
        return [f"{directory}/{last}"]
    names = fnmatch.filter(tree.names(directory), last)
    return [f"{directory}/{name}" for name in names if not name.startswith(".")]


def _merged(files: Sequence[Table], *, whole: bool) -> Table:
    """The CRI's section, and whether it is switched off as `disabled`. `whole`: of the last file
    that has one."""
    cri: Table = {}
    disabled: list[str] = []
    for each in files:
        disabled += texts(each, "disabled_plugins")
        plugins = table(each, "plugins")
        for section in SECTIONS:
            if section in plugins:
                found = table(plugins, section)
                cri = found if whole else laid_over(cri, found)
    return cri | {"disabled": any(each in SECTIONS for each in disabled)}


def _runtimes(
    cri: Table, name: str, files: Sequence[str], networks: str, plugins: str
) -> list[Runtime]:
    cni = table(cri, "cni")
    directories = texts(cni, "bin_dirs") or (text(cni, "bin_dir", plugins),)
    common: dict[str, Any] = {
        "settings": tuple(files),
        "plugins": tuple(clean(each) for each in directories),
        "notes": (OFF,) if cri["disabled"] else (),
    }
    base = Runtime(
        name=name,
        networks=clean(text(cni, "conf_dir", networks)),
        count=number(cni, "max_conf_num", 1),
        **common,
    )
    found = [base]
    for handler, each in table(cri, "containerd", "runtimes").items():
        own = text(table({handler: each}, handler), "cni_conf_dir")
        if own and clean(own) != base.networks:
            count = number(each, "cni_max_conf_num", 1)
            label = f"{name}, runtime {handler}"
            found.append(Runtime(name=label, networks=clean(own), count=count, **common))
    return found
