"""Running the command line in the test's own process, against an agent without a kernel."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from fake_agent import CREATED, Fake, serving

from weft.cli import columns
from weft.main import main


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def run(*arguments: str, stdin: str = "", out: io.StringIO | None = None) -> Ran:
    """One command, as from a shell; `out` can be looked at while it runs."""
    out, err = out or io.StringIO(), io.StringIO()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = main(list(arguments))
    finally:
        sys.stdin = before
    return Ran(status, out.getvalue(), err.getvalue())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """A running agent that WEFT_SOCKET names; five minutes have passed since CREATED."""
    made = Fake()
    clock = SimpleNamespace(time=lambda: CREATED + 300, strptime=time.strptime)
    monkeypatch.setattr(columns, "time", clock)
    with tempfile.TemporaryDirectory() as directory:  # tmp_path may be too long for a socket
        path = Path(directory) / "agent.sock"
        monkeypatch.setitem(os.environ, "WEFT_SOCKET", str(path))
        with serving(made, path):
            yield made


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No agent: the path where none listens."""
    path = tmp_path / "agent.sock"
    monkeypatch.setitem(os.environ, "WEFT_SOCKET", str(path))
    return path
