"""Cloud Foundry: garden-external-networker's plain calls.

`runtimeConfig` and `metadata` are put into the input of ADD whatever the list declares, in
Garden's spelling; DEL has neither. The rule lets everything out, as ASGs of a new foundation do.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Persona, Port, Reach, Source, Vanish
from weft.lab.replay.runtimes import shared

GARDEN = Persona(
    name="cloudfoundry",
    title="Cloud Foundry, garden-external-networker",
    sources=(
        Source(
            repository="cloudfoundry/cf-networking-release",
            path="src/code.cloudfoundry.org/garden-external-networker/cni/cni_controller.go",
            what="keys injected at ADD, none at DEL, eth0",
        ),
        Source(
            repository="cloudfoundry/cf-networking-release",
            path="src/code.cloudfoundry.org/garden-external-networker/manager/manager.go",
            what="namespace, ports, what is read of the result",
        ),
        Source(
            repository="cloudfoundry/cf-networking-release",
            path="src/code.cloudfoundry.org/garden-external-networker/cni/cni_loader.go",
            what="the first .conflist of the directory",
        ),
        Source(
            repository="cloudfoundry/cf-networking-release",
            path="docs/3rd-party.md",
            what="directories, spelling of ports and rules",
        ),
        shared.LIBCNI_API,
        shared.LIBCNI_ARGS,
    ),
    conf_file="/var/vcap/jobs/weft/config/cni/30-weft.conflist",
    conf={"cniVersion": "0.3.1", "name": "weft", "plugins": [{"type": "weft"}]},
    bins=("/var/vcap/packages/weft/bin",),
    env=shared.SYSTEMD,
    version="0.3.1",
    known="1.1.0",
    container="{uuid}-0",
    netns="/var/vcap/data/garden-cni/container-netns/{container}",
    ungated={
        "metadata": {
            "app_id": "8c6c1b7e-3d64-4a5b-9c4a-2f1f6a9d0e11",
            "org_id": "2f0c5b1c-8d5e-4a0e-9f7c-6b3a1d2e4f50",
            "policy_group_id": "8c6c1b7e-3d64-4a5b-9c4a-2f1f6a9d0e11",
            "space_id": "5d9e2a47-1c3b-4f6d-8e0a-7b9c4d2f1a63",
        },
        "runtimeConfig": {
            "netOutRules": [{"networks": [{"start": "1.0.0.0", "end": "255.255.255.255"}]}],
            "portMappings": [{"host_port": 30861, "container_port": 8080}],
        },
    },
    program="garden-external",
    limit=30.0,
    steps=(
        Call(verb="ADD", says="ADD (up)"),
        Reach(says="the app's traffic and its published port"),
        Call(verb="DEL", says="DEL (down)"),
        Vanish(says="the bind mount is removed"),
        Call(verb="DEL", says="DEL (down) again"),
    ),
    reads="garden",
    ports=(Port(host=30861, inner=8080),),
)
