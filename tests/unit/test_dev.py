"""The edges of ./dev that need neither root nor set-up."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parents[2] / "dev"
TOOLS = ("sh", "dirname", "id", "sed", "cat", "printf")


def run(*arguments: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    nobody = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    return subprocess.run(
        [str(DEV), *arguments],
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        **nobody,  # type: ignore[call-overload]  # user and group are integers
    )


def test_help_names_every_verb() -> None:
    told = run("help")
    assert told.returncode == 0
    for verb in ("up", "down", "test", "check", "bench", "shell"):
        assert f"\n  {verb} " in told.stdout


@pytest.mark.parametrize("arguments", [("sideways",), ("up", "--now"), ("down", "--hard")])
def test_unknown_verb_or_argument_is_refused_before_anything_is_done(
    arguments: tuple[str, ...],
) -> None:
    told = run(*arguments)
    assert told.returncode != 0
    assert "==>" not in told.stderr


def test_verb_that_needs_root_says_so_where_there_is_no_sudo() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # nobody has to look into it
        for tool in TOOLS:
            os.symlink(shutil.which(tool, path="/usr/bin:/bin") or tool, f"{directory}/{tool}")
        told = run("up", path=directory)
    assert told.returncode == 1
    assert "'up' needs root, and there is no sudo here" in told.stderr


def test_script_is_plain_posix_shell() -> None:
    assert DEV.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["/bin/sh", "-n", str(DEV)], check=True, timeout=5)
