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
from weft.model.reasons import REASONS
from weft.wire.api import ListParams, Plain
from weft.wire.views import VIEWS

BRIEFLY = 1.0  # seconds


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """A kind first, then names of the objects of that kind."""
    typed = ctx.params.get("targets") or ()
    if not typed:
        every = [kind.plural for kind in (*KINDS.values(), *VIEWS.values())]
        return [word for word in every if word.startswith(incomplete)]
    return names_of_kind(str(typed[0]), incomplete)


def complete_labelled(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the objects of the kind that was typed before."""
    return names_of_kind(str(ctx.params.get("kind") or ""), incomplete)


def names_of_kind(kind: str, incomplete: str) -> list[str]:
    """Names that the agent knows and that begin with what was typed."""
    names = (
        str(item.get("metadata", {}).get("name", "")) for item in _listed(ListParams(kind=kind))
    )
    return sorted({name for name in names if name.startswith(incomplete)})


def _listed(params: ListParams) -> Sequence[Plain]:
    client = Client(os.environ.get("WEFT_SOCKET", SOCKET), patience=BRIEFLY)
    try:
        found = client.call("list", params)
    except (WeftError, OSError):
        return ()
    return tuple(found.items)


def complete_pod(ctx: typer.Context, incomplete: str) -> list[str]:
    """Pods that are attached to this node, as NAMESPACE/NAME; with a namespace or none in them also
    the names alone; containers without a pod by their id."""
    words: set[str] = set()
    for item in _listed(ListParams(kind="Attachment", namespace=ctx.params.get("namespace"))):
        spec = item.get("spec", {})
        pod = str(spec.get("pod", ""))
        words.add(pod or str(spec.get("container", "")))
        if pod and (incomplete or ctx.params.get("namespace")):
            words.add(pod.partition("/")[2])
    return sorted(word for word in words if word.startswith(incomplete))


def complete_reason(incomplete: str) -> list[str]:
    """Reasons of the error catalogue."""
    return [reason for reason in REASONS if reason.startswith(incomplete)]
