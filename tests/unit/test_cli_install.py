"""`weft install` and `weft uninstall` on trees of files, also killed at any point."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_run import Ran, fake, run
from fake_agent import Fake

from weft.cli import install as command
from weft.cni import asking, install, placing
from weft.cni.install import DEFAULT_CONFLIST, FORMER_CONFLISTS, MARK
from weft.cni.installed import STATE
from weft.cni.placing import ASIDE, FILE

__all__ = ["fake"]

BRIDGE = json.dumps({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})
DEBIAN = """version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
"""


class Root:
    """An image's tree: Debian with its containerd and a network of somebody else's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("etc/containerd/config.toml", DEBIAN)
        self.write("etc/cni/net.d/05-bridge.conflist", BRIDGE)
        (path / "var/lib").mkdir(parents=True)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def files(self) -> dict[str, bytes | None]:
        """Every file and directory."""
        return {
            str(each.relative_to(self.path)): each.read_bytes() if each.is_file() else None
            for each in self.path.rglob("*")
        }

    def install(self, *options: str) -> Ran:
        return run("install", "--root", str(self.path), *options)

    def uninstall(self, *options: str) -> Ran:
        return run("uninstall", "--root", str(self.path), *options)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    launcher = tmp_path / "launcher"
    launcher.write_bytes(MARK + b"0.3.0")
    monkeypatch.setattr(install, "LAUNCHER", launcher)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk is not what is tested
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


def alone(root: Root) -> Root:
    (root.path / "etc/cni/net.d/05-bridge.conflist").unlink()
    return root


def test_launcher_and_network_go_where_containerd_looks(root: Root) -> None:
    before = alone(root).files()
    ran = root.install()
    assert (ran.status, "runtimes call weft" in ran.out) == (0, True)
    assert "containerd takes 10-weft.conflist of /etc/cni/net.d" in ran.out
    for directory in ("usr/lib/cni", "opt/cni/bin"):
        place = root.path / directory / "weft"
        assert (place.read_bytes(), place.stat().st_mode & 0o777) == (MARK + b"0.3.0", 0o755)
    assert (root.path / "etc/cni/net.d" / FILE).read_bytes() == DEFAULT_CONFLIST
    once = root.files()
    again = root.install()
    assert (again.status, "nothing to do" in again.out, root.files()) == (0, True, once)
    assert root.uninstall().status == 0
    assert root.files() == before


def test_dry_run_changes_nothing(root: Root) -> None:
    before = root.files()
    ran = root.install("--dry-run", "--take-over")
    assert (ran.status, root.files()) == (0, before)
    assert "would take 10-weft.conflist" in ran.out
    assert "planned: /usr/lib/cni/weft" in ran.out
    assert f"05-bridge.conflist{ASIDE}" in ran.out


def test_network_that_shadows_ours_is_named_and_no_success_is_claimed(root: Root) -> None:
    ran = root.install()
    assert ran.status == 1
    assert "/etc/cni/net.d/05-bridge.conflist comes before 10-weft.conflist" in ran.err
    assert "`weft install --take-over` sets aside /etc/cni/net.d/05-bridge.conflist" in ran.err
    assert (root.path / "etc/cni/net.d/05-bridge.conflist").read_text() == BRIDGE


def test_taking_over_sets_aside_and_uninstall_puts_back(root: Root) -> None:
    before = root.files()
    assert root.install("--take-over").status == 0
    assert sorted(os.listdir(root.path / "etc/cni/net.d")) == [
        f"05-bridge.conflist{ASIDE}",
        FILE,
    ]
    assert root.install().status == 0  # nothing shadows it any more
    ran = root.uninstall()
    assert (ran.status, root.files()) == (0, before)
    assert "05-bridge.conflist is back" in ran.out
    assert "no `weft install` is on record" in root.uninstall().out


def test_what_was_there_before_is_left(root: Root) -> None:
    install.place_launcher(root.path / "opt/cni/bin")
    before = alone(root).files()
    assert root.install().status == 0
    ran = root.uninstall()
    assert (ran.status, root.files()) == (0, before)
    assert "/opt/cni/bin/weft: there before `weft install`, and left" in ran.out
    assert "/opt/cni/bin/weft came by other means" in root.uninstall().out


def test_new_network_under_the_old_name_is_left_beside_the_one_set_aside(root: Root) -> None:
    assert root.install("--take-over").status == 0
    new = root.write("etc/cni/net.d/05-bridge.conflist", BRIDGE.replace("net", "new"))
    ran = root.uninstall()
    assert (ran.status, "there is a new /etc/cni/net.d/05-bridge.conflist" in ran.err) == (1, True)
    assert "new" in new.read_text()
    assert Path(f"{new}{ASIDE}").read_text() == BRIDGE


