"""Which of systemd's units an upgrade changes, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.model.errors import Conflict
from weft.upgrade import units
from weft.upgrade.release import UNITS, Formats, Release
from weft.upgrade.units import APART, SERVICE, SOCKET, Change, Shelf

BOOT = "weft-boot.service"
NEW = {SERVICE: b"[Unit]\nRequires=weft.socket\n", SOCKET: b"s2", BOOT: b"b2"}
OLD = {SERVICE: b"[Unit]\n", BOOT: b"b1"}
OLD_ALONE = OLD | {APART: b"alone"}


def release(version: str, place: str = "") -> Release:
    formats = Formats(journal=1, store=1, alias=1, protocol=1, oldest_protocol=1)
    return Release(version=version, launcher="", formats=formats, units=place)


def put(name: str, content: bytes | None) -> Change:
    return Change(name=name, content=content)


def test_units_of_the_older_release_are_replaced_and_what_the_service_needs_is_placed() -> None:
    todo, left = units.changes(OLD, NEW, [OLD, NEW])
    assert todo == [put(BOOT, b"b2"), put(SOCKET, b"s2"), put(SERVICE, NEW[SERVICE])]
    assert left == []


def test_on_the_way_back_the_socket_goes_and_is_kept_closed() -> None:
    todo, left = units.changes(NEW, OLD_ALONE, [NEW, OLD_ALONE])
    changed = [
        put(BOOT, b"b1"),
        put(SOCKET, None),
        put(SERVICE, OLD[SERVICE]),
        put(APART, b"alone"),
    ]
    assert (todo, left) == (changed, [])
    todo, left = units.changes(OLD_ALONE, NEW, [OLD_ALONE, NEW])
    assert put(APART, None) in todo


def test_nothing_is_to_be_done_twice() -> None:
    assert units.changes(NEW, NEW, [OLD, NEW]) == ([], [])
    assert units.changes(OLD_ALONE, OLD_ALONE, None) == ([], [])


def test_a_unit_that_was_not_installed_is_not_missed() -> None:
    installed = {name: content for name, content in NEW.items() if name != BOOT}
    assert units.changes(installed, NEW, [NEW]) == ([], [])


def test_an_edited_unit_is_left_and_named() -> None:
    assert units.changes(OLD | {BOOT: b"mine"}, NEW, [OLD, NEW])[1] == [BOOT]


def test_an_edited_service_keeps_what_it_needs() -> None:
    mine = NEW | {SERVICE: NEW[SERVICE] + b"# mine\n"}
    todo, left = units.changes(mine, OLD_ALONE, [NEW, OLD_ALONE])
    assert left == [SERVICE]
    assert put(SOCKET, None) not in todo


def test_where_the_release_in_use_cannot_say_every_plain_file_is_replaced() -> None:
    todo, left = units.changes(OLD | {BOOT: None}, NEW, None)
    assert put(SERVICE, NEW[SERVICE]) in todo
    assert left == [BOOT], "a link is no plain file"


def test_what_lies_there_is_read_and_changed_by_renames(tmp_path: Path) -> None:
    (tmp_path / SERVICE).write_bytes(b"x")
    (tmp_path / BOOT).symlink_to("/dev/null")
    assert units.read(tmp_path) == {SERVICE: b"x", BOOT: None}
    units.perform(tmp_path, [put(SERVICE, b"y"), put(APART, b"z")])
    assert (tmp_path / SERVICE).stat().st_mode & 0o777 == 0o644
    assert units.read(tmp_path) == {SERVICE: b"y", BOOT: None, APART: b"z"}
    units.perform(tmp_path, [put(APART, None), put(SOCKET, None)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [BOOT, SERVICE]


def test_a_drop_in_of_somebodys_keeps_its_directory(tmp_path: Path) -> None:
    units.perform(tmp_path, [put(APART, b"z")])
    own = (tmp_path / APART).with_name("own.conf")
    own.touch()
    units.perform(tmp_path, [put(APART, None)])
    assert own.exists()


def test_units_are_not_written_where_others_may_write(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(Conflict):
        units.perform(place, [put(SERVICE, b"x")])


def test_a_release_brings_its_units_or_they_are_kept_for_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    own = tmp_path / "brought"
    own.mkdir()
    for name, content in NEW.items():
        (own / name).write_bytes(content)
    assert shelf.of(release("0.2.0", str(own))) == NEW
    assert shelf.of(release("0.1.0")) is None

    shelf.keep("0.1.0", OLD | {"weft.socket": None})
    shelf.keep("0.1.0", NEW)  # a second attempt, after some were replaced: the first holds
    found = shelf.of(release("0.1.0"))
    assert found is not None
    assert b"Conflicts=weft.socket" in (found.pop(APART) or b"")
    assert found == OLD

    shelf.forget("0.1.0")
    shelf.forget("0.1.0")
    assert not (tmp_path / "units").exists()


def test_this_release_brings_all_three() -> None:

    assert set(units.read(UNITS)) == {SERVICE, SOCKET, BOOT}
    assert b"Requires=weft.socket" in (UNITS / SERVICE).read_bytes()
