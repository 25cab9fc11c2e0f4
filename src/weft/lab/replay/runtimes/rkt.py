"""rkt, in its last form and in the one before containers had an ID of CNI's.

The file goes to standard input as it is, at 0.1.0; plugins of users are looked for first.
"""

from __future__ import annotations

import msgspec

from weft.lab.replay.persona import Call, Persona, Reach, Source, Vanish
from weft.lab.replay.runtimes import shared

_STAGE1 = "/var/lib/rkt/pods/run/{container}/stage1/rootfs/usr/lib/rkt/plugins/net"

RKT = Persona(
    name="rkt",
    title="rkt 1.30",
    sources=(
        Source(
            repository="rkt/rkt",
            path="networking/net_plugin.go",
            what="environment, standard input, directories, what is read",
        ),
        Source(
            repository="rkt/rkt",
            path="networking/podenv.go",
            what="files, order, an empty namespace at DEL where it is gone",
        ),
    ),
    conf_file="/etc/rkt/net.d/10-weft.conf",
    conf={"name": "weft", "type": "weft"},
    bins=("/etc/rkt/net.d", "/usr/lib/rkt/plugins/net", _STAGE1),
    placed=1,
    env={**shared.SYSTEMD, "RKT_LOCK_FD": "7"},
    variables={
        "CNI_VERSION": "0.1.0",
        "CNI_COMMAND": "{verb}",
        "CNI_CONTAINERID": "{container}",
        "CNI_NETNS": "{netns}",
        "CNI_ARGS": "{args}",
        "CNI_IFNAME": "{ifname}",
        "CNI_PATH": "{bins}",
    },
    stdin="file",
    version="",
    container="{uuid}",
    netns="/var/run/netns/cni-{uuid}",
    args=(("IP", "{ip4}"),),
    program="stage0",
    limit=30.0,
    steps=(
        Call(verb="ADD", says="ADD, with `--net=weft:IP=...`"),
        Reach(says="the pod's traffic"),
        Call(verb="DEL", says="DEL when the pod ends"),
        Vanish(says="the namespace is removed"),
        Call(verb="DEL", netns="empty", says="DEL again by `rkt gc`, without a namespace"),
    ),
    reads="rkt",
)

RKT_OLD = msgspec.structs.replace(
    RKT,
    name="rkt-old",
    title="rkt before 0.11, CNI_PODID",
    bins=("/usr/lib/rkt/plugins/net", _STAGE1),
    placed=0,
    variables={
        "CNI_COMMAND": "{verb}",
        "CNI_PODID": "{container}",
        "CNI_NETNS": "{netns}",
        "CNI_ARGS": "{args}",
        "CNI_IFNAME": "{ifname}",
        "CNI_PATH": "{bins}",
    },
    netns="/var/lib/rkt/pods/run/{container}/netns",
    args=(),
)
