"""What several runtimes have in common: weft's list as `weft install` writes it, and sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.lab.replay.persona import Source

DECLARED = ("portMappings", "bandwidth", "ips", "mac", "io.kubernetes.cri.pod-annotations")
PLUGIN: Mapping[str, Any] = {"type": "weft", "capabilities": dict.fromkeys(DECLARED, True)}
LIST: Mapping[str, Any] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    "name": "weft",
    "plugins": [PLUGIN],
}
"""A libcni from 1.2.0 on calls it at 1.1.0, an earlier one at 1.0.0."""

SYSTEMD = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "INVOCATION_ID": "0d0ea1f2e1c84b8d9d3f6b1b1f5f8a5c",
    "NOTIFY_SOCKET": "/run/systemd/notify",
}
"""What a service has that systemd started (systemd.exec(5))."""

MAX_BURST = 2**32 - 1

LIBCNI_API = Source(
    repository="containernetworking/cni",
    path="libcni/api.go",
    what="keys injected, prevResult, lists of GC, order of DEL",
)
LIBCNI_ARGS = Source(
    repository="containernetworking/cni",
    path="pkg/invoke/args.go",
    what="the six variables, always set, behind the caller's own environment",
)
GO_CNI = Source(
    repository="containerd/go-cni",
    path="cni.go",
    what="networks in parallel, DEL in order, arguments from a map",
)
GO_CNI_TYPES = Source(
    repository="containerd/go-cni",
    path="types.go",
    what="capabilities with capital letters: the structs have no JSON names",
)
