"""What `weft doctor` judges about the host: kernel, forwarding, other networks, room, clock.

Each check is a function of the machine that gives findings; the table is at the end. Nothing is
loaded, written or tried out: a kernel feature counts as there when its symbol or its module is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from weft.cli.machine import Machine
from weft.model.addresses import Prefix
from weft.model.attachment import LINK_PREFIX
from weft.model.kernel_features import BANDWIDTH, BRIDGED, NEEDED, missing
from weft.model.kernel_release import unsupported
from weft.wire.api import Finding

ROOM = {"/run": "/run/weft", "/var/lib": "/var/lib/weft"}
LITTLE, TOO_LITTLE = 64 << 20, 8 << 20  # octets
FEW_FILES = 1000
OLDEST_TIME = 1_735_689_600  # 2025-01-01: no release of weft is older


def kernel_features(machine: Machine) -> Iterator[Finding]:
    """What the kernel must have. Unknown is said to be unknown."""
    release = machine.kernel()
    if (old := unsupported(release)) is not None:
        yield Finding(id="kernel", level="bad", text=old, mend="boot Linux 5.15 or newer")
    symbols = machine.text("/proc/kallsyms") or ""
    modules = "".join(
        machine.text(f"/lib/modules/{release}/modules.{kind}") or "" for kind in ("dep", "builtin")
    )
    lacking = missing(NEEDED, symbols, modules)
    if not symbols and not modules:
        yield Finding(
            id="kernel",
            level="warn",
            text="cannot tell what the kernel has: neither /proc/kallsyms nor "
            f"/lib/modules/{release} can be read",
        )
    elif lacking:
        yield Finding(
            id="kernel",
            level="bad",
            text=f"kernel {release} seems to lack {'; '.join(lacking)}",
            mend="use a kernel with CONFIG_VETH, CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_ARP and "
            "CONFIG_NFT_NAT",
        )
    else:
        yield Finding(id="kernel", level="ok", text=f"kernel {release} has what weft needs")
    if (symbols or modules) and (lacking := missing(BRIDGED, symbols, modules)):
        yield Finding(
            id="kernel-bridge",
            level="warn",
            text=f"kernel {release} seems to lack {', '.join(lacking)}: containers cannot be put "
            "on a bridge, and a container's link that somebody makes a port of one is not guarded "
            "until that is mended",
            mend="use a kernel that has them, if containers are to be put on bridges",
        )
    if (symbols or modules) and (lacking := missing(BANDWIDTH, symbols, modules)):
        yield Finding(
            id="kernel-bandwidth",
            level="warn",
            text=f"kernel {release} seems to lack {', '.join(lacking)}: containers whose bandwidth "
            "is to be limited are refused",
            mend="use a kernel that has them, if containers' bandwidth is to be limited",
        )


def forwarding(machine: Machine) -> Iterator[Finding]:
    """Without forwarding packets end at the host. The agent switches it on."""
    status = machine.status
    families = (
        ("IPv4", "net.ipv4.ip_forward", status.families.ipv4 if status else None),
        ("IPv6", "net.ipv6.conf.all.forwarding", status.families.ipv6 if status else None),
    )
    for family, name, wanted in families:
        if wanted is not None and not wanted.enabled:
            continue
        value = machine.text(f"/proc/sys/{name.replace('.', '/')}")
        if value is None:
            continue  # the host does not have the family
        if value.strip() == "0":
            yield Finding(
                id="forwarding",
                level="bad" if status is not None else "warn",
                text=f"{family} forwarding is off; the agent switches it on when it starts",
                mend=f"sysctl -w {name}=1",
            )
        else:
            yield Finding(id="forwarding", level="ok", text=f"{family} is forwarded")


def bridge_netfilter(machine: Machine) -> Iterator[Finding]:
    """Frames of bridges pass the IP hooks; ours match our links only, others' may not."""
    value = machine.text("/proc/sys/net/bridge/bridge-nf-call-iptables")
    on = value is not None and value.strip() == "1"
    yield Finding(
        id="bridge-netfilter",
        level="ok",
        text="br_netfilter is on; weft's rules look at its own links only"
        if on
        else "br_netfilter is off",
    )


def routes(machine: Machine) -> list[tuple[Prefix, str]]:
    """The host's routes but default ones and our own, with their link."""
    found: list[tuple[Prefix, str]] = []
    for line in (machine.text("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        address = ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[1]), "little"))
        length = bytes.fromhex(fields[7])
        found.append(
            (ipaddress.IPv4Network((address, int.from_bytes(length).bit_count())), fields[0])
        )
    for line in (machine.text("/proc/net/ipv6_route") or "").splitlines():
        fields = line.split()
        address6 = ipaddress.IPv6Address(int(fields[0], 16))
        found.append((ipaddress.IPv6Network((address6, int(fields[1], 16))), fields[-1]))
    return [
        (prefix, link)
        for prefix, link in found
        if prefix.prefixlen and not link.startswith(LINK_PREFIX) and link not in ("lo", "*")
    ]


def overlaps(machine: Machine) -> Iterator[Finding]:
    """A pool inside a range that the host reaches elsewhere, or the other way round."""
    if machine.status is None:
        return
    here = routes(machine)
    clean = True
    for pool in machine.status.pools:
        if pool.disabled and not pool.blocks:
            continue  # as `weft import` makes them, around others' bridges: nothing is given out
        prefix = ipaddress.ip_network(pool.cidr)
        hits = [(each, link) for each, link in here if prefix.overlaps(each)]
        if hits:
            clean = False
            shown = ", ".join(f"{each} by {link}" for each, link in hits[:3])
            more = f" and {len(hits) - 3} more" if len(hits) > 3 else ""
            # a part of the pool: what another network left behind, more likely than not
            part = next(((e, k) for e, k in hits if e.prefixlen > prefix.prefixlen), None)
            mend = f"disable pool {pool.name} and add one with a free range: weft apply -f FILE"
            if part is not None:
                mend = (
                    f"ip {'-6 ' if prefix.version == 6 else ''}route delete {part[0]} dev "
                    f"{part[1]} if nobody needs it; else {mend}"
                )
            yield Finding(
                id="pool-overlap",
                level="bad",
                text=f"pool {pool.name} ({pool.cidr}) overlaps routes of the host: {shown}{more}; "
                "one of both cannot be reached",
                mend=mend,
            )
    if clean:
        yield Finding(id="pool-overlap", level="ok", text="no pool overlaps a route of the host")


def room(machine: Machine) -> Iterator[Finding]:
    """The journal and the store need a little room; without it nothing new is begun."""
    for mount, path in ROOM.items():
        found = machine.free(path)
        if found is None:
            continue
        octets, files = found
        shown = f"{octets >> 20} MiB and {files} files free for {path}"
        if octets < TOO_LITTLE or files < FEW_FILES // 10:
            yield Finding(id="room", level="bad", text=shown, mend=f"free space on {mount}")
        elif octets < LITTLE or files < FEW_FILES:
            yield Finding(id="room", level="warn", text=shown, mend=f"free space on {mount}")
        else:
            yield Finding(id="room", level="ok", text=f"room enough for {path}")


def clock(machine: Machine) -> Iterator[Finding]:
    """Times in objects and events are the wall clock's."""
    if machine.now() < OLDEST_TIME:
        yield Finding(
            id="clock",
            level="warn",
            text="the clock is years behind; ages and times of events will be wrong",
            mend="timedatectl set-ntp true",
        )
    else:
        yield Finding(id="clock", level="ok", text="the clock is plausible")


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    kernel_features,
    forwarding,
    bridge_netfilter,
    overlaps,
    room,
    clock,
)
