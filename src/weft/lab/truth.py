"""What the kernel says about one network namespace, in the few questions that tests ask.

Asked with iproute2's JSON, which is another implementation than the encoders under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weft.lab import entering

Json = dict[str, Any]


def _ask(network: str | Path, *argv: str) -> list[Json]:
    text = entering.output(network, ["ip", "-j", *argv])
    return [entry for entry in json.loads(text or "[]") if entry]


def links(network: str | Path) -> dict[str, Json]:
    """Every link by its name, with details."""
    return {link["ifname"]: link for link in _ask(network, "-d", "link", "show")}


def addresses(network: str | Path, ifname: str) -> set[str]:
    """The interface's addresses as `address/length`, without link-local ones."""
    found = set()
    for link in _ask(network, "addr", "show"):
        if link.get("ifname") == ifname:
            for entry in link["addr_info"]:
                if entry.get("scope") != "link":
                    found.add(f"{entry['local']}/{entry['prefixlen']}")
    return found


def routes(network: str | Path, family: int) -> list[Json]:
    """The main table of one family (4 or 6); `default` is spelled as such."""
    return _ask(network, f"-{family}", "route", "show")


def neighbours(network: str | Path) -> dict[tuple[str, str], str]:
    """(interface, address) -> hardware address, of all entries that have one."""
    return {
        (entry["dev"], entry["dst"]): entry["lladdr"]
        for entry in _ask(network, "neigh", "show")
        if "lladdr" in entry
    }


def is_up(network: str | Path, ifname: str) -> bool:
    """Whether the interface is there and administratively up."""
    return "UP" in links(network).get(ifname, {}).get("flags", ())


def is_tentative(network: str | Path) -> bool:
    """Whether an address of an interface that is up still waits for duplicate detection."""
    return any(
        entry.get("tentative")
        for link in _ask(network, "addr", "show", "up")
        if "LOWER_UP" in link["flags"]
        for entry in link["addr_info"]
    )
