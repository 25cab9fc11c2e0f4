"""Apptainer and Singularity: `--network weft --network-args "portmap=30831:80/tcp;IP=..."`.

Environment cleared to PATH, five seconds for everything, the namespace on a path that only the
starter's mount namespace has, the container named by a process id. For users other than root the
starter itself listens on the published ports first.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Reserve, Source
from weft.lab.replay.runtimes import shared

APPTAINER = Persona(
    name="apptainer",
    title="Apptainer 1.x, Singularity",
    sources=(
        Source(
            repository="apptainer/apptainer",
            path="pkg/network/network_linux.go",
            what="arguments, capabilities, PATH, 5 s, SetPortProtection",
        ),
        Source(
            repository="apptainer/apptainer",
            path="internal/pkg/runtime/engine/apptainer/container_linux.go",
            what="directories, container ID, namespace in the session directory",
        ),
        Source(
            repository="apptainer/apptainer",
            path="etc/network/00_bridge.conflist",
            what="lists, and the capability that portmap= needs",
        ),
        shared.LIBCNI_API,
        shared.LIBCNI_ARGS,
    ),
    conf_file="/usr/local/etc/apptainer/network/10-weft.conflist",
    conf=shared.LIST,
    bins=("/usr/local/libexec/apptainer/cni",),
    env={"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"},
    version="1.1.0",
    container="{pid}",
    netns="/usr/local/var/apptainer/mnt/session/netns",
    args=(("IgnoreUnknown", "1"), ("IP", "{ip4}")),
    capabilities={"portMappings": [{"hostPort": 30831, "containerPort": 80, "protocol": "tcp"}]},
    program="starter-suid",
    limit=5.0,
    steps=(
        Reserve(shared=True, says="the starter listens on the ports, with SO_REUSEPORT"),
        Call(verb="ADD", says="ADD with the address asked for"),
        Reach(says="the container's traffic and its published port"),
        Call(verb="DEL", says="DEL, with the same arguments"),
        Call(verb="DEL", says="DEL again"),
    ),
    reads="first_of_each_family",
    ports=(Port(host=30831, inner=80),),
)
