"""Pod and Namespace: the labels that selectors select by.

Where Kubernetes runs, its own objects say this. In standalone mode these do: a Pod object is
made by `weft label`, by CNI_ARGS or from annotations, and may exist before its container does.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from weft.model.addresses import parse_address
from weft.model.metadata import Object, Spec
from weft.model.names import check_label_name


class PodSpec(Spec, frozen=True, kw_only=True):
    """Nothing is asked of a pod beyond its labels, which are in the metadata."""


class PodStatus(Spec, frozen=True, kw_only=True):
    """What the agent that attached the pod says about it."""

    node: Annotated[str, Meta(description="the node on which it is attached")] = ""
    addresses: Annotated[tuple[str, ...], Meta(description="its addresses")] = ()


class Pod(Object, frozen=True, kw_only=True):
    """Labels of a pod in standalone mode."""

    spec: PodSpec = PodSpec()
    status: PodStatus | None = None  # None: not attached
    kind: str = "Pod"


class Namespace(Object, frozen=True, kw_only=True):
    """Labels of a namespace in standalone mode."""

    kind: str = "Namespace"


def check_pod(pod: Pod) -> None:
    """Raise `Invalid` for a status with an address that is none."""
    for index, text in enumerate(pod.status.addresses if pod.status is not None else ()):
        parse_address(text, f"status.addresses[{index}]")


def check_namespace(namespace: Namespace) -> None:
    """Raise `Invalid` unless the name is one that a namespaced object could refer to."""
    check_label_name(namespace.metadata.name, "metadata.name")
