"""A container runtime as it was before weft: Debian's bridge, host-local and portmap in a lab node,
called as libcni calls them, with its cache."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acceptance import Host
from weft.lab.runtime import Attachment, Runtime

REFERENCE = Path("/usr/lib/cni")
RESULTS = "/var/lib/cni/results"
NETWORKS = "/var/lib/cni/networks"
SUBNET4, SUBNET6 = "10.22.0.0/16", "fd22::/64"


def conflist(name: str = "former", bridge: str = "cni0", **ipam: Any) -> bytes:
    """The usual chain, of both families, with masquerade and ports."""
    ranges = [[{"subnet": SUBNET4}], [{"subnet": SUBNET6}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": bridge,
                    "isGateway": True,
                    "ipMasq": True,
                    "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, **ipam},
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
    ).encode()


class Before:
    """The former runtime of a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.network = Runtime(
            conflist(),
            [REFERENCE],
            spawn=self.spawn,
            cache=host.node.path(RESULTS),
            root=host.node.path("/"),
        )
        self.held: dict[str, Attachment] = {}

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Where plugins run."""
        return self.host.node.run(argv, env=env, stdin=stdin, timeout=timeout)

    def make(self, container: str) -> None:
        """A namespace."""
        self.host.make([container])

    def unmake(self, container: str) -> None:
        """Without it."""
        self.host.unmake([container])

    def add(self, container: str, *ports: tuple[int, int], args: str = "") -> list[str]:
        """A container with its namespace; its addresses."""
        self.make(container)
        mappings = [{"hostPort": a, "containerPort": b, "protocol": "tcp"} for a, b in ports]
        made = Attachment(
            container=container,
            netns=f"/run/netns/{container}",
            args=f"IgnoreUnknown=1;{args}" if args else "",
            capabilities={"portMappings": mappings} if mappings else {},
        )
        done = self.network.add(made)
        assert done.is_good, done.failure
        self.held[container] = made
        assert done.result is not None
        return [ip["address"].split("/")[0] for ip in done.result["ips"]]

    def delete(self, container: str) -> None:
        """The DEL of who still calls the former chain; its namespace goes, too."""
        done = self.network.delete(self.held.pop(container))
        assert done.is_good, done.failure
        self.unmake(container)

    def results(self) -> list[str]:
        place = self.host.node.path(RESULTS)
        return sorted(each.name for each in place.iterdir()) if place.is_dir() else []

    def reserved(self) -> list[str]:
        place = self.host.node.path(f"{NETWORKS}/{self.network.network}")
        names = (each.name for each in place.iterdir()) if place.is_dir() else ()
        return sorted(name for name in names if name[0].isdigit() or ":" in name)

    def rules(self) -> str:
        """What iptables has of it."""
        said = (self.host.shell(f"{name}-save -t nat") for name in ("iptables", "ip6tables"))
        lines = "".join(said).splitlines()
        return "\n".join(line for line in lines if not line.startswith("#"))

    def clear(self) -> None:
        """Everything that the former plugins leave for good: bridge, chains, directories."""
        for container in list(self.held):
            self.delete(container)
        self.host.shell(
            "ip link delete cni0 2>/dev/null || true; rm -rf /var/lib/cni/*; "
            "for t in 'ip nat' 'ip filter' 'ip6 nat' 'ip6 filter' 'ip mangle' 'ip6 mangle'; do "
            "nft delete table $t 2>/dev/null || true; done"
        )


@contextmanager
def before(host: Host, kind: type[Before] = Before) -> Iterator[Before]:
    """The former runtime, and afterwards a node without anything of it."""
    made = kind(host)
    try:
        yield made
    finally:
        made.clear()
