"""What an upgrade asks before it touches anything, and what it keeps on record."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from weft.agent.lowering import WayBack
from weft.model.errors import Conflict, Invalid, NotFound, Unsupported
from weft.model.settings import PathSettings
from weft.upgrade import keeper, release
from weft.upgrade.found import Found, look, obstacles
from weft.upgrade.preflight import View, check
from weft.upgrade.record import Record, Standing
from weft.upgrade.release import Formats, Release, number_of

FIXTURES = Path(__file__).parent.parent / "formats"
READS = Formats(journal=2, store=2, alias=1, protocol=1, oldest_protocol=1)
STANDING = Standing(link="/l", origin="/o", goal="/g", goal_version="9")


def released(**how: object) -> Release:
    base = Release(version="0.2.0", program="/p", launcher="/none", formats=READS)
    return msgspec.structs.replace(base, **how)


@pytest.mark.parametrize(
    ("version", "number"),
    [("0.2.0", (0, 2, 0)), ("0.10.0rc1", (0, 10, 0)), ("1", (1,)), ("", ()), ("dev", ())],
)
def test_versions_are_compared_by_their_numbers(version: str, number: tuple[int, ...]) -> None:
    assert number_of(version) == number


def test_a_program_without_an_interpreter_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        release.ask(tmp_path / "weft", tmp_path / "none")
    (tmp_path / "weft").touch()
    with pytest.raises(Invalid, match="python beside it"):
        release.ask(tmp_path / "weft", tmp_path / "none")
    (tmp_path / "python").symlink_to("/bin/false")
    with pytest.raises(Invalid, match="status 1"):
        release.ask(tmp_path / "weft", tmp_path / "none")


def test_formats_are_found_without_opening_what_an_agent_holds(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    queue.mkdir()
    shutil.copy(FIXTURES / "queue-1.req", queue / "a.req")
    (queue / "b.req").write_bytes(b"nothing of ours")
    shutil.copy(FIXTURES / "journal-1.db", tmp_path / "journal.db")
    shutil.copy(FIXTURES / "store-2.db", tmp_path / "store.db")
    links = tmp_path / "links"
    for name, alias in (("a", "weft:1 x"), ("b", "weft:7 x"), ("c", "other")):
        (links / name).mkdir(parents=True)
        (links / name / "ifalias").write_text(alias)
    paths = PathSettings(
        journal=str(tmp_path / "journal.db"), store=str(tmp_path / "store.db"), queue=str(queue)
    )
    found = look(paths, links)
    assert found == Found(journal=1, store=2, aliases={1: 1, 7: 1}, queued={1: 1})
    assert found.words == "journal 1, store 2, 1 links 1, 1 links 7, 1 queued 1"
    (tmp_path / "journal.db").write_bytes(b"damaged" * 100)
    assert "journal" in look(paths, links).unread[0]
    nothing = PathSettings(journal="/none/j", store="/none/s", queue="/none/q")
    assert look(nothing, links / "none").words == "nothing kept yet"


def test_only_what_cannot_be_read_is_in_the_way() -> None:
    older = released(version="0.1.0", formats=msgspec.structs.replace(READS, journal=1, store=1))
    found = Found(journal=2, store=2)
    assert obstacles(found, released()) == []
    assert len(obstacles(found, older)) == 2
    assert obstacles(found, older, lowest=1) == [], "the agent can leave them lower"
    assert "links" in obstacles(Found(aliases={2: 3}), released())[0]
    assert "protocol 0" in obstacles(Found(queued={0: 1}), released())[0]


def node(tmp_path: Path, **how: object) -> View:
    (tmp_path / "cni").mkdir()
    launcher = tmp_path / "cni" / "weft"
    launcher.write_text("weft-launcher: x")
    (tmp_path / "nets").mkdir()
    (tmp_path / "p").touch()
    (tmp_path / "link").symlink_to(tmp_path / "p")
    base = View(
        goal=released(launcher=str(launcher)),
        kernel="6.1.0",
        keeper="somebody",
        link=tmp_path / "link",
        origin=str(tmp_path / "p"),
        launchers=(launcher,),
        searched=(tmp_path / "cni",),
        networks=tmp_path / "nets",
        state=tmp_path,
        paths=PathSettings(),
        found=Found(),
    )
    return msgspec.structs.replace(base, **how)


def refused(view: View) -> list[str]:
    return [answer.name for answer in check(view) if not answer.good]


def test_a_sound_node_is_let_pass(tmp_path: Path) -> None:
    view = node(tmp_path)
    (view.networks / "10.conflist").write_text(
        '{"cniVersion": "1.0.0", "plugins": [{"type": "weft"}]}'
    )
    (view.networks / "20.conf").write_text('{"cniVersion": "99", "type": "other"}')
    (view.networks / "30.conf").write_text("{{{")
    assert refused(view) == []


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("kernel", {"kernel": "5.10.0"}),
        ("release", {"goal": released(launcher="/none")}),
        ("program", {"link": Path("/none/weft")}),
        ("launchers", {"launchers": ()}),
        ("state", {"found": Found(journal=9)}),
    ],
)
def test_each_thing_in_the_way_is_named(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    assert refused(node(tmp_path, **how)) == [name]


def test_settings_and_networks_that_the_release_does_not_understand_are_in_the_way(
    tmp_path: Path,
) -> None:
    view = node(tmp_path)
    goal = msgspec.structs.replace(view.goal, settings="unknown key `later`")
    (view.networks / "10.conf").write_text('{"cniVersion": "99", "type": "weft"}')
    assert refused(msgspec.structs.replace(view, goal=goal)) == ["settings", "networks"]


def test_launchers_that_others_can_change_are_in_the_way(tmp_path: Path) -> None:
    view = node(tmp_path)
    view.launchers[0].parent.chmod(0o777)
    assert refused(view) == ["launchers"]


def test_a_record_names_copies_that_are_there_and_goes_without_a_trace(tmp_path: Path) -> None:
    launcher = tmp_path / "weft"
    launcher.write_bytes(b"old")
    launcher.chmod(0o755)
    record = Record(tmp_path)
    assert record.read() is None
    standing = record.begin(STANDING, [launcher])
    assert record.read() == standing
    assert [(Path(k.copy).read_bytes(), k.mode) for k in standing.launchers] == [(b"old", 0o755)]
    record.lead_back(WayBack(program="/o", journal=1, store=1))
    assert record.leads_back
    record.lead_on()
    record.lead_on()
    assert not record.leads_back
    record.lead_back(WayBack(program="/o", journal=1, store=1))
    record.end()
    record.end()
    assert sorted(os.listdir(tmp_path)) == ["weft"]


def test_a_record_that_cannot_be_read_or_is_newer_is_refused(tmp_path: Path) -> None:
    record = Record(tmp_path)
    with pytest.raises(NotFound):
        record.begin(STANDING, [tmp_path / "gone"])
    record.write(msgspec.structs.replace(STANDING, format=99))
    with pytest.raises(Unsupported, match="/g"):
        record.read()
    (record.directory / "record.json").write_text("{")
    with pytest.raises(Unsupported, match="cannot be read"):
        record.read()


def test_one_upgrade_at_a_time(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(NotFound, match="nothing to upgrade"), Record(state).held():
        pass
    state.mkdir()
    other = os.open(state, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(Conflict, match="another"), Record(state).held():
        pass
    os.close(other)
    with Record(state).held():
        pass


@pytest.mark.parametrize("content", ["", "x y", "1", f"{os.getpid()} 0"])
def test_a_pid_file_of_nobody_is_no_supervisor(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    with pytest.raises(NotFound, match="nobody keeps the agent"):
        keeper.Supervisor(tmp_path / "pid")


SHOWN = """LoadState=loaded
ExecStart={ path=/usr/local/bin/weft ; argv[]=/usr/local/bin/weft agent --config /x ; flags= }
FragmentPath=%s/weft.service
"""


@pytest.mark.parametrize(
    ("place", "replaced"), [("/etc/systemd/system", True), ("/lib/systemd/system", False)]
)
def test_systemd_tells_what_it_starts_and_where_the_unit_is(
    monkeypatch: pytest.MonkeyPatch, place: str, replaced: bool
) -> None:
    class Said:
        stdout = SHOWN % place

    monkeypatch.setattr(keeper, "_systemctl", lambda *_: Said)
    found = keeper.Systemd()
    assert found.command == ("/usr/local/bin/weft", "agent", "--config", "/x")
    assert found.units == (Path(place) if replaced else None), "a package's units are the package's"
    Said.stdout = "LoadState=not-found\n"
    with pytest.raises(NotFound, match=r"no unit weft\.service"):
        keeper.Systemd()
