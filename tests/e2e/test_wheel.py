"""The wheel carries the launcher, executable, for the processor it was compiled for."""

from __future__ import annotations

import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", made, ROOT],
        check=True,
        timeout=300,
    )
    (path,) = made.glob("*.whl")
    return path


def test_the_wheel_carries_an_executable_launcher(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = archive.getinfo("weft/cni/launcher")
        assert stat.S_IMODE(entry.external_attr >> 16) == 0o755
        assert archive.read(entry).startswith(b"\x7fELF")
        assert not [name for name in archive.namelist() if name.endswith((".c", ".h"))]


def test_the_wheels_tag_names_processor_and_both_c_libraries(wheel: Path) -> None:
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout
    assert f"manylinux2014_{machine.strip()}" in wheel.name
    assert f"musllinux_1_1_{machine.strip()}" in wheel.name


def test_an_installed_wheels_launcher_answers(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    offline = ["--no-deps", "--no-index", "--target", str(site)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, wheel], check=True, timeout=120
    )
    done = subprocess.run(
        [site / "weft" / "cni" / "launcher"],
        env={"CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert b"supportedVersions" in done.stdout
