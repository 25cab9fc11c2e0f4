"""What every object carries besides its spec and status: name, labels, revision.

The shape is Kubernetes' ObjectMeta, reduced to what weft reads, so that one manifest serves
both. `uid`, `resourceVersion`, `creationTimestamp` and `generation` are written by the store's
side, never believed from a manifest. The kinds themselves: `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from weft.model.errors import Invalid
from weft.model.names import check_annotations, check_label_name, check_labels, check_name

API_VERSION = "weft.dev/v1alpha1"
DEFAULT_NAMESPACE = "default"


class Spec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename="camel",
):
    """Base of every struct inside an object: frozen, strict, camelCase outside."""


class Metadata(Spec, frozen=True, kw_only=True):
    """ObjectMeta. `namespace` is empty for kinds of the whole cluster."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    generation: int = 0


class Object(Spec, frozen=True, kw_only=True):
    """Base of every kind. `kind` and `apiVersion` are written out although they are constant."""

    metadata: Metadata
    api_version: str = API_VERSION
    kind: str = ""


def check_metadata(metadata: Metadata, *, namespaced: bool) -> None:
    """Raise `Invalid` for a bad name, namespace, label or annotation."""
    check_name(metadata.name, "metadata.name")
    if namespaced:
        check_label_name(metadata.namespace, "metadata.namespace")
    elif metadata.namespace:
        raise Invalid(
            "metadata.namespace: this kind belongs to the whole cluster; remove the namespace",
            field="metadata.namespace",
            reason="invalid-object",
        )
    check_labels(metadata.labels, "metadata.labels")
    check_annotations(metadata.annotations, "metadata.annotations")
