"""The systemd units and the alert rules, judged by the programs that read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = ("weft-boot.service", "weft.socket", "weft.service")
MOST_EXPOSURE = 6.0  # of 10; a service without any directive has 9.6


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that this machine has."""
    made = []
    for name in UNITS:
        path = tmp_path / name
        text = (DEPLOY / name).read_text()
        path.write_text(text.replace("/usr/local/bin/weft", "/bin/true"))
        made.append(path)
    return made


def test_systemd_understands_every_line_of_the_units(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    about = [line for line in done.stderr.splitlines() if "weft" in line]
    assert about == []


def test_a_line_that_systemd_does_not_know_is_noticed(units: list[Path]) -> None:
    """The test above can fail."""
    units[2].write_text(units[2].read_text().replace("WatchdogSec=", "WatchdogSek="))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    assert "WatchdogSek" in done.stderr


def test_the_agents_unit_gives_up_what_the_agent_never_does(units: list[Path]) -> None:
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={int(MOST_EXPOSURE * 10)}", units[2]),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_prometheus_understands_the_alerts(tmp_path: Path) -> None:
    rules = DEPLOY / "alerts.yaml"
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(rules.read_text().replace("weft_ready == 0", "weft_ready ==", 1))
    done = subprocess.run(["promtool", "check", "rules", broken], capture_output=True, text=True)
    assert done.returncode != 0
