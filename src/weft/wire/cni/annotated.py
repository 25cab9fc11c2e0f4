"""What a container asks for by the annotations of its OCI configuration.

An OCI hook (native/launcher/hook.c) has no `runtimeConfig`: it passes the container's annotations
under a key of its own, and here they become what a CNI runtime would have said. So everything
behind - who wins, what can be granted - is as for every other runtime (`wishes.py`).

Only the hook's key is looked at: annotations of a pod in Kubernetes are the pod's author's, who may
not be allowed host ports; those of an OCI container are written by who may start it as root. CRI-O
copies the former into the latter (GHSA-2cgq-h8xw-2v5j), beside marks that no author can take away.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from weft.model.errors import Invalid
from weft.model.names import did_you_mean, printable
from weft.wire.cni.document import convert, project, shape
from weft.wire.cni.traffic_wishes import ANNOTATIONS as BANDWIDTH
from weft.wire.cni.wishes import LABELS_ANNOTATION, POD_ANNOTATIONS

OCI_ANNOTATIONS = "weft.dev/oci-annotations"
PREFIX = "weft.dev/"
NETWORK = "weft.dev/network"
PORTS = "weft.dev/ports"
IPS = "weft.dev/ips"
MAC = "weft.dev/mac"
KNOWN = (NETWORK, PORTS, IPS, MAC, LABELS_ANNOTATION)

POD_MARKS = (
    "io.kubernetes.pod.namespace",  # a label of the kubelet's, which CRI-O makes an annotation
    "io.kubernetes.cri-o.Namespace",
    "io.kubernetes.cri.sandbox-namespace",  # containerd
)
"""Annotations that only containers of Kubernetes have."""

_SHAPE = shape(OCI_ANNOTATIONS)
_SAID_AS = MappingProxyType(
    {
        "runtimeConfig.portMappings": f"annotation {PORTS}",
        "runtimeConfig.ips": f"annotation {IPS}",
        "runtimeConfig.mac": f"annotation {MAC}",
        f"runtimeConfig[{POD_ANNOTATIONS}][{LABELS_ANNOTATION}]": f"annotation {LABELS_ANNOTATION}",
        f"runtimeConfig[{POD_ANNOTATIONS}]": "annotations",
    }
)


class _Runtime(msgspec.Struct, frozen=True, kw_only=True):
    annotations: dict[str, str] | None = msgspec.field(default=None, name=OCI_ANNOTATIONS)


def runtime_config(given: Mapping[str, object], network: str) -> Mapping[str, object] | None:
    """What the hook's annotations say, as a CNI runtime would; None: no hook has called.

    Raises Invalid (code 7) naming the annotation.
    """
    if not given:
        return None
    found = convert(project(given, _SHAPE), _Runtime, "runtimeConfig").annotations
    if found is None:
        return None
    for name in found:
        if name.startswith(PREFIX) and name not in KNOWN:
            hint = did_you_mean(name, KNOWN) or f"; known are {', '.join(KNOWN)}"
            raise _invalid(printable(name), f"unknown{hint}")
    wanted = found.get(NETWORK, "")
    if wanted not in ("", network):
        raise _invalid(
            NETWORK, f"{printable(wanted)} is not the network of this hook, which is {network}"
        )
    if any(mark in found for mark in POD_MARKS):
        for name in (PORTS, IPS, MAC):
            if found.get(name):
                raise _invalid(name, "a pod of Kubernetes cannot ask for it by an annotation")
    said: dict[str, object] = {
        POD_ANNOTATIONS: {
            name: found[name] for name in (LABELS_ANNOTATION, *BANDWIDTH.values()) if name in found
        }
    }
    if listed := _items(found.get(IPS, "")):
        said["ips"] = listed
    if found.get(MAC):
        said["mac"] = found[MAC].strip()
    if ports := _items(found.get(PORTS, "")):
        said["portMappings"] = [_port(item) for item in ports]
    return said


def renamed(error: Invalid) -> Invalid:
    """The same error, naming the annotation in place of the key that it became."""
    for key, annotation in _SAID_AS.items():
        if error.field.startswith(key):
            text = error.message.replace(key, annotation, 1)
            return Invalid(text, field=error.field.replace(key, annotation, 1), reason=error.reason)
    return error


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _port(text: str) -> dict[str, object]:
    """`[ADDRESS:]HOSTPORT:PORT[/PROTOCOL]`, an IPv6 address in brackets."""
    bare, slash, protocol = text.partition("/")
    rest, _, inner = bare.rpartition(":")
    address, _, outer = rest.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        address = "["  # neither form
    if not (_is_number(outer) and _is_number(inner)) or "[" in address or (slash and not protocol):
        raise _invalid(
            PORTS,
            f"{printable(text)} is not of the form [ADDRESS:]HOSTPORT:PORT[/PROTOCOL], an IPv6 "
            "address in brackets",
        )
    port: dict[str, object] = {"hostPort": int(outer), "containerPort": int(inner)}
    if address:
        port["hostIP"] = address
    if protocol:
        port["protocol"] = protocol
    return port


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _invalid(annotation: str, why: str) -> Invalid:
    field = f"annotation {annotation}"
    return Invalid(f"{field}: {why}", field=field, reason="invalid-config")
