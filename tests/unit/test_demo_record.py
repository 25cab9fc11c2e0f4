"""What `./dev up` writes down and how `./dev down` takes it back, on a temporary tree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from weft.lab.demo import places, service
from weft.lab.demo.record import (
    Directory,
    File,
    Format,
    Record,
    Thing,
    Tree,
    digest,
    give_back,
)
from weft.model.errors import Conflict, Unsupported


@pytest.fixture
def record(tmp_path: Path) -> Record:
    made = Record(tmp_path / "state" / "undo.jsonl")
    made.begin()
    return made


def put(record: Record, path: Path, content: bytes = b"ours") -> None:
    record.file(path, content, partial(path.write_bytes, content))


def undo(record: Record) -> list[str]:
    return give_back(list(record.things()), frozenset({str(record.path.parent)}))


def test_everything_made_is_taken_back(record: Record, tmp_path: Path) -> None:
    record.directory(tmp_path / "opt" / "cni" / "bin")
    put(record, tmp_path / "opt" / "cni" / "bin" / "weft")
    assert undo(record) == []
    assert list(tmp_path.iterdir()) == []


def test_directory_that_was_there_stays(record: Record, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    record.directory(tmp_path / "etc" / "cni")
    undo(record)
    assert list(tmp_path.iterdir()) == [tmp_path / "etc"]
    assert list((tmp_path / "etc").iterdir()) == []


def test_directory_in_which_others_put_something_stays(record: Record, tmp_path: Path) -> None:
    record.directory(tmp_path / "bin")
    (tmp_path / "bin" / "theirs").touch()
    undo(record)
    assert (tmp_path / "bin" / "theirs").exists()


def test_file_changed_since_stays_and_is_named(record: Record, tmp_path: Path) -> None:
    put(record, tmp_path / "conflist")
    (tmp_path / "conflist").write_bytes(b"edited by somebody")
    assert undo(record) == [f"{tmp_path}/conflist: changed since `up`"]
    assert (tmp_path / "conflist").read_bytes() == b"edited by somebody"


def test_file_of_somebody_else_is_not_overwritten(record: Record, tmp_path: Path) -> None:
    (tmp_path / "weft").write_bytes(b"theirs")
    with pytest.raises(Conflict, match="is not of this"):
        put(record, tmp_path / "weft")
    undo(record)
    assert (tmp_path / "weft").read_bytes() == b"theirs"


def test_second_up_may_replace_what_the_first_placed(record: Record, tmp_path: Path) -> None:
    put(record, tmp_path / "weft", b"first build")
    again = Record(record.path)
    again.begin()
    put(again, tmp_path / "weft", b"second build")
    assert undo(again) == []
    assert not (tmp_path / "weft").exists()


def test_link_is_known_by_its_target(record: Record, tmp_path: Path) -> None:
    link, target = tmp_path / "weft", tmp_path / "nowhere"
    record.file(link, str(target).encode(), partial(link.symlink_to, target))
    undo(record)
    assert not link.is_symlink()


@pytest.mark.parametrize("existed", [True, False])
def test_own_tree_is_emptied_and_removed_only_if_it_was_not_there(
    tmp_path: Path, existed: bool
) -> None:
    home = tmp_path / "state"
    if existed:
        home.mkdir()
    record = Record(home / "undo.jsonl")
    record.begin()
    (home / "store.db").touch()
    (home / "queue").mkdir()
    (home / "queue" / "one.req").touch()
    undo(record)
    assert home.exists() is existed
    assert not existed or list(home.iterdir()) == []


def test_state_of_another_installation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(Conflict, match="another installation"):
        Record(tmp_path / "undo.jsonl").begin()
    assert [p.name for p in tmp_path.iterdir()] == ["store.db"]


def test_tree_outside_the_own_ones_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    give_back([Tree(path=str(tmp_path), existed=False)])
    assert (tmp_path / "precious").exists()


def test_line_cut_off_by_a_kill_does_not_hide_the_lines_before(
    record: Record, tmp_path: Path
) -> None:
    put(record, tmp_path / "weft")
    with record.path.open("ab") as file:
        file.write(b'{"kind":"file","pa')
    undo(record)
    assert not (tmp_path / "weft").exists()


def test_record_after_a_cut_line_goes_on(record: Record, tmp_path: Path) -> None:
    with record.path.open("ab") as file:
        file.write(b'{"kind":"file","pa')
    record.begin()
    put(record, tmp_path / "weft")
    assert any(isinstance(thing, File) for thing in record.things())


def test_noted_thing_that_was_never_made_is_no_error(tmp_path: Path) -> None:
    things: list[Thing] = [
        Directory(path=str(tmp_path / "a")),
        File(path=str(tmp_path / "a" / "b"), digest=digest(b"")),
    ]
    assert give_back(things) == []


def test_record_of_a_newer_form_is_refused(record: Record) -> None:
    record.note(Format(path=str(record.path), version=99))
    with pytest.raises(Unsupported, match="format 99"):
        list(record.things())


def test_every_place_is_in_the_footprint() -> None:
    lines = (places.CHECKOUT / "deploy" / "footprint").read_text().splitlines()
    names = {line.split()[1] for line in lines if line.strip() and not line.startswith("#")}
    files = [places.ON_PATH, places.CNI_BIN / places.PLUGIN, places.CNI_BIN_DEBIAN / places.PLUGIN]
    units = [places.UNITS / name for name in places.UNIT_NAMES]
    trees = [places.STATE, places.RUN, places.QUERY, places.LOGS, places.NETNS]
    trees += [places.CNI_BIN, places.CNI_CONF]
    spaces = [places.NETNS / name for name in (*places.CONTAINERS, places.OUTSIDE)]
    wanted = {str(p) for p in (*files, places.CONFLIST, places.SUPERVISOR, *units, *trees, *spaces)}
    assert wanted - names == set()


@pytest.mark.parametrize("missing", [(), places.UNIT_NAMES[:1], places.UNIT_NAMES])
def test_down_has_systemd_forget_the_units_that_are_left(
    missing: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `down` that was cut short has removed some of them; the others are still enabled."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(places, "UNITS", tmp_path)
    monkeypatch.setattr(places, "SYSTEMD", tmp_path)
    monkeypatch.setattr(service, "_systemctl", lambda *words: asked.append(words))
    left = [name for name in places.UNIT_NAMES if name not in missing]
    for name in left:
        (tmp_path / name).touch()
    service.forget()
    assert asked == ([("disable", "--quiet", "--now", *left)] if left else [])
