"""Nomad with `network { mode = "cni/weft" }`.

Plugins are executed once without arguments, for their version. Every port is asked for twice, for
TCP and UDP, on the address of the node's network; after a restart CHECK in place of ADD. DEL has
the ports and no arguments.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Run, Source, Vanish
from weft.lab.replay.runtimes import shared

_NODE = "198.51.100.11"

NOMAD = Persona(
    name="nomad",
    title="Nomad 1.10",
    sources=(
        Source(
            repository="hashicorp/nomad",
            path="client/allocrunner/networking_cni.go",
            what="arguments, ports, CHECK, three tries, what is read",
        ),
        Source(
            repository="hashicorp/nomad",
            path="client/fingerprint/plugins_cni.go",
            what="the plugin's version, within 3 s",
        ),
        shared.GO_CNI,
        shared.GO_CNI_TYPES,
        shared.LIBCNI_API,
    ),
    conf_file="/opt/cni/config/10-weft.conflist",
    conf=shared.LIST,
    bins=("/usr/libexec/cni", "/opt/cni/bin"),
    placed=1,
    env=shared.SYSTEMD,
    version="1.1.0",
    container="{uuid}",
    netns="/var/run/netns/{container}",
    args=(
        ("NOMAD_GROUP_NAME", "web"),
        ("NOMAD_ALLOC_ID", "{container}"),
        ("IgnoreUnknown", "true"),
        ("NOMAD_JOB_ID", "example/dispatch-1760000000-1a2b3c4d"),
        ("team", "web=front"),  # of the job's block `cni`, passed as it is
        ("NOMAD_NAMESPACE", "default"),
        ("NOMAD_REGION", "global"),
    ),
    capabilities={
        "portMappings": [
            {"HostPort": 30851, "ContainerPort": 80, "Protocol": "tcp", "HostIP": _NODE},
            {"HostPort": 30851, "ContainerPort": 80, "Protocol": "udp", "HostIP": _NODE},
        ]
    },
    program="nomad",
    limit=30.0,
    steps=(
        Run(reads="nomad_version", says="execution without arguments, for the version"),
        Call(verb="STATUS", says="STATUS"),
        Call(verb="ADD", says="ADD"),
        Reach(says="the allocation's traffic and its published port"),
        Call(verb="CHECK", says="CHECK after the client's restart"),
        Call(verb="DEL", bare=True, says="DEL, with the ports alone"),
        Vanish(says="the namespace is removed"),
        Call(verb="DEL", bare=True, says="DEL again, with a path that leads nowhere"),
    ),
    reads="nomad",
    ports=(
        Port(host=30851, inner=80, address=_NODE),
        Port(host=30851, inner=80, address=_NODE, protocol="udp"),
    ),
)