def test_answer_as_data_names_runtimes_steps_and_shadows(root: Root) -> None:
    ran = root.install("-o", "json")
    said: dict[str, Any] = json.loads(ran.out)
    assert (ran.status, said["outcome"], said["good"]) == (1, "shadowed", False)
    (found,) = said["runtimes"]
    assert found["runtime"]["settings"] == ["/etc/containerd/config.toml"]
    assert found["choice"]["shadows"] == ["05-bridge.conflist"]
    assert {each["kind"] for each in said["steps"]} == {"launcher", "network"}


def test_foreign_program_of_the_same_name_stops_it_before_anything_is_changed(root: Root) -> None:
    root.write("usr/lib/cni/weft", "#!/bin/sh", 0o755)
    root.write(f"etc/cni/net.d/{FILE}", BRIDGE)
    before = root.files()
    ran = root.install("--take-over")
    assert (ran.status, root.files()) == (1, before)
    assert "usr/lib/cni/weft exists and is not weft's" in ran.err
    assert f"{FILE} exists with other content" in ran.err


def test_network_of_an_earlier_release_is_replaced_and_an_edited_one_kept(root: Root) -> None:
    place = root.write(f"etc/cni/net.d/{FILE}", FORMER_CONFLISTS[0].decode())
    assert root.install("--take-over").status == 0
    assert place.read_bytes() == DEFAULT_CONFLIST
    edited = DEFAULT_CONFLIST.decode().replace('"weft",\n', '"mine",\n', 1)
    place.write_text(edited)
    assert root.install().status == 0
    assert place.read_text() == edited
    refused = root.uninstall()
    assert (refused.status, f"{FILE} would still call weft" in refused.err) == (1, True)
    forced = root.uninstall("--force")
    assert (forced.status, place.read_text()) == (1, edited)
    assert "it was edited" in forced.err


def test_settings_that_cannot_be_read_stop_it(root: Root) -> None:
    root.write("etc/containerd/config.toml", "[")
    before = root.files()
    ran = root.install()
    assert (ran.status, root.files()) == (1, before)
    assert "/etc/containerd/config.toml is no TOML" in ran.err


def test_directory_that_others_can_write_stops_it(root: Root) -> None:
    (root.path / "etc/cni/net.d").chmod(0o777)
    before = root.files()
    ran = root.install("--take-over")
    assert (ran.status, root.files()) == (1, before)
    assert "etc/cni/net.d is not safe to use: its mode 0777 lets others write" in ran.err


def test_read_only_directory_is_passed_over_where_the_runtime_has_another(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.path / "usr/lib/cni").mkdir(parents=True)
    monkeypatch.setattr(placing, "_is_read_only", lambda place: "usr/lib" in str(place))
    ran = alone(root).install()
    assert (ran.status, "usr/lib/cni is on a file system that cannot be" in ran.err) == (1, True)
    both = DEBIAN.replace('bin_dir = "/usr/lib/cni"', 'bin_dirs = ["/usr/lib/cni", "/srv/cni"]')
    root.write("etc/containerd/config.toml", both)
    (root.path / "srv/cni").mkdir(parents=True)
    assert root.install().status == 0
    assert (root.path / "srv/cni/weft").exists()


@pytest.mark.parametrize("relative", [True, False])
def test_links_are_followed_but_not_out_of_the_root(root: Root, relative: bool) -> None:
    place = root.path / "usr/lib/cni"
    place.parent.mkdir(parents=True)
    (root.path / "opt/cni/bin").mkdir(parents=True)
    place.symlink_to("../../opt/cni/bin" if relative else "/opt/cni/bin")
    ran = alone(root).install()
    assert ran.status == (0 if relative else 1)
    if relative:
        assert ran.out.count("launcher ") == 1
        assert root.uninstall().status == 0
    assert place.is_symlink() and os.listdir(root.path / "opt/cni/bin") == []
    assert ("make the link relative" in ran.err) is not relative


@pytest.mark.parametrize("option", ["--bin-dir", "--conf-dir"])
def test_further_directories_must_be_absolute(root: Root, option: str) -> None:
    assert option in root.install(option, "a/b").err
    assert root.install("--take-over", option, "/srv/cni/").status == 0
    assert len(os.listdir(root.path / "srv/cni")) == 1


