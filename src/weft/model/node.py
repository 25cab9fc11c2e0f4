"""Node: a machine that runs an agent, and what that agent says about it.

The spec is what others need to know of the node; the status is written by its own agent only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from weft.model.addresses import parse_address
from weft.model.errors import Invalid
from weft.model.metadata import Object, Spec


class NodeSpec(Spec, frozen=True, kw_only=True):
    """What others need to reach the node."""

    addresses: Annotated[
        tuple[str, ...], Meta(description="the node's own addresses, preferred first")
    ] = ()


class Condition(Spec, frozen=True, kw_only=True):
    """One thing about the node that holds or does not, as Kubernetes words it."""

    type: Annotated[str, Meta(description="what is judged, e.g. `Ready`")]
    status: Annotated[Literal["True", "False", "Unknown"], Meta(description="whether it holds")]
    reason: Annotated[str, Meta(description="a key of the error catalogue, or empty")] = ""
    message: Annotated[str, Meta(description="the same for a person")] = ""


class NodeStatus(Spec, frozen=True, kw_only=True):
    """What the node's agent last said about it."""

    version: Annotated[str, Meta(description="release of the agent")] = ""
    kernel: Annotated[str, Meta(description="release of the kernel")] = ""
    boot_id: Annotated[str, Meta(description="identifies the boot")] = ""
    families: Annotated[
        tuple[Literal["IPv4", "IPv6"], ...], Meta(description="address families pods get here")
    ] = ()
    mtu: Annotated[int, Meta(description="MTU of pods' interfaces; 0: not known yet")] = 0
    conditions: Annotated[
        tuple[Condition, ...], Meta(description="what holds and what does not")
    ] = ()


class Node(Object, frozen=True, kw_only=True):
    """A machine that runs an agent."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None  # None: its agent has not spoken yet
    kind: str = "Node"


def check_node(node: Node) -> None:
    """Raise `Invalid` for an address that is none or stands there twice."""
    seen: set[str] = set()
    for index, text in enumerate(node.spec.addresses):
        field = f"spec.addresses[{index}]"
        address = str(parse_address(text, field))
        if address in seen:
            raise Invalid(f"{field}: {address} twice", field=field, reason="invalid-object")
        seen.add(address)


def is_ready(node: Node) -> str:
    """`True`, `False` or `Unknown`: the status of the condition `Ready`."""
    for condition in node.status.conditions if node.status is not None else ():
        if condition.type == "Ready":
            return condition.status
    return "Unknown"
