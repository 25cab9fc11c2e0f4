"""Kernel truth and files of one network namespace, in a form that can be compared.

`take` reads links, addresses, routes of all tables, rules, neighbours, forwarding entries,
nftables, traffic control, the sysctls that a container network may touch, and the names below
its state directories. What changes by itself (indexes, handles, counters, ages, operational
state) is left out. `diff` compares as sets, so the order of a dump means nothing, except that
a packet rule carries its position within its chain.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from weft.lab import entering
from weft.model.errors import WeftError

Snapshot = dict[str, Counter[str]]

STATE = ("/etc/cni", "/etc/weft", "/opt/cni", "/run/netns", "/run/weft", "/var/lib/cni",
         "/var/lib/weft", "/run/cni")  # fmt: skip
_IP = {
    "links": ["ip", "-j", "-d", "link", "show"],
    "addresses": ["ip", "-j", "addr", "show"],
    "routes": ["ip", "-j", "-4", "route", "show", "table", "all"],
    "routes6": ["ip", "-j", "-6", "route", "show", "table", "all"],
    "rules": ["ip", "-j", "-4", "rule", "show"],
    "rules6": ["ip", "-j", "-6", "rule", "show"],
    "neighbours": ["ip", "-j", "neigh", "show", "nud", "permanent"],
    "forwarding": ["bridge", "-j", "fdb", "show"],
    "disciplines": ["tc", "-j", "qdisc", "show"],
}
PARTS = (*_IP, "nftables", "sysctls")
"""What a snapshot holds of a network namespace."""
_NFT = ["nft", "-s", "list", "ruleset"]
_ELEMENTS = re.compile(r"elements = \{[^{}]*\}")
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_NUMBERED = re.compile(r"\b(index|ref|bind|fh|order) [0-9a-f:]+")
_FICKLE_WORDS = """
ifindex link_index link_netnsid stats stats64 handle operstate carrier carrier_changes
valid_life_time preferred_life_time used updated expires refcnt cache_info counter last packets
bytes hello_timer tcn_timer topology_change_timer gc_timer root_port bridge_id root_id
designated_bridge designated_root probes metainfo index topology_change
topology_change_detected tentative forward_delay_timer hold_timer message_age_timer
config_pending designated_port
"""
_FICKLE = frozenset(_FICKLE_WORDS.split())
_FICKLE_FLAGS = frozenset(("LOWER_UP", "NO-CARRIER", "RUNNING", "linkdown", "dead"))
_SYSCTL_WORDS = """
accept_ra accept_redirects accept_source_route accept_dad addr_gen_mode arp_announce arp_filter
arp_ignore arp_notify autoconf disable_ipv6 forwarding keep_addr_on_down log_martians proxy_arp
proxy_arp_pvlan proxy_ndp route_localnet rp_filter send_redirects
"""
_SYSCTLS = tuple(_SYSCTL_WORDS.split())
_SYSCTL_ROOT = Path("/proc/sys/net")
_GLOBAL = (
    "ipv4/ip_forward",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-arptables",
)


def take(network: str | Path = entering.OWN, state: Sequence[str | Path] = STATE) -> Snapshot:
    """The snapshot of a network namespace and of directories as the caller sees them."""
    with entering.network(network):
        found = {name: part(name) for name in PARTS if name != "nftables" or shutil.which("nft")}
        found["filters"] = filters(found["disciplines"])
    found["files"] = Counter(line for top in state for line in files(Path(top)))
    return found


def part(name: str) -> Counter[str]:
    """One of PARTS, of the namespace in which the caller is."""
    if name == "nftables":
        return rules()
    return sysctls() if name == "sysctls" else items(entering.output(entering.OWN, _IP[name]))


def items(text: str) -> Counter[str]:
    """What iproute2 printed as JSON, without what changes by itself."""
    entries = json.loads(text) if text.strip() else []
    return Counter(
        _canonical(entry)
        for entry in entries
        if entry and not _is_membership(entry) and not _is_learnt(entry)
    )


def _is_learnt(entry: dict[str, Any]) -> bool:
    """Stations that a bridge knows from what they sent, for a while."""
    return "mac" in entry and entry.get("state") == "" and "master" in entry


def _is_membership(entry: dict[str, Any]) -> bool:
    """Multicast groups that the kernel joins in a bridge's table by itself, and late."""
    return str(entry.get("mac", "")).startswith(("01:00:5e:", "33:33:"))


def _canonical(value: Any) -> str:
    return json.dumps(_settle(value), sort_keys=True)


