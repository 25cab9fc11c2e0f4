"""CRI-O, as it is and with OpenShift's paths.

VERSION when a file is loaded, STATUS until it is good, then GC; CHECK at once after ADD and for
every look at the pod's network. Host ports are its own manager's: no plugin hears of them.
"""

from __future__ import annotations

import msgspec

from weft.lab.replay.persona import Call, Persona, Reach, Source, Step, Vanish
from weft.lab.replay.runtimes import shared

STEPS: tuple[Step, ...] = (
    Call(verb="VERSION", says="VERSION when the file is loaded"),
    Call(verb="STATUS", says="STATUS, every half second until it is good"),
    Call(verb="GC", kept="nobody", says="GC at the start, without a pod: the list is null"),
    Call(verb="ADD", says="ADD"),
    Call(verb="CHECK", says="CHECK, before the pod counts as started"),
    Reach(says="the pod's traffic"),
    Call(verb="GC", kept="this", says="GC with the pod in both lists"),
    Call(verb="CHECK", says="CHECK for the pod's status"),
    Call(verb="DEL", says="DEL, with everything that was kept of ADD"),
    Call(verb="DEL", says="DEL again"),
    Call(verb="ADD", needs="GC", says="ADD of a pod that CRI-O then forgets, with its cache"),
    Vanish(says="the namespace is removed"),
    Call(verb="GC", kept="nobody", says="GC after a restart: nobody is known any more"),
    Call(verb="STATUS", says="STATUS"),
)

CRIO = Persona(
    name="crio",
    title="CRI-O 1.3x",
    sources=(
        Source(
            repository="cri-o/ocicni",
            path="pkg/ocicni/ocicni.go",
            what="loading, order of verbs, CNI_ARGS, capabilities, GC",
        ),
        Source(repository="cri-o/ocicni", path="pkg/ocicni/types.go", what="names in JSON"),
        Source(
            repository="cri-o/cri-o",
            path="internal/config/cnimgr/cnimgr.go",
            what="STATUS every 0.5 s, then every 5 s; GC once it is good, within 30 s",
        ),
        Source(
            repository="cri-o/cri-o",
            path="server/sandbox_network.go",
            what="CHECK after ADD; host ports are its own; bursts",
        ),
        shared.LIBCNI_API,
        shared.LIBCNI_ARGS,
    ),
    conf_file="/etc/cni/net.d/10-weft.conflist",
    conf=shared.LIST,
    bins=("/opt/cni/bin",),
    env=shared.SYSTEMD,
    version="1.1.0",
    netns="/var/run/netns/{uuid}",
    args=(
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", "default"),
        ("K8S_POD_NAME", "web-0"),
        ("K8S_POD_INFRA_CONTAINER_ID", "{container}"),
        ("K8S_POD_UID", "{uuid}"),
    ),
    capabilities={
        "bandwidth": {  # a map in Go: sorted
            "egressBurst": shared.MAX_BURST * 8 - 1,
            "egressRate": 800_000_000,
            "ingressBurst": shared.MAX_BURST * 8 - 1,
            "ingressRate": 800_000_000,
        },
        "cgroupPath": "kubepods-burstable.slice",
        "io.kubernetes.cri.pod-annotations": {
            "kubernetes.io/config.source": "api",
            "kubernetes.io/egress-bandwidth": "800M",
            "kubernetes.io/ingress-bandwidth": "800M",
        },
    },
    program="crio",
    limit=30.0,
    steps=STEPS,
    reads="libcni",
)

OPENSHIFT = msgspec.structs.replace(
    CRIO,
    name="openshift",
    title="CRI-O on OpenShift 4",
    sources=(
        Source(
            repository="openshift/machine-config-operator",
            path="templates/master/01-master-container-runtime/_base/files/crio.yaml",
            what="network_dir, plugin_dirs",
        ),
        *CRIO.sources,
    ),
    conf_file="/etc/kubernetes/cni/net.d/10-weft.conflist",
    bins=("/var/lib/cni/bin", "/usr/libexec/cni"),
)
