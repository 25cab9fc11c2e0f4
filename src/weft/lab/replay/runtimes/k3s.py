"""containerd 2, as k3s and RKE2 bring it along: several tries of DEL, the last without a namespace.

The loopback link is brought up beside the ADD, by the plugin `loopback` or by containerd itself.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Source, Vanish
from weft.lab.replay.runtimes import shared

K3S = Persona(
    name="k3s",
    title="containerd 2, k3s, RKE2",
    sources=(
        Source(
            repository="containerd/containerd",
            path="internal/cri/server/sandbox_run.go",
            what="CNI_ARGS, capabilities, bursts",
        ),
        Source(
            repository="k3s-io/k3s",
            path="pkg/agent/templates/templates_linux.go",
            what="no directories of its own where its flannel is off: containerd's defaults",
        ),
        shared.GO_CNI,
        shared.GO_CNI_TYPES,
        shared.LIBCNI_API,
        shared.LIBCNI_ARGS,
    ),
    conf_file="/etc/cni/net.d/10-weft.conflist",
    conf=shared.LIST,
    bins=("/opt/cni/bin",),
    env=shared.SYSTEMD,
    version="1.1.0",
    netns="/var/run/netns/cni-{uuid}",
    args=(  # the order of a Go map: any
        ("K8S_POD_UID", "{uuid}"),
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", "default"),
        ("K8S_POD_INFRA_CONTAINER_ID", "{container}"),
        ("K8S_POD_NAME", "web-0"),
    ),
    capabilities={
        "io.kubernetes.cri.pod-annotations": {"kubernetes.io/egress-bandwidth": "800M"},
        "portMappings": [
            {"HostPort": 30811, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"HostPort": 30811, "ContainerPort": 80, "Protocol": "udp", "HostIP": ""},
        ],
        "bandwidth": {
            "IngressRate": 0,
            "IngressBurst": 0,
            "EgressRate": 800_000_000,
            "EgressBurst": shared.MAX_BURST,
        },
        "dns": {"Servers": ["10.43.0.10"], "Searches": ["svc.cluster.local"], "Options": None},
        "cgroupPath": "/kubepods/burstable/pod-web-0",
    },
    program="containerd",
    limit=30.0,
    steps=(
        Call(verb="STATUS", says="STATUS, for the node's readiness"),
        Call(verb="ADD", says="ADD"),
        Reach(says="the pod's traffic and its published port"),
        Call(verb="DEL", says="DEL at the sandbox's stop"),
        Vanish(says="the namespace is removed"),
        Call(verb="DEL", netns="empty", says="DEL again at its removal, without a namespace"),
    ),
    reads="go_cni",
    ports=(Port(host=30811, inner=80), Port(host=30811, inner=80, protocol="udp")),
)
