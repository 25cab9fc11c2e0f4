"""CRI-O: crio.conf and every file of crio.conf.d, the later one's values hold (crio.conf.d(5))."""

from __future__ import annotations

from collections.abc import Iterator

from weft.cni.runtimes.found import NETWORKS, PLUGINS, Rule, Runtime, Tree, clean, has_program
from weft.cni.runtimes.settings import Table, Unreadable, laid_over, load, table, text, texts

FILE = "/etc/crio/crio.conf"
DROP_INS = "/etc/crio/crio.conf.d"


def read(tree: Tree) -> Iterator[Runtime]:
    """CRI-O, if it is there."""
    paths = [FILE, *(f"{DROP_INS}/{name}" for name in tree.names(DROP_INS))]
    files = [path for path in paths if tree.text(path) is not None]
    if not files and not has_program(tree, "crio"):
        return
    try:
        merged: Table = {}
        for path in files:
            merged = laid_over(merged, load(tree, path))
        yield _described(table(merged, "crio", "network"), tuple(files))
    except Unreadable as error:
        yield Runtime(
            name="CRI-O",
            settings=tuple(files),
            plugins=(PLUGINS,),
            networks=NETWORKS,
            rule=Rule.VALID,
            problem=str(error),
        )


def _described(network: Table, files: tuple[str, ...]) -> Runtime:
    one = text(network, "plugin_dir")  # the old form, one directory
    plugins = (*((one,) if one else ()), *texts(network, "plugin_dirs")) or (PLUGINS,)
    return Runtime(
        name="CRI-O",
        settings=files,
        plugins=tuple(dict.fromkeys(clean(each) for each in plugins)),
        networks=clean(text(network, "network_dir", NETWORKS)),
        rule=Rule.VALID,
        network=text(network, "cni_default_network"),
    )
