"""Which kernels are refused, from the text of `uname -r` alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from weft.model.kernel_release import unsupported


@pytest.mark.parametrize(
    "release",
    [
        "5.15.0",
        "5.15",
        "5.15.0-91-generic",
        "5.15.167.4-microsoft-standard-WSL2",
        "6.1.0-30-amd64",
        "6.18.5",
        "10.0-rc1",
        "10.0.0-rc1+",
        "6.12.0-55.el10.x86_64",
        "5.14.0-427.el9",
        "5.14.0-427.13.1.el9_4.x86_64",
        "5.14.0-570.12.1.el9_6.aarch64+64k",
    ],
)
def test_a_kernel_new_enough_is_taken(release: str) -> None:
    assert unsupported(release) is None


@pytest.mark.parametrize(
    "release",
    [
        "5.14.0",
        "5.14.21-150500.55.19-default",
        "5.14.0-362.8.1.el9_3.x86_64",
        "5.14.0-70.el9",
        "5.14.0-427.el8",
        "5.14.0-427-generic",
        "5.10.0-28-amd64",
        "5.4",
        "5.1.0",
        "4.18.0-553.el8_10.x86_64",
        "3.10.0-1160.el7.x86_64",
        "2.6.61",
    ],
)
def test_an_older_kernel_is_refused_with_what_is_needed(release: str) -> None:
    said = unsupported(release) or ""
    assert release in said
    assert "5.15 or newer" in said


@pytest.mark.parametrize(
    "release",
    [
        "",
        "linux",
        "5",
        "v6.1",
        ".15",
        "6.",
        "-6.1",
        "\u0666.1",
        " 6.1",
        "6,1",
        "garbage\n6.1",
        "x" * 9999,
    ],
)
def test_a_release_that_cannot_be_read_is_refused_as_unknown(release: str) -> None:
    said = unsupported(release) or ""
    assert "cannot tell" in said
    assert len(said) < 400


OLD = ["setarch", os.uname().machine, "--uname-2.6"]
"""Runs a program with the release that the kernel tells programs of long ago: 2.6.something."""


@pytest.mark.parametrize("command", [["weft.main", "agent"], ["weft.lab.demo", "up"]])
def test_agent_and_up_refuse_an_old_kernel(command: list[str]) -> None:
    """Before anything is touched: no privileges are needed to be told."""
    argv = [*OLD, sys.executable, "-m", *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "this kernel is Linux 2.6." in done.stderr
    assert "5.15 or newer" in done.stderr
