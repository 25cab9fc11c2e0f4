"""The installer: whole files, unchanged ones untouched, others' files neither replaced nor lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from weft.cni import install
from weft.cni.install import (
    DEFAULT_CONFLIST,
    FORMER_CONFLISTS,
    place_launcher,
    remove_conflist,
    remove_launcher,
    write_conflist,
)
from weft.model.errors import Conflict, Invalid, NotFound


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built"
    path.write_bytes(b"\x7fELF" + install.MARK + b"1")
    return path


def test_the_launcher_is_placed_executable_and_alone(tmp_path: Path, source: Path) -> None:
    directory = tmp_path / "opt" / "cni" / "bin"
    assert place_launcher(directory, "weft", source)
    assert (directory / "weft").read_bytes() == source.read_bytes()
    assert (directory / "weft").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in directory.iterdir()] == ["weft"]


def test_a_launcher_of_the_same_bytes_is_not_touched(tmp_path: Path, source: Path) -> None:
    place_launcher(tmp_path, "weft", source)
    before = (tmp_path / "weft").stat()
    assert not place_launcher(tmp_path, "weft", source)
    after = (tmp_path / "weft").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_launcher_of_another_version_or_mode_is_replaced(tmp_path: Path, source: Path) -> None:
    place_launcher(tmp_path, "weft", source)
    (tmp_path / "weft").chmod(0o644)
    assert place_launcher(tmp_path, "weft", source)
    assert (tmp_path / "weft").stat().st_mode & 0o777 == 0o755
    source.write_bytes(source.read_bytes() + b"2")
    assert place_launcher(tmp_path, "weft", source)
    assert (tmp_path / "weft").read_bytes().endswith(b"2")


def test_another_projects_plugin_is_neither_replaced_nor_removed(
    tmp_path: Path, source: Path
) -> None:
    (tmp_path / "bridge").write_bytes(b"\x7fELF other")
    with pytest.raises(Conflict, match="not weft's"):
        place_launcher(tmp_path, "bridge", source)
    assert not remove_launcher(tmp_path, "bridge")
    assert (tmp_path / "bridge").read_bytes() == b"\x7fELF other"


def link_to_passwd(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_passwd])
def test_what_is_no_regular_file_stays(
    tmp_path: Path, source: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "weft")
    before = os.lstat(tmp_path / "weft")
    with pytest.raises(Conflict):
        place_launcher(tmp_path, "weft", source)
    assert not remove_launcher(tmp_path)
    assert os.lstat(tmp_path / "weft").st_ino == before.st_ino


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "-rf", "a\n", "a\0b", "x" * 256, "é"])
def test_a_name_that_no_runtime_executes_is_refused(
    tmp_path: Path, source: Path, name: str
) -> None:
    with pytest.raises(Invalid):
        place_launcher(tmp_path, name, source)
    with pytest.raises(Invalid):
        remove_launcher(tmp_path, name)


def test_a_launcher_that_was_not_compiled_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"native/compile\.py"):
        place_launcher(tmp_path, "weft", tmp_path / "absent")


def test_a_launcher_of_any_version_is_removed(tmp_path: Path, source: Path) -> None:
    place_launcher(tmp_path, "weft-two", source)
    assert remove_launcher(tmp_path, "weft-two")
    assert not remove_launcher(tmp_path, "weft-two")
    assert not (tmp_path / "weft-two").exists()


def test_the_source_marks_the_launcher() -> None:
    text = (Path(__file__).parents[2] / "native/launcher/main.c").read_bytes()
    assert b'"' + install.MARK in text


def test_the_conflist_is_written_once_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "net.d" / "10-weft.conflist"
    assert write_conflist(path)
    assert path.stat().st_mode & 0o7777 == 0o644
    inode = path.stat().st_ino
    assert not write_conflist(path)
    assert path.stat().st_ino == inode
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert remove_conflist(path)
    assert not remove_conflist(path)


@pytest.mark.parametrize("former", FORMER_CONFLISTS)
def test_the_conflist_of_an_earlier_release_is_ours(tmp_path: Path, former: bytes) -> None:
    path = tmp_path / "10-weft.conflist"
    write_conflist(path, former)
    assert write_conflist(path)
    assert path.read_bytes() == DEFAULT_CONFLIST
    path.write_bytes(former)
    assert remove_conflist(path)


def test_an_edited_conflist_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "10-weft.conflist"
    path.write_bytes(b'{"name":"mine"}')
    with pytest.raises(Conflict, match="other content"):
        write_conflist(path)
    assert not remove_conflist(path)
    assert path.read_bytes() == b'{"name":"mine"}'
    assert write_conflist(path, replace=True)
    assert path.read_bytes() == DEFAULT_CONFLIST


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "10-weft.conflist"
    write_conflist(path)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_conflist(path, b"{}", replace=True)
    assert path.read_bytes() == DEFAULT_CONFLIST
    assert list(tmp_path.iterdir()) == [path]


def test_the_default_conflist_speaks_all_versions_from_one_text() -> None:
    text = json.loads(DEFAULT_CONFLIST)
    assert text["name"] == "weft"
    assert text["cniVersion"] == "1.0.0"
    assert text["cniVersion"] in text["cniVersions"]
    assert text["cniVersions"][-1] == "1.1.0"
    (plugin,) = text["plugins"]
    assert plugin["type"] == "weft"
    assert all(plugin["capabilities"].values())
