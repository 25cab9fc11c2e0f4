"""The size of a test run, and the table of the acceptance matrix at its end.

A test marked `matrix(id, full, reduced)` asks the `count` fixture how often to do its thing.
WEFT_COUNTS=full (./dev test full) gives the matrix's own figure; anything else gives the reduced
one, so that every matrix test is run, smaller, in the everyday run. What was run stands beside
what the matrix asks for at the end of the report, also where a test failed or was skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

SIZES = ("reduced", "full")


class Matrix:
    """Collects one line a matrix test: id, test, count run, full count, outcome."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.lines: dict[str, dict[str, Any]] = {}

    def count_for(self, item: pytest.Item) -> int | None:
        marker = item.get_closest_marker("matrix")
        if marker is None:
            return None
        wanted = _arguments(marker)
        return int(wanted["full"] if self.full else wanted["reduced"])

    def note(self, item: pytest.Item, outcome: str) -> None:
        marker = item.get_closest_marker("matrix")
        if marker is None:
            return
        wanted = _arguments(marker)
        self.lines[item.nodeid] = {
            "id": wanted["id"],
            "count": self.count_for(item) if outcome != "skipped" else 0,
            "full": int(wanted["full"]),
            "outcome": outcome,
        }


def _arguments(marker: pytest.Mark) -> dict[str, Any]:
    names = ("id", "full", "reduced")
    return {**dict(zip(names, marker.args, strict=False)), **marker.kwargs}


def pytest_configure(config: pytest.Config) -> None:
    size = os.environ.get("WEFT_COUNTS", "reduced")
    if size not in SIZES:
        raise pytest.UsageError(f"WEFT_COUNTS={size}: must be one of {', '.join(SIZES)}")
    config.stash[MATRIX] = Matrix(full=size == "full")


MATRIX = pytest.StashKey[Matrix]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # gRPC leaves threads in this process, beside which a forked lab node may wait for ever
    items.sort(key=lambda item: "contract" in item.path.parts)
    for item in items:
        marker = item.get_closest_marker("matrix")
        if marker is not None and {"id", "full", "reduced"} - set(_arguments(marker)):
            raise pytest.UsageError(f"{item.nodeid}: matrix(id, full, reduced) needs all three")


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How often this matrix test does its thing in a run of this size."""
    wanted = request.config.stash[MATRIX].count_for(request.node)
    if wanted is None:
        pytest.fail("the `count` fixture needs the matrix(id, full, reduced) marker")
    return wanted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if report.when == "call" or report.outcome != "passed":
        item.config.stash[MATRIX].note(item, report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    matrix = config.stash[MATRIX]
    if not matrix.lines:
        return
    terminalreporter.section(f"matrix tests, {'full' if matrix.full else 'reduced'} counts")
    rows = [("id", "count run", "full count", "outcome", "test")]
    rows += [
        (str(v["id"]), f"{v['count']:,}", f"{v['full']:,}", v["outcome"], nodeid.split("::")[-1])
        for nodeid, v in sorted(matrix.lines.items(), key=lambda line: str(line[1]["id"]))
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, run, full, outcome, test in rows:
        terminalreporter.write_line(
            f"{name:<{wide[0]}}  {run:>{wide[1]}}  {full:>{wide[2]}}  {outcome:<{wide[3]}}  {test}"
        )
