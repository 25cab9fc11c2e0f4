"""The few global sysctls that a routing node needs, and giving them back.

Forwarding goes on only after the ruleset stands. An uplink that learns its IPv6 routes from router
advertisements (accept_ra 1) stops to do so when forwarding goes on, so it is moved to accept_ra 2
first. What was there before is kept (`agent.given`); `give_back` restores a value only if it is
still the one we wrote. Source: Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Protocol

from weft.agent.events import Log
from weft.kernel import sysctl
from weft.kernel.host import HostLink
from weft.model.errors import KernelRefused

FORWARD4 = "net/ipv4/ip_forward"
FORWARD6 = "net/ipv6/conf/all/forwarding"
_DEVICES = ("", "bond", "team", "vlan")  # IFLA_INFO_KIND


class Memory(Protocol):
    """Who keeps the values before us."""

    def remember(self, path: str, before: str, wrote: str) -> None:
        """A sysctl that is about to be changed. Raises WeftError if it cannot be kept."""

    def remembered(self) -> list[tuple[str, str, str]]:
        """(path, value before, value we wrote) of every sysctl that we changed."""


def accept_ra(link: str) -> str:
    """The sysctl of a link's router advertisements."""
    return f"net/ipv6/conf/{link}/accept_ra"


def wanted(links: Iterable[str], *, ipv4: bool, ipv6: bool, ours: bool) -> list[tuple[str, str]]:
    """(path, value) to write, in order.

    `links`: the uplinks. `ours`: the node did not forward IPv6 before us; otherwise its links have
    not accepted advertisements anyway, unless somebody said 2.
    """
    writes: list[tuple[str, str]] = []
    if ipv6:
        if ours:
            writes += [
                (accept_ra(link), "2") for link in links if sysctl.read(accept_ra(link)) == "1"
            ]
        writes.append((FORWARD6, "1"))
    if ipv4:
        writes.append((FORWARD4, "1"))
    return writes


def uplinks(links: Iterable[HostLink], ways_out: Iterable[str]) -> list[str]:
    """Links whose advertisements are worth believing: the machine's own devices, what bundles or
    divides them, and whatever a default route leads to. Not bridges, veths and the like, behind
    which there may be containers."""
    used = set(ways_out)
    return [
        link.name
        for link in links
        if link.name != "lo" and (link.kind in _DEVICES or link.name in used)
    ]


def is_ours(memory: Memory) -> bool:
    """Whether it is we who switched, or are about to switch, IPv6 forwarding on."""
    if sysctl.read(FORWARD6) == "0":
        return True
    return any(path == FORWARD6 for path, _, _ in memory.remembered())


def switch_on(memory: Memory, writes: Iterable[tuple[str, str]], links: Iterable[str]) -> list[str]:
    """Write what is not so already, remembering what was there. Returns the paths written.

    Raises KernelRefused for a file that cannot be written.
    """
    names = (*links, "default")
    written = []
    for path, value in writes:
        before = sysctl.read(path)
        if before is None or before == value:
            continue
        for other in _carried_along(path, names):
            memory.remember(*other)
        memory.remember(path, before, value)
        for _, code in sysctl.write([sysctl.message(path, value)]):
            raise KernelRefused(code, f"write {value} to", f"/proc/sys/{path}")
        written.append(path)
    return written


def shut(links: Iterable[str]) -> frozenset[str]:
    """sysctls of links that do not forward IPv4 although the node does: somebody wants it so.

    Empty where the node does not forward: then nothing can be told.
    """
    if sysctl.read(FORWARD4) != "1":
        return frozenset()
    return frozenset(
        path for link in (*links, "default") if sysctl.read(path := forwarding4(link)) == "0"
    )


def keep_shut(paths: Iterable[str], written: Iterable[str]) -> list[str]:
    """Switching the node's forwarding on has opened every link: shut those again that were so
    before somebody switched it off. Returns the paths written."""
    return _write([(path, "0") for path in paths]) if FORWARD4 in written else []


def open_ways_out(given: Memory, links: Iterable[str]) -> list[str]:
    """Where forwarding is of our making, a way out that was shut since is damage: containers would
    get no answers. What forwarded before us is its owner's. Returns the paths written."""
    if all(path != FORWARD4 for path, _, _ in given.remembered()):
        return []
    return _write([(forwarding4(link), "1") for link in links])


def forwarding4(link: str) -> str:
    """The sysctl that says whether what comes in by a link is forwarded."""
    return f"net/ipv4/conf/{link}/forwarding"


def _write(writes: Iterable[tuple[str, str]]) -> list[str]:
    """Write what is not so already, where there is such a file."""
    written = []
    for path, value in writes:
        if sysctl.read(path) not in (None, value) and not sysctl.write(
            [sysctl.message(path, value)]
        ):
            written.append(path)
    return written


def _carried_along(path: str, links: Iterable[str]) -> list[tuple[str, str, str]]:
    """What the kernel changes too when forwarding is switched off again: links that forwarded by
    themselves, and the node's will to be redirected. Remembered as (path, before, before)."""
    if path not in (FORWARD4, FORWARD6):
        return []
    family = "ipv4" if path == FORWARD4 else "ipv6"
    kept = [(f"net/{family}/conf/{link}/forwarding", "1") for link in links]
    if path == FORWARD4:
        kept.append(("net/ipv4/conf/all/accept_redirects", "0"))
    return [(other, value, value) for other, value in kept if sysctl.read(other) == value]


def give_back(remembered: Iterable[tuple[str, str, str]], log: Log) -> list[str]:
    """Restore every value that is still ours: forwarding, what it carries along, accept_ra.

    Returns the paths that could not be restored. Given again, it goes on where it was cut short.
    """
    restored = False
    failed = []
    for path, before, wrote in sorted(remembered, key=_rank):
        carried = before == wrote
        if carried and not restored:
            continue  # forwarding was left as it is, so nothing was carried along
        try:
            found = sysctl.read(path)
        except KernelRefused as error:
            log.line("warning", "cannot read a sysctl", path=path, errno=error.errno)
            failed.append(path)
            continue
        if not carried and found not in (wrote, before):
            log.line("info", "left a sysctl that somebody else has changed", path=path)
            continue
        for _, code in sysctl.write([sysctl.message(path, before)]) if found != before else ():
            if code not in (errno.ENOENT, errno.EINVAL):
                log.line("warning", "cannot restore a sysctl", path=path, errno=code)
                failed.append(path)
        restored = restored or (path in (FORWARD4, FORWARD6) and path not in failed)
    return failed


def _rank(item: tuple[str, str, str]) -> tuple[bool, bool]:
    path, before, wrote = item
    return "accept_ra" in path, before == wrote
