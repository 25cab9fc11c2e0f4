"""Names and labels as Kubernetes spells them, and the nearest known word for a mistyped one.

Every check raises `Invalid` naming the field, so that callers pass the dotted path and nothing
else. Rules: RFC 1123 labels and subdomains (63 and 253 characters), Kubernetes' label keys and
values. Patterns are used with `fullmatch` and explicit classes: `$` accepts a trailing newline
and `\\d` accepts other scripts' digits. Selectors over labels: `selectors.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from weft.model.errors import Invalid

MAX_LABEL = 63
MAX_SUBDOMAIN = 253
MAX_LABELS = 256
MAX_ANNOTATION_BYTES = 256 * 1024

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")


def check_label_name(value: str, field: str) -> None:
    """An RFC 1123 label: what a namespace is called."""
    if len(value) > MAX_LABEL or not _LABEL.fullmatch(value):
        raise Invalid(
            f"{field}: {printable(value)} is not a name: use at most {MAX_LABEL} lower-case "
            "letters, digits and '-', beginning and ending with a letter or digit",
            field=field,
            reason="invalid-object",
        )


def check_name(value: str, field: str) -> None:
    """An RFC 1123 subdomain: what most objects are called."""
    if len(value) > MAX_SUBDOMAIN or not _SUBDOMAIN.fullmatch(value):
        raise Invalid(
            f"{field}: {printable(value)} is not a name: use at most {MAX_SUBDOMAIN} lower-case "
            "letters, digits, '-' and '.', each part beginning and ending with a letter or digit",
            field=field,
            reason="invalid-object",
        )


def check_label_key(key: str, field: str) -> None:
    """A label key: an optional DNS subdomain and '/', then at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    prefix_is_good = not slash or (len(prefix) <= MAX_SUBDOMAIN and _SUBDOMAIN.fullmatch(prefix))
    if not prefix_is_good or len(name) > MAX_LABEL or not _QUALIFIED.fullmatch(name):
        raise Invalid(
            f"{field}: {printable(key)} is not a label key: [DNS name/]at most {MAX_LABEL} "
            "letters, digits, '-', '_' and '.'",
            field=field,
            reason="invalid-object",
        )


def check_label_value(value: str, field: str) -> None:
    """A label value: empty, or at most 63 letters, digits, '-', '_' and '.'."""
    if value and (len(value) > MAX_LABEL or not _QUALIFIED.fullmatch(value)):
        raise Invalid(
            f"{field}: {printable(value)} is not a label value: at most {MAX_LABEL} letters, "
            "digits, '-', '_' and '.', beginning and ending with a letter or digit",
            field=field,
            reason="invalid-object",
        )


def check_labels(labels: Mapping[str, str], field: str) -> None:
    """A whole label map."""
    if len(labels) > MAX_LABELS:
        raise Invalid(
            f"{field}: {len(labels)} labels; at most {MAX_LABELS} are allowed",
            field=field,
            reason="invalid-object",
        )
    for key, value in labels.items():
        check_label_key(key, field)
        check_label_value(value, f"{field}.{key}")


def check_annotations(annotations: Mapping[str, str], field: str) -> None:
    """Annotation keys are label keys; values are free, all together at most 256 KiB."""
    size = 0
    for key, value in annotations.items():
        check_label_key(key, field)
        size += len(key) + len(value)
    if size > MAX_ANNOTATION_BYTES:
        raise Invalid(
            f"{field}: {size} characters; at most {MAX_ANNOTATION_BYTES} are allowed",
            field=field,
            reason="invalid-object",
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`, or "" when none is near. Case does not count."""
    from difflib import get_close_matches  # only when something was mistyped

    by_folded = {each.casefold(): each for each in known}
    found = get_close_matches(word[:MAX_SUBDOMAIN].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or "", to be appended to a message."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""


def printable(value: str, limit: int = 80) -> str:
    """A foreign string, quoted and shortened so that it is safe on a terminal and in a log."""
    shown = value if len(value) <= limit else value[:limit] + "..."
    return ascii(shown)
