"""Files are read and written only where nobody but root can have put something in between."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from weft.agent.places import read_settings, secure
from weft.kernel import files
from weft.model.errors import Conflict, NotFound
from weft.model.settings import PathSettings, Settings

STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


def _victim(path: Path) -> Path:
    victim = path.parent.parent / "victim"
    victim.write_bytes(b"precious")
    return victim


def _link(path: Path) -> None:
    path.symlink_to(_victim(path))


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _second_name(path: Path) -> None:
    os.link(_victim(path), path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _writable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0o666)


def _strangers(path: Path) -> None:
    path.write_bytes(b"x")
    os.chown(path, STRANGER, STRANGER)


PLANTED = {
    "link": (_link, "a symbolic link"),
    "dangling link": (_dangling, "a symbolic link"),
    "circle": (_circle, "a symbolic link"),
    "pipe": (_pipe, "a named pipe"),
    "directory": (_directory, "a directory"),
    "socket": (_socket, "a socket"),
    "writable": (_writable, "lets others write"),
    "stranger's": (_strangers, "belongs to user 54321"),
}
planted = pytest.mark.parametrize(
    ("plant", "why"),
    [
        pytest.param(*case, id=name, marks=[as_root] if name == "stranger's" else [])
        for name, case in PLANTED.items()
    ],
)


@planted
def test_what_is_no_file_of_ours_is_not_read_and_the_reason_is_told(
    home: Path, plant: Callable[[Path], None], why: str
) -> None:
    plant(home / "file")
    with pytest.raises(Conflict, match=why) as refused:
        files.read(home / "file", 100)
    assert refused.value.reason == "unsafe-path"
    assert str(home / "file") in refused.value.message


@planted
def test_what_is_no_file_of_ours_is_not_opened_by_a_database(
    home: Path, plant: Callable[[Path], None], why: str
) -> None:
    for name in ("base", "base-wal", "base-shm", "base-journal"):
        plant(home / name)
        with pytest.raises(Conflict, match=why):
            files.check_database(home / "base")
        files.set_aside([home / name])
    files.check_database(home / "base")


def test_a_second_name_of_a_file_is_refused_where_it_would_be_written(home: Path) -> None:
    _second_name(home / "base")
    with pytest.raises(Conflict, match="2 names"):
        files.check_database(home / "base")
    assert files.read(home / "base", 100) == b"precious"  # reading it does no harm


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in ("stranger's",)])
def test_writing_replaces_what_lies_there_and_never_writes_through_it(
    home: Path, name: str
) -> None:
    plant, _ = PLANTED[name]
    plant(home / "file")
    if name == "directory":
        with pytest.raises(Conflict, match="a directory"):
            files.replace(home / "file", b"new")
        assert list(home.iterdir()) == [home / "file"]
        return
    files.replace(home / "file", b"new", 0o640)
    assert files.read(home / "file", 100) == b"new"
    assert (home / "file").stat().st_mode & 0o7777 == 0o640
    assert list(home.iterdir()) == [home / "file"]
    if name == "link":
        assert (home.parent / "victim").read_bytes() == b"precious"


def test_a_program_can_be_executed_from_the_moment_on_in_which_it_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, ended = os.rename, []

    def renamed(old: str, new: Path) -> None:
        rename(old, new)
        ended.append(subprocess.run([new], check=False).returncode)  # ETXTBSY while it is written

    monkeypatch.setattr(os, "rename", renamed)
    files.replace(home / "program", Path("/bin/true").read_bytes(), 0o755)
    assert ended == [0]


def test_a_second_name_keeps_its_content_when_the_file_is_replaced(home: Path) -> None:
    _second_name(home / "file")
    files.replace(home / "file", b"new")
    assert (home.parent / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_is_refused_for_everything(home: Path, mode: int) -> None:
    (home / "file").write_bytes(b"x")
    home.chmod(mode)
    os.chown(home, -1, os.getegid() or STRANGER)
    for act in (
        lambda: files.read(home / "file", 9),
        lambda: files.replace(home / "file", b"y"),
        lambda: files.append(home / "log"),
        lambda: files.make_directory(home),
        lambda: files.make_directory(home / "below"),
    ):
        with pytest.raises(Conflict, match="lets others write"):
            act()
    assert (home / "file").read_bytes() == b"x"


def test_a_sticky_directory_above_is_fine_but_not_as_the_place_itself(home: Path) -> None:
    home.chmod(0o1777)
    files.make_directory(home / "own")
    files.replace(home / "own" / "file", b"x")
    with pytest.raises(Conflict, match="1777"):
        files.replace(home / "file", b"x")


@as_root
def test_a_directory_of_another_user_anywhere_on_the_way_is_refused(home: Path) -> None:
    (home / "own").mkdir(mode=0o700)
    os.chown(home, STRANGER, STRANGER)
    with pytest.raises(Conflict, match=f"{home} belongs to user 54321"):
        files.replace(home / "own" / "file", b"x")


def test_a_link_to_a_directory_is_followed_above_and_refused_as_the_place(home: Path) -> None:
    (home / "real" / "inner").mkdir(parents=True, mode=0o700)
    (home / "link").symlink_to("real")
    (home / "back").symlink_to("real/../real")
    for way in ("link", "back"):
        files.replace(home / way / "inner" / "file", b"x")
        assert files.read(home / way / "inner" / "file", 9) == b"x"
    with pytest.raises(Conflict, match="a symbolic link"):
        files.replace(home / "link" / "file", b"x")


def test_links_in_a_circle_end(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    with pytest.raises(Conflict, match="in a circle"):
        files.read(home / "a" / "file", 9)
    with pytest.raises(Conflict, match="in a circle"):
        files.read(home / "a", 9, linked=True)


def test_making_a_directory_below_something_else_says_what(home: Path) -> None:
    os.mkfifo(home / "pipe")
    with pytest.raises(Conflict, match="pipe is a named pipe and no directory"):
        files.make_directory(home / "pipe" / "below")
    _dangling(home / "gone")
    with pytest.raises(Conflict, match="a symbolic link"):
        files.make_directory(home / "gone")


def test_configuration_may_be_a_link_as_a_mounted_volume_has_it(home: Path) -> None:
    (home / "..2026").mkdir()
    (home / "..2026" / "weft.yaml").write_text("node: {name: a}\n")
    (home / "..data").symlink_to("..2026")
    (home / "weft.yaml").symlink_to("..data/weft.yaml")
    assert read_settings(home / "weft.yaml", required=True).node.name == "a"


@planted
def test_settings_that_are_no_file_end_the_start_at_once(
    home: Path, plant: Callable[[Path], None], why: str
) -> None:
    plant(home / "weft.yaml")
    began = time.monotonic()
    if "link" in why and plant is _link:
        (home.parent / "victim").unlink()
        os.mkfifo(home.parent / "victim")  # a link may be; what it leads to may not
        why = "a named pipe"
    if plant is _circle:
        why = "in a circle"
    if plant is _dangling:
        assert read_settings(home / "weft.yaml", required=False) == Settings()
        return
    with pytest.raises(Conflict, match=why):
        read_settings(home / "weft.yaml", required=False)
    assert time.monotonic() - began < 1


def test_a_file_beyond_the_bound_is_refused(home: Path) -> None:
    (home / "file").write_bytes(b"x" * 101)
    assert files.read(home / "file", 101)
    with pytest.raises(Conflict, match="larger than 100"):
        files.read(home / "file", 100)
    with pytest.raises(NotFound):
        files.read(home / "other", 100)


def test_a_glance_never_waits_and_says_nothing_of_what_is_no_file(home: Path) -> None:
    os.mkfifo(home / "pipe")
    _socket(home / "sock")
    _second_name(home / "file")
    (home / "link").symlink_to("file")
    assert [files.glance(home / name, 4) for name in ("pipe", "sock", "file", "link", "no")] == [
        None,
        None,
        b"prec",
        b"prec",
        None,
    ]
    assert files.glance(Path("/proc/self/comm"), 100)


def test_a_log_is_appended_to_but_not_through_a_link_or_into_a_pipe(home: Path) -> None:
    for text in (b"one\n", b"two\n"):
        with files.append(home / "log") as log:
            log.write(text)
    assert (home / "log").read_bytes() == b"one\ntwo\n"
    for plant in (_link, _pipe, _second_name):
        files.set_aside([home / "log"])
        plant(home / "log")
        with pytest.raises(Conflict):
            files.append(home / "log")


def test_what_a_killed_writer_left_goes_with_the_next_write(home: Path) -> None:
    for name in (".file.left.tmp", ".file.new.tmp"):
        (home / name).touch()
    with (home / ".file.new.tmp").open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        files.replace(home / "file", b"x")
        assert sorted(each.name for each in home.iterdir()) == [".file.new.tmp", "file"]
    files.replace(home / "file", b"y")
    assert [each.name for each in home.iterdir()] == ["file"]


def _settings(home: Path) -> Settings:
    return Settings(
        paths=PathSettings(
            socket=f"{home}/run/agent.sock",
            journal=f"{home}/run/journal.db",
            queue=f"{home}/run/queue",
            store=f"{home}/lib/store.db",
        )
    )


def test_an_unsafe_journal_is_set_aside_whole_and_an_unsafe_store_ends_the_start(
    home: Path,
) -> None:
    settings = _settings(home)
    assert secure(settings) == ""
    (home / "run" / "journal.db").write_bytes(b"ours")
    _link(home / "run" / "journal.db-wal")
    said = secure(settings)
    assert "journal.db-wal is not safe" in said and "journal.db.unsafe-1" in said
    assert sorted(each.name for each in (home / "run").iterdir()) == [
        "journal.db-wal.unsafe-1",
        "journal.db.unsafe-1",
    ]
    assert secure(settings) == ""
    _second_name(home / "lib" / "store.db")
    with pytest.raises(Conflict, match=r"store\.db is not safe to use: the same file has 2 names"):
        secure(settings)


def test_directories_are_made_private_only_when_asked(home: Path) -> None:
    settings = _settings(home)
    assert secure(settings, make=False) == ""
    assert list(home.iterdir()) == []
    secure(settings)
    assert (home / "run").stat().st_mode & 0o777 == 0o700


def test_files_of_the_kernel_are_read_whatever_the_limit() -> None:
    found = files.glance(Path("/proc/sys/kernel/osrelease"), 64 << 20)
    assert found is not None
    assert found.decode().strip() == os.uname().release
