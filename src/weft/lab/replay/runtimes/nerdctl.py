"""nerdctl, in its OCI hooks: ports reserved first, DEL before the ADD, two networks in parallel.

All networks are asked for all ports. At the end there is no namespace to name.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Reserve, Source, Vanish
from weft.lab.replay.runtimes import shared

_EVERY = "0.0.0.0"  # noqa: S104  # what `-p 30821:80` becomes

NERDCTL = Persona(
    name="nerdctl",
    title="nerdctl 2.2",
    sources=(
        Source(
            repository="containerd/nerdctl",
            path="pkg/ocihook/ocihook.go",
            what="reserved ports, DEL before ADD, CNI_ARGS, namespace, postStop",
        ),
        Source(
            repository="containerd/nerdctl",
            path="pkg/cmd/container/create.go",
            what="the hook's environment: PATH with /usr/sbin and /sbin behind it",
        ),
        Source(
            repository="containerd/nerdctl",
            path="pkg/netutil/netutil.go",
            what="lists that it has not written are networks as well, by their names",
        ),
        Source(
            repository="containerd/nerdctl",
            path="pkg/defaults/defaults_linux.go",
            what="the first of six directories that is there",
        ),
        shared.GO_CNI,
        shared.GO_CNI_TYPES,
        shared.LIBCNI_API,
    ),
    conf_file="/etc/cni/net.d/10-weft.conflist",
    conf=shared.LIST,
    bins=("/opt/cni/bin",),
    env={
        **shared.SYSTEMD,
        "HOME": "/root",
        "SUDO_USER": "somebody",
        "PATH": shared.SYSTEMD["PATH"] + ":/usr/sbin:/sbin",
    },
    version="1.1.0",
    container="default-{hex64}",
    netns="/proc/{pid}/ns/net",
    networks=("weft", "weft-second"),
    ifnames=("eth0", "eth1"),
    args=(
        ("NERDCTL_CNI_DHCP_HOSTNAME", "web"),
        ("MAC", "02:42:ac:11:00:07"),
        ("IgnoreUnknown", "1"),
    ),
    capabilities={
        "portMappings": [
            {"HostPort": 30821, "ContainerPort": 80, "Protocol": "tcp", "HostIP": _EVERY},
            {"HostPort": 30822, "ContainerPort": 53, "Protocol": "udp", "HostIP": _EVERY},
        ]
    },
    program="nerdctl",
    at_once=("ADD",),
    limit=30.0,
    steps=(
        Reserve(kept=True, says="the ports are bound, and handed to `sleep infinity`"),
        Call(verb="DEL", netns="empty", says="DEL of every network, before there is anything"),
        Call(verb="ADD", says="ADD to both networks in parallel"),
        Reach(says="the container's traffic and its published port"),
        Vanish(says="the container's process ends"),
        Call(verb="DEL", netns="empty", says="DEL of every network at postStop"),
        Call(verb="DEL", netns="empty", says="DEL again, when the container is removed"),
    ),
    reads="go_cni",
    ports=(
        Port(host=30821, inner=80, address=_EVERY),
        Port(host=30822, inner=53, address=_EVERY, protocol="udp"),
    ),
)