def test_record_of_format_1_is_read(root: Root) -> None:
    place = root.write("srv/net.d/05-old.conflist.before-weft", BRIDGE)
    record = {
        "format": 1,
        "made": ["/srv/bin"],
        "launchers": ["/srv/bin/weft"],
        "networks": ["/srv/net.d/10-weft.conflist"],
        "aside": [{"path": "/srv/net.d/05-old.conflist", "kept": f"/srv/net.d/{place.name}"}],
    }
    root.write(f"{STATE.lstrip('/')}/installed.json", json.dumps(record), 0o600)
    root.write("srv/net.d/10-weft.conflist", DEFAULT_CONFLIST.decode())
    root.write("srv/bin/weft", MARK.decode(), 0o755)
    assert root.uninstall().status == 0
    assert os.listdir(root.path / "srv") == ["net.d"]
    assert os.listdir(root.path / "srv/net.d") == ["05-old.conflist"]


def test_record_of_a_newer_release_is_refused(root: Root) -> None:
    root.write(f"{STATE.lstrip('/')}/installed.json", '{"format": 2}', 0o600)
    (root.path / STATE.lstrip("/")).chmod(0o700)
    for ran in (root.install(), root.uninstall()):
        assert (ran.status, "newer release (format 2)" in ran.err) == (1, True)


@pytest.mark.usefixtures("fake")
def test_without_good_status_the_network_is_not_written(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_is_live", lambda _: True)
    monkeypatch.setattr(asking, "refusal", lambda _: "no pool has a free address")
    ran = root.install("--take-over")
    assert (ran.status, "no pool has a free address" in ran.err) == (1, True)
    assert os.listdir(root.path / "etc/cni/net.d") == ["05-bridge.conflist"]
    assert (root.path / "opt/cni/bin/weft").exists()
    monkeypatch.setattr(asking, "refusal", lambda _: "")
    assert root.install("--take-over").status == 0


def test_uninstall_refuses_while_containers_are_attached(
    root: Root, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    assert fake is not None
    assert root.install("--take-over").status == 0
    monkeypatch.setattr(command, "_is_live", lambda _: True)
    monkeypatch.setattr(command, "_attached", lambda _: ["weft/one/eth0"])
    held = root.files()
    ran = root.uninstall()
    assert (ran.status, root.files()) == (1, held)
    assert "containers are attached (1): weft/one/eth0" in ran.err
    assert root.uninstall("--force").status == 0


class Killed(BaseException):
    """The process ended here."""


def killed_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """The `number`th effect on files, counted over all kinds, never happens, nor anything after."""
    left = iter(range(number))

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return real(*arguments, **options)

        return call

    for name in ("rename", "link", "mkdir", "rmdir", "unlink"):
        patch.setattr(os, name, dying(getattr(os, name)))


@pytest.fixture
def points(root: Root) -> Iterator[Callable[[Callable[[], Ran]], Iterator[int]]]:
    """Runs something killed at its 1st, 2nd, ... effect, each time on the tree as it is now."""
    copy = root.path.with_name("copy")
    shutil.copytree(root.path, copy)

    def each(work: Callable[[], Ran]) -> Iterator[int]:
        for number in range(200):
            shutil.rmtree(root.path)
            shutil.copytree(copy, root.path)
            with pytest.MonkeyPatch.context() as patch:
                killed_at(number, patch)
                try:
                    work()
                except Killed:
                    pass
                else:
                    return
            yield number
        raise AssertionError("it never ended")

    yield each


def test_killed_install_is_finished_by_another_and_taken_back_whole(
    root: Root, points: Callable[[Callable[[], Ran]], Iterator[int]]
) -> None:
    before = root.files()
    seen = 0
    for seen in points(lambda: root.install("--take-over")):  # counted
        net = root.path / "etc/cni/net.d"
        assert any((net / name).exists() for name in ("05-bridge.conflist", FILE))
        if seen % 3 == 0:
            assert root.install("--take-over").status == 0
            assert (net / FILE).exists() and not (net / "05-bridge.conflist").exists()
        assert root.uninstall().status == 0
        assert root.files() == before, seen
    assert seen > 8


def test_killed_uninstall_is_finished_by_another(
    root: Root, points: Callable[[Callable[[], Ran]], Iterator[int]]
) -> None:
    before = root.files()
    seen = 0
    assert root.install("--take-over").status == 0
    shutil.rmtree(root.path.with_name("copy"))
    shutil.copytree(root.path, root.path.with_name("copy"))
    for seen in points(root.uninstall):  # counted
        assert root.uninstall().status == 0
        assert root.files() == before, seen
    assert seen > 6
