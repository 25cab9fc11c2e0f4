"""Label selectors, with absent, empty and unknown kept apart.

* selector absent (`None`): no restriction was written; matches anything, even a thing whose
  labels are not known.
* selector empty (`{}`): all things, as in Kubernetes (metav1.LabelSelector).
* labels unknown (`None`): the object has not been read; a selector with requirements answers
  `None`, and the caller must not take that for a yes.

Labels and their rules: `names.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from weft.model.errors import Invalid
from weft.model.names import check_label_key, check_label_value

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of `matchExpressions`. A key that is missing satisfies NotIn (Kubernetes)."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels satisfy the requirement."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None


class Selector(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename="camel",
):
    """Requirements joined by AND; none at all selects everything."""

    match_labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


def matches(selector: Selector | None, labels: Mapping[str, str] | None) -> bool | None:
    """Whether `selector` selects a thing with `labels`; `None`: cannot be told yet."""
    if selector is None:
        return True
    if not selector.match_labels and not selector.match_expressions:
        return True
    if labels is None:
        return None
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        requirement.holds(labels) for requirement in selector.match_expressions
    )


def check_selector(selector: Selector | None, field: str) -> None:
    """Raise `Invalid` for bad keys, values, or values that do not fit the operator."""
    if selector is None:
        return
    for key, value in selector.match_labels.items():
        check_label_key(key, f"{field}.matchLabels")
        check_label_value(value, f"{field}.matchLabels.{key}")
    for index, requirement in enumerate(selector.match_expressions):
        at = f"{field}.matchExpressions[{index}]"
        check_label_key(requirement.key, f"{at}.key")
        wants_values = requirement.operator in ("In", "NotIn")
        if wants_values != bool(requirement.values):
            raise Invalid(
                f"{at}.values: {requirement.operator} takes "
                + ("at least one value" if wants_values else "no values"),
                field=f"{at}.values",
                reason="invalid-object",
            )
        for value in requirement.values:
            check_label_value(value, f"{at}.values")


def describe(selector: Selector | None) -> str:
    """The selector in one line, as `kubectl` prints it."""
    if selector is None:
        return "<any>"
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for each in selector.match_expressions:
        match each.operator:
            case "In" | "NotIn":
                parts.append(f"{each.key} {each.operator.lower()} ({','.join(each.values)})")
            case "Exists":
                parts.append(each.key)
            case "DoesNotExist":
                parts.append(f"!{each.key}")
    return ",".join(parts) or "<all>"
