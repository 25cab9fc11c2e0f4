"""All groups in the order they run. A further group is one file and one line here."""

from __future__ import annotations

from weft.lab.conformance import (
    check,
    concurrency,
    errors,
    gc,
    hostile,
    idempotence,
    lies,
    reachability,
    spoofing,
    status,
    verbs,
    versions,
)
from weft.lab.conformance.case import Case

GROUPS: dict[str, tuple[Case, ...]] = {
    "verbs": verbs.CASES,
    "versions": versions.CASES,
    "errors": errors.CASES,
    "idempotence": idempotence.CASES,
    "check": check.CASES,
    "status": status.CASES,
    "gc": gc.CASES,
    "concurrency": concurrency.CASES,
    "hostile": hostile.CASES,
    "reachability": reachability.CASES,
    "spoofing": (*spoofing.CASES, *lies.CASES),
}
