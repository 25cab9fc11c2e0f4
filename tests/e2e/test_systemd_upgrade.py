"""`weft upgrade` under systemd: the units change with the release, and back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance import ask, host_link
from booted import UNITS, BootedHost, booted
from releases import NO_HISTORY, Laid
from weft.upgrade import units as shelf

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OWN = "[Unit]\nDescription=edited\n"
Releases = dict[str, Laid]


def _units_of(release: Laid) -> Path:
    """Where a release's units lie; a copy of this one has this one's."""
    found = release.root / "package" / "deploy"
    return found if found.is_dir() else DEPLOY


def _texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.glob("weft*.s*") if path.is_file()}


@pytest.fixture
def kept(releases: Releases) -> Iterator[BootedHost]:
    """A node on which the old release serves under its own units, with a drop-in of somebody's."""
    with booted(releases["old"]) as host:
        old = _units_of(releases["old"])
        host.install(old)
        host.write("weft.service.d/own.conf", OWN)
        host.start(wait=False)
        host.systemctl("enable", "--now", *_texts(old))
        yield host


def _report(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    assert done.returncode == 0, done.stdout + done.stderr
    return {step["name"]: step for step in json.loads(done.stdout)["steps"]}


def test_units_change_with_the_release_and_back(
    kept: BootedHost, releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = releases["old"], releases["new"]
    before, after = _texts(_units_of(old)), _texts(DEPLOY)
    if before == after:
        with capsys.disabled():
            print(f"\n{NO_HISTORY}", end="")
    place = kept.node.path(UNITS)
    pod = kept.add("pod")

    report = _report(kept.upgrade(new, "-o", "json"))
    assert list(report) == ["link", "units", "agent", "launchers", "answer"]
    assert report["units"]["state"] == ("already" if before == after else "done")
    assert _texts(place) == after
    assert kept.versions()[:2] == (new.version, new.program)
    assert kept.shown("weft.socket", "ActiveState") == "active"
    assert kept.shown("weft.service", "NeedDaemonReload") == "no"
    assert kept.shown("weft.service", "WatchdogUSec") == "45s"
    assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0
    assert "nothing to do" in kept.upgrade(new).stdout

    boot = place / "weft-boot.service"
    boot.write_text(boot.read_text() + "# edited\n")
    edited = boot.read_text()
    report = _report(kept.upgrade(new, "--to", old.program, "-o", "json"))
    assert list(report) == ["launchers", "units", "agent", "link", "answer"]
    assert "leave weft-boot.service, which somebody edited" in report["units"]["text"]
    assert _texts(place) == before | {"weft-boot.service": edited}
    assert kept.versions()[:2] == (old.version, old.program)
    if before != after:
        assert kept.shown("weft.socket", "ActiveState") == "inactive"
        assert (place / shelf.APART).exists()
    assert not kept.node.path("/var/lib/weft/units").exists()
    assert (place / "weft.service.d/own.conf").read_text() == OWN
    assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0

    _report(kept.upgrade(new, "-o", "json"))
    assert not (place / shelf.APART).exists()
    assert kept.shown("weft.socket", "ActiveState") == "active"
    assert kept.pod_links == {host_link("pod")}
    kept.drop("pod")
