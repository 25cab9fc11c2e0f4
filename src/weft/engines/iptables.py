"""Legacy iptables: what it holds, as text, where a kernel has tables of it in use.

Its rules are not to be seen in nftables, and nothing announces their changes. Asking the programs
is left out wherever the kernel has no such table in this namespace, so nothing is loaded by asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.engines import programs
from weft.model.errors import Unsupported

VERSIONS = {4: "ip", 6: "ip6"}
PROC = Path("/proc/thread-self/net")  # that of the thread's namespace
MODULES = Path("/proc/modules")


def tables(version: int) -> tuple[str, ...]:
    """Names of the legacy tables that this namespace has."""
    try:
        return tuple((PROC / f"{VERSIONS[version]}_tables_names").read_text().split())
    except OSError:  # the kernel has none, or not this family
        return ()


def bridge_tables() -> tuple[str, ...]:
    """Legacy tables of ebtables that the kernel has loaded, for whichever namespace: one that is
    asked for is made by asking, so they are not asked for."""
    try:
        loaded = MODULES.read_text()
    except OSError:  # a kernel without modules
        return ()
    return tuple(
        sorted(
            name
            for line in loaded.splitlines()
            if (name := line.partition(" ")[0]).startswith("ebtable_")
        )
    )


def saved(version: int) -> str | None:
    """The rules as `iptables-save` writes them, "" where there are none; None where no program here
    can tell. Raises PeerFault."""
    if not tables(version):
        return ""
    family = VERSIONS[version]
    for name in (f"{family}tables-legacy-save", f"{family}tables-save"):
        try:
            text = programs.run([name])
        except Unsupported:
            continue
        if "(nf_tables)" not in text.partition("\n")[0]:
            return text
    return None


def change(commands: Sequence[Sequence[str]]) -> None:
    """Run the commands one after the other. Raises PeerFault, Unsupported."""
    for command in commands:
        try:
            programs.run(command)
        except Unsupported:  # a host that has nothing but legacy iptables, under its old name
            programs.run([command[0].replace("-legacy", ""), *command[1:]])
