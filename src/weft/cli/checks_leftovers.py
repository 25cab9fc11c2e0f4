"""What other container networks have left on this node, or still have: named, never removed.

One line of the table `NETWORKS` for each of them: links, chains, directories, and the program that
runs where it is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from weft.cli.machine import Machine
from weft.model.names import printable
from weft.wire.api import Finding

IFF_UP = 1


class Network(NamedTuple):
    """How another network is known. `links`, `chains` and `tables` are names, or beginnings of
    names where they end in `*`."""

    name: str
    links: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


NETWORKS = (
    Network(
        "the CNI plugins (bridge, portmap, host-local)",
        links=("cni0",),
        chains=("CNI-*",),
        tables=("cni_hostport", "cni_plugins_masquerade"),
        directories=("/var/lib/cni/networks",),
    ),
    Network(
        "flannel",
        links=("flannel.*", "flannel-v6.*", "flannel-wg*", "flannel0"),
        chains=("FLANNEL-*",),
        tables=("flannel-ipv4", "flannel-ipv6"),
        directories=("/run/flannel", "/var/lib/cni/flannel"),
        programs=("flanneld",),
    ),
    Network(
        "Calico",
        links=("cali*", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali", "tunl0"),
        chains=("cali-*",),
        tables=("calico",),
        directories=("/var/lib/calico", "/run/calico"),
        programs=("calico-node",),
    ),
    Network(
        "Cilium",
        links=("cilium_*", "lxc_health"),
        chains=("CILIUM_*",),
        directories=("/run/cilium", "/var/lib/cilium"),
        programs=("cilium-agent",),
    ),
    Network(
        "Weave Net",
        links=("weave", "vethwe-*", "vxlan-6784"),
        chains=("WEAVE", "WEAVE-*"),
        directories=("/var/lib/weave",),
        programs=("weaver",),
    ),
    Network(
        "kube-router",
        links=("kube-bridge", "kube-dummy-if"),
        chains=("KUBE-ROUTER-*", "KUBE-POD-FW-*", "KUBE-NWPLCY-*"),
        programs=("kube-router",),
    ),
    Network(
        "kube-proxy",
        links=("kube-ipvs0",),
        chains=("KUBE-*",),
        tables=("kube-proxy",),
        programs=("kube-proxy",),
    ),
    Network(
        "Antrea",
        links=("antrea-gw0", "antrea-tun0"),
        chains=("ANTREA-*",),
        directories=("/run/antrea",),
        programs=("antrea-agent",),
    ),
    Network(
        "OVN-Kubernetes",
        links=("ovn-k8s-mp0",),
        directories=("/run/ovn-kubernetes",),
        programs=("ovnkube",),
    ),
)
COMPANIONS = frozenset(("kube-proxy",))
"""No container networks: where they run they belong to the node."""


def leftovers(machine: Machine) -> Iterator[Finding]:
    """Each network that something is there of; a companion that runs is no finding."""
    clean = True
    links = machine.names("/sys/class/net")
    chains = machine.survey().chains
    claimed: set[tuple[str, str, str]] = set()
    for network in NETWORKS:
        running = next((each for each in network.programs if machine.runs(each)), None)
        its = [
            each
            for each in chains
            if each not in claimed and (_is(each[2], network.chains) or each[1] in network.tables)
        ]
        claimed |= set(its)
        found = list(_remains(machine, network, links, its))
        if not found or (running and network.name in COMPANIONS):
            continue
        clean = False
        if running:
            yield Finding(
                id="other-network",
                level="warn",
                text=f"{network.name} runs on this node ({running}): two container networks on one "
                f"node get in each other's way; there are {'; '.join(text for text, _ in found)}",
                mend=f"remove {network.name} from the cluster, or this node from it",
            )
            continue
        imported = machine.status.attachments.get("imported", 0) if machine.status else 0
        if imported:
            text = "; ".join(text for text, _ in found)
            yield Finding(
                id="other-network",
                level="ok",
                text=f"{network.name}: {text}; {imported} imported containers may live by it, "
                "until their DEL",
            )
            continue
        for text, mend in found:
            yield Finding(
                id="other-network",
                level="warn",
                text=f"left by {network.name}: {text}; if it is no longer in use it may still "
                "take pods' packets or addresses",
                mend=mend,
                owner=network.name.partition(" (")[0],
            )
    if clean:
        yield Finding(id="other-network", level="ok", text="nothing of another container network")


def _remains(
    machine: Machine,
    network: Network,
    links: Iterable[str],
    chains: list[tuple[str, str, str]],
) -> Iterator[tuple[str, str]]:
    """What is there of it, and what would remove that."""
    standing = [
        name
        for name in links
        if _is(name, network.links) and (name != "tunl0" or _is_up(machine, name))
    ]
    if standing:
        # tunl0 belongs to the kernel's module: it comes back, and does no harm when it is down
        commands = [
            f"ip link set {name} down" if name == "tunl0" else f"ip link delete {name}"
            for name in standing[:3]
        ]
        yield f"links {_some(standing)}", "; ".join(commands)
    own = sorted({each for each in chains if each[1] in network.tables})
    if own:
        tables = sorted({each[:2] for each in own})
        shown = ", ".join(f"table {family} {table}" for family, table in tables)
        yield shown, "; ".join(f"nft delete table {family} {table}" for family, table in tables)
    rest = [each for each in chains if each not in own]
    if rest:
        yield f"chains {_some([each[2] for each in rest])}", _without(rest)
    for directory in network.directories:
        if machine.names(directory):
            yield (
                f"{directory} ({printable(_some(machine.names(directory)))})",
                f"rm -r {directory}",
            )


def _without(chains: list[tuple[str, str, str]]) -> str:
    """Commands that write the tables anew without these chains and the rules that lead to them."""
    beginnings = sorted({name[: name.find("-") + 1] or name for _, _, name in chains})
    pattern = "|".join(beginnings)
    programs = [
        program
        for family, program in (("ip", "iptables"), ("ip6", "ip6tables"))
        if any(each[0] == family for each in chains)
    ]
    return "; ".join(f"{each}-save | grep -vE '{pattern}' | {each}-restore" for each in programs)


def _is(name: str, patterns: Iterable[str]) -> bool:
    return any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns
    )


def _some(names: list[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - 3} more" if len(distinct) > 3 else ""
    return ", ".join(distinct[:3]) + more


def _is_up(machine: Machine, link: str) -> bool:
    text = (machine.text(f"/sys/class/net/{link}/flags") or "0x0").strip()
    return bool(int(text, 16) & IFF_UP)


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (leftovers,)
