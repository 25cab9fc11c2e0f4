"""Mesos' isolator network/cni: no libcni, no version, no CNI_ARGS.

Each network gets its file with the task's NetworkInfo in `args`, as a regular file on standard
input; the networks of a task go in parallel. DEL is given the file that ADD was.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Source, Vanish

MESOS = Persona(
    name="mesos",
    title="Apache Mesos 1.x, network/cni",
    sources=(
        Source(
            repository="apache/mesos",
            path="src/slave/containerizer/mesos/isolators/network/cni/cni.cpp",
            what="environment, standard input, parallel ADD, checkpointed DEL",
        ),
        Source(
            repository="apache/mesos",
            path="src/slave/containerizer/mesos/isolators/network/cni/spec.proto",
            what="what is read of a result: ip4, ip6, dns",
        ),
    ),
    conf_file="/etc/mesos/cni/net.d/weft.conf",
    conf={"name": "weft", "type": "weft"},
    bins=("/opt/cni/bin",),
    env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    variables={
        "CNI_COMMAND": "{verb}",
        "CNI_CONTAINERID": "{container}",
        "CNI_IFNAME": "{ifname}",
        "CNI_NETNS": "{netns}",
        "CNI_PATH": "{bins}",
    },
    stdin="mesos",
    version="",
    container="{uuid}",
    netns="/var/run/mesos/isolators/network/cni/{container}/ns",
    networks=("weft", "weft-second"),
    ifnames=("eth0", "eth1"),
    ungated={
        "args": {
            "org.apache.mesos": {
                "network_info": {
                    "labels": {"labels": [{"key": "app", "value": "web"}, {"key": "canary"}]},
                    "name": "weft",
                    "port_mappings": [
                        {"container_port": 80, "host_port": 30841, "protocol": "tcp"}
                    ],
                }
            }
        }
    },
    program="mesos-agent",
    at_once=("ADD", "DEL"),
    limit=60.0,
    steps=(
        Call(verb="ADD", says="ADD to both networks in parallel"),
        Reach(says="the task's traffic and its published port"),
        Call(verb="DEL", says="DEL of both networks in parallel, with what ADD was given"),
        Vanish(says="the namespace's handle is unmounted"),
        Call(verb="DEL", says="DEL again, after a failed cleanup"),
    ),
    reads="mesos",
    ports=(Port(host=30841, inner=80),),
)
