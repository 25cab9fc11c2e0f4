"""OpenSVC, version 2 in Python and 3 (om3) in Go: no libcni, one plugin, an interface of its own
beside others, in the namespace of the service or of a container that runs already.

Neither reads the result; both look into the namespace. om3 passes five variables and nothing else,
not even PATH, and the file as it is.
"""

from __future__ import annotations

from weft.lab.replay.persona import Call, Link, Persona, Reach, Source, Variables
from weft.lab.replay.runtimes import shared

FIVE: Variables = {
    "CNI_COMMAND": "{verb}",
    "CNI_CONTAINERID": "{container}",
    "CNI_NETNS": "{netns}",
    "CNI_IFNAME": "{ifname}",
    "CNI_PATH": "{bin}",
}

OM3 = Persona(
    name="om3",
    title="OpenSVC 3 (om3)",
    sources=(
        Source(
            repository="opensvc/om3",
            path="drivers/resipcni/main.go",
            what="environment, standard input, container ID, namespaces, order",
        ),
    ),
    conf_file="/var/lib/opensvc/cni/net.d/weft.conf",
    conf={"cniVersion": "0.3.1", "name": "weft", "type": "weft"},
    bins=("/var/lib/opensvc/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"),
    placed=0,
    variables=FIVE,
    stdin="file",
    version="0.3.1",
    container="{uuid}",
    netns="/var/run/netns/{container}",
    ifnames=("eth12",),
    program="om3",
    limit=30.0,
    steps=(
        Call(verb="ADD", says="ADD"),
        Reach(says="the service's traffic"),
        Call(verb="DEL", says="DEL, without the result"),
        Call(verb="DEL", says="DEL again, by a second stop"),
    ),
    reads="looks_into_the_namespace",
)

OPENSVC2 = Persona(
    name="opensvc2",
    title="OpenSVC 2",
    sources=(
        Source(
            repository="opensvc/opensvc",
            path="opensvc/drivers/resource/ip/cni/__init__.py",
            what="environment, standard input, container ID, order, what is read",
        ),
        Source(
            repository="opensvc/opensvc",
            path="opensvc/core/node/nodedict.py",
            what="directories",
        ),
    ),
    conf_file="/opt/cni/net.d/weft.conf",
    conf={"cniVersion": "0.3.0", "name": "weft", "type": "weft"},
    bins=("/opt/cni/bin",),
    env=shared.SYSTEMD,
    variables=FIVE,
    stdin="python",
    version="0.3.0",
    container="{pid}",
    netns="/var/run/docker/netns/{hex64}",
    ifnames=("eth12",),
    program="om",
    limit=30.0,
    steps=(
        Link(name="eth0", says="the container has docker's interface and its default routes"),
        Call(verb="ADD", says="ADD beside the other interface"),
        Reach(says="the container's traffic by this interface"),
        Call(verb="DEL", says="DEL, without the result"),
        Call(verb="DEL", says="DEL again, by a second stop"),
    ),
    reads="looks_into_the_namespace",
    beyond=False,  # the default routes are the other interface's
)