def _settle(value: Any) -> Any:
    """Without what changes by itself."""
    if isinstance(value, dict):
        kept = {k: _settle(v) for k, v in value.items() if k not in _FICKLE}
        if "info_slave_data" in kept:  # a port that comes back has another number
            kept["info_slave_data"].pop("id", None)
            kept["info_slave_data"].pop("no", None)
        if isinstance(kept.get("flags"), list):
            kept["flags"] = sorted(f for f in kept["flags"] if f not in _FICKLE_FLAGS)
        return kept
    if isinstance(value, list):
        return [_settle(item) for item in value]
    return value


def filters(disciplines: Counter[str]) -> Counter[str]:
    """Filters at the hooks of the calling thread's network namespace, in their order, as text:
    iproute2's JSON of them is not whole."""
    said: Counter[str] = Counter()
    for line in disciplines:
        found = json.loads(line)
        if found.get("kind") in ("clsact", "ingress"):
            link = found["dev"]
            for side in ("ingress", "egress") if found["kind"] == "clsact" else ("ingress",):
                shown = _filters_of(link, side)
                said[f"{link} {side}: {_NUMBERED.sub('', shown)}"] += 1
    return said


def _filters_of(link: str, side: str) -> str:
    """Empty too where the link has gone since it was listed."""
    try:
        return entering.output(entering.OWN, ["tc", "filter", "show", "dev", link, side])
    except WeftError as error:
        if "Cannot find device" not in error.message:
            raise
        return ""


def rules() -> Counter[str]:
    """Everything of nftables in the calling thread's network namespace; as text, because nft 1.0.6
    has no word for a table's flag `persist`, and its JSON of such a table is none now and then."""
    return Counter(_ruleset(entering.output(entering.OWN, _NFT)))


def _ruleset(text: str) -> Iterator[str]:
    """Each line with its table, block and, of rules, number; each element by itself. Of a table's
    own lines only its comment: what nft 1.0.6 prints for flags that it does not know is chance."""
    table = block = ""
    position = 0
    for line in _ELEMENTS.sub(lambda found: re.sub(r"\s+", " ", found[0]), text).splitlines():
        words = line.strip()
        if line.startswith("table "):
            table = block = words.partition(" {")[0]
            position = 0
            yield table
        elif line.startswith("\t") and words.endswith("{") and not line.startswith("\t\t"):
            block, position = f"{table} {words.partition(' {')[0]}", 0
            yield block
        elif words.startswith("elements = {"):
            inside = words.removeprefix("elements = {").removesuffix("}")
            yield from (f"{block}: {each.strip()}" for each in _COMMA.split(inside))
        elif words not in ("", "}") and (block != table or words.startswith("comment ")):
            position += 1
            yield f"{block} {position}: {words}"


def is_of_blocks(line: str) -> bool:
    """Whether a line of `rules` is a block of addresses that a node keeps for its next pods."""
    return re.match(r"table inet weft set blocks[46]: ", line) is not None


def sysctls() -> Counter[str]:
    """The sysctls that count, of the calling thread's network namespace."""
    names = list(_GLOBAL)
    for family in ("ipv4", "ipv6"):
        conf = _SYSCTL_ROOT / family / "conf"
        links = sorted(os.listdir(conf)) if conf.is_dir() else ()
        names += [f"{family}/conf/{link}/{name}" for link in links for name in _SYSCTLS]
    return Counter(line for name in names if (line := _sysctl(name)))


def _sysctl(name: str) -> str:
    """Empty: not in this kernel, or not in this namespace, or the link went away."""
    try:
        with open(f"{_SYSCTL_ROOT}/{name}", "rb", buffering=0) as file:
            return f"{name} = {file.read().decode().strip()}"
    except OSError:
        return ""


def files(top: Path) -> Iterator[str]:
    """Names, kinds and modes, but not contents: counters and databases change by design."""
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory, name)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            yield f"{stat.filemode(mode)} {path}"


def diff(before: Snapshot, after: Snapshot) -> list[str]:
    """What came (+) and what went (-), one readable line each; empty when nothing changed."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, Counter()), after.get(name, Counter())
        lines += [f"- {name}: {line}" for line in sorted((old - new).elements())]
        lines += [f"+ {name}: {line}" for line in sorted((new - old).elements())]
    return lines


def settled(before: Snapshot, again: Callable[[], Snapshot], patience: float = 3.0) -> list[str]:
    """The difference once the kernel has finished what it does late; empty as soon as equal."""
    deadline = time.monotonic() + patience
    while True:
        lines = diff(before, again())
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.05)
