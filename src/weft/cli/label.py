"""`weft label`: labels of pods, namespaces, pools and nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from weft.cli.completing import complete_labelled
from weft.cli.names import parse_labels
from weft.cli.options import Namespace, client_of
from weft.cli.output import echo, name_of
from weft.model.metadata import DEFAULT_NAMESPACE
from weft.wire.api import LabelParams
from weft.wire.views import find_shown_kind


def label(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Kind, e.g. pod.")],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name.", autocompletion=complete_labelled)
    ],
    labels: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE|KEY-...", help="Labels to set, and keys to remove."),
    ],
    namespace: Namespace = DEFAULT_NAMESPACE,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace values that labels have already.")
    ] = False,
) -> None:
    """Set or remove labels of an object.

    Where no Kubernetes runs, this is how pods and namespaces get the labels that selectors
    select by: one that weft has not heard of yet is created, and may be attached later.

    \b
    Examples:
      weft label pod web-0 app=web tier=front
      weft label pod web-0 tier-
      weft label namespace shop team=blue --overwrite
    """
    wanted, removed = parse_labels(labels)
    known = find_shown_kind(kind)
    done = client_of(ctx).call(
        "label",
        LabelParams(
            kind=known.kind,
            name=name,
            namespace=namespace if known.namespaced else "",
            set=wanted,
            remove=removed,
            overwrite=overwrite,
        ),
    )
    result = "not labeled" if done.result == "unchanged" else done.result
    echo(f"{name_of(done.kind, done.name)} {result}")
