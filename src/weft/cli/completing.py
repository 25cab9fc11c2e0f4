"""Words that the shell may complete: kinds, names of objects, reasons.

Names are asked of the agent, briefly; where none answers there is nothing to offer. Nothing is
ever printed here: it would end up on the command line that is being typed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from weft.cli.client import SOCKET, Client
from weft.model.errors import WeftError
from weft.model.kinds import KINDS
from weft.model.metadata import DEFAULT_NAMESPACE
from weft.model.reasons import REASONS
from weft.wire.api import ListParams, Nothing, Plain
from weft.wire.views import VIEWS, find_shown_kind

BRIEFLY = 1.0  # seconds


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """A kind first, then names of the objects of that kind; or KIND/NAME."""
    typed = ctx.params.get("targets") or ()
    kind, slash, name = incomplete.partition("/")
    if slash and (not typed or "/" in str(typed[0])):
        return [f"{kind}/{each}" for each in names_of_kind(ctx, kind, name)]
    if not typed:
        every = [kind.plural for kind in (*KINDS.values(), *VIEWS.values())]
        return [word for word in every if word.startswith(incomplete)]
    return names_of_kind(ctx, str(typed[0]), incomplete)


def complete_labelled(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the objects of the kind that was typed before."""
    return names_of_kind(ctx, str(ctx.params.get("kind") or ""), incomplete)


def names_of_kind(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    """Names that the agent knows and that begin with what was typed, in the namespace that was."""
    try:
        namespaced = find_shown_kind(kind).namespaced
    except WeftError:
        return []
    everywhere = ctx.params.get("everywhere") or not namespaced
    namespace = None if everywhere else ctx.params.get("namespace")
    found = _listed(ctx, ListParams(kind=kind, namespace=namespace))
    names = (str(item.get("metadata", {}).get("name", "")) for item in found)
    return sorted({name for name in names if name.startswith(incomplete)})


def complete_namespace(ctx: typer.Context, incomplete: str) -> list[str]:
    """Namespaces of what is stored and of what is attached."""
    names = {DEFAULT_NAMESPACE}
    names |= {item["metadata"]["name"] for item in _listed(ctx, ListParams(kind="Namespace"))}
    for item in _listed(ctx, ListParams(kind="Pod")):
        names.add(str(item["metadata"].get("namespace", "")))
    for item in _listed(ctx, ListParams(kind="Attachment")):
        names.add(str(item.get("spec", {}).get("pod", "")).partition("/")[0])
    return sorted(name for name in names - {""} if name.startswith(incomplete))


def complete_address(ctx: typer.Context, incomplete: str) -> list[str]:
    """Addresses that are not free on this node."""
    try:
        used = _client(ctx).call("ipam.show", Nothing()).addresses
    except (WeftError, OSError):
        return []
    return sorted(each.address for each in used if each.address.startswith(incomplete))


def _client(ctx: typer.Context) -> Client:
    named = ctx.find_root().params.get("socket") or os.environ.get("WEFT_SOCKET") or SOCKET
    return Client(str(named), patience=BRIEFLY)


def _listed(ctx: typer.Context, params: ListParams) -> Sequence[Plain]:
    try:
        found = _client(ctx).call("list", params)
    except (WeftError, OSError):
        return ()
    return tuple(found.items)


def complete_pod(ctx: typer.Context, incomplete: str) -> list[str]:
    """Pods that are attached to this node, as NAMESPACE/NAME; with a namespace or none in them also
    the names alone; containers without a pod by their id."""
    words: set[str] = set()
    within = ctx.params.get("namespace")
    for item in _listed(ctx, ListParams(kind="Attachment", namespace=within)):
        spec = item.get("spec", {})
        pod = str(spec.get("pod", ""))
        words.add(pod or str(spec.get("container", "")))
        if pod and (incomplete or within):
            words.add(pod.partition("/")[2])
    return sorted(word for word in words if word.startswith(incomplete))


def complete_reason(incomplete: str) -> list[str]:
    """Reasons of the error catalogue."""
    return [reason for reason in REASONS if reason.startswith(incomplete)]
