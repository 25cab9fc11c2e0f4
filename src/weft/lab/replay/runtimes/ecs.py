"""The agent of Amazon ECS: single configurations built in memory, at 0.3.0.

It executes plugins whose names it knows; the calls are what a plugin in the place of `ecs-bridge`
gets, without the section `ipam`, which names Amazon's own plugin and which weft refuses. At the
end only DEL comes, in a namespace that may be gone.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Reach, Run, Source, Vanish
from weft.lab.replay.runtimes import shared

ECS = Persona(
    name="ecs",
    title="Amazon ECS agent, awsvpc",
    sources=(
        Source(
            repository="aws/amazon-ecs-agent",
            path="agent/ecscni/plugin.go",
            what="--version, --capabilities, environment, DEL",
        ),
        Source(
            repository="aws/amazon-ecs-agent",
            path="agent/ecscni/plugin_linux.go",
            what="ADD one by one, namespace, result of the bridge",
        ),
        Source(
            repository="aws/amazon-ecs-agent",
            path="agent/ecscni/types_linux.go",
            what="names, namespace's path, keys of BridgeConfig",
        ),
        Source(
            repository="aws/amazon-ecs-agent",
            path="agent/ecscni/netconfig.go",
            what="the network's name, the version",
        ),
        Source(
            repository="aws/amazon-ecs-agent",
            path="agent/engine/docker_task_engine_linux.go",
            what="60 s for ADD, 30 s for DEL",
        ),
        shared.LIBCNI_API,
        shared.LIBCNI_ARGS,
    ),
    conf_file="/var/lib/ecs/cni/weft.conf",
    conf={
        "type": "weft",
        "bridge": "ecs-bridge",
        "isGateway": False,
        "isDefaultGateway": False,
        "forceAddress": False,
        "ipMasq": False,
        "mtu": 0,
        "hairpinMode": False,
        "ipam": {},
    },
    bins=("/amazon-ecs-cni-plugins",),
    env={
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ECS_CNI_LOGLEVEL": "info",
        "VPC_CNI_LOG_LEVEL": "info",
        "VPC_CNI_LOG_FILE": "/log/vpc-branch-eni.log",
        "ECS_CLUSTER": "default",
    },
    version="0.3.0",
    netns="/host/proc/{pid}/ns/net",
    networks=("network-name",),
    ifnames=("ecs-eth0",),
    program="agent",
    limit=30.0,
    steps=(
        Run(arguments=("--version",), reads="ecs_version", says="--version, at the agent's start"),
        Run(
            arguments=("--capabilities",),
            reads="ecs_capabilities",
            says="--capabilities, at the agent's start",
        ),
        Call(verb="ADD", says="ADD"),
        Reach(says="the node's traffic with the task"),
        Call(verb="DEL", says="DEL at the task's end"),
        Vanish(says="the pause container ends"),
        Call(verb="DEL", says="DEL again, after the agent's restart"),
    ),
    reads="libcni",
    beyond=False,  # it asks for no masquerade
)
