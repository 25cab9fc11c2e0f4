"""Giving way to the release before: what is lowered, who may, and what happens where it fails."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import sys
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from weft.agent import journal_file, lowering
from weft.agent.journal import Journal
from weft.agent.lowering import WayBack
from weft.model.errors import NotReady
from weft.model.settings import PathSettings
from weft.store import sqlite_file

FIXTURES = Path(__file__).parent.parent / "formats"
sys.path.insert(0, str(FIXTURES))
import make  # noqa: E402  # a neighbour of the fixtures, not a package

PLAIN = msgspec.structs.replace(make.held(), bridged=None)


class Became(Exception):
    """Instead of execv, which would not return either."""


@pytest.fixture
def paths(tmp_path: Path) -> PathSettings:
    """Journal and store of today's format, as an agent left them."""
    (tmp_path / "state" / "upgrade").mkdir(parents=True)
    found = PathSettings(
        journal=str(tmp_path / "run" / "journal.db"), store=str(tmp_path / "state" / "store.db")
    )
    Path(found.journal).parent.mkdir()
    for kind, path, now in (
        ("journal", found.journal, journal_file.FORMAT),
        ("store", found.store, sqlite_file.FORMAT),
    ):
        shutil.copyfile(FIXTURES / f"{kind}-{now}.db", path)
        os.chmod(path, 0o600)
    with closing(sqlite3.connect(found.journal)) as database, database:
        # nobody gives way with lists or bridges
        database.execute("DELETE FROM egress")
        plain = msgspec.msgpack.encode(PLAIN)
        put = "UPDATE attachment SET record = ?, sum = ?"
        database.execute(put, (plain, zlib.crc32(plain)))
    return found


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that the process would have become."""
    found: list[list[str]] = []

    def execv(program: str, argv: list[str]) -> None:
        if not os.path.exists(program):
            raise FileNotFoundError(2, "No such file or directory")
        found.append(argv)
        raise Became

    monkeypatch.setattr(os, "execv", execv)
    return found


def ask(paths: PathSettings, program: str) -> None:
    way = WayBack(program=program, journal=1, store=1)
    file = lowering.way_back(Path(paths.store).parent)
    file.write_bytes(msgspec.json.encode(way))
    file.chmod(0o600)


def formats(paths: PathSettings) -> tuple[int, int]:
    """As a release judges them: by the main files alone."""
    found = []
    for path, question in (
        (paths.journal, "SELECT value FROM meta WHERE name = 'format'"),
        (paths.store, "SELECT version FROM format"),
    ):
        address = f"file:{path}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as database:
            found.append(int(database.execute(question).fetchone()[0]))
    return found[0], found[1]


NOW = (journal_file.FORMAT, sqlite_file.FORMAT)


def test_an_agent_that_nobody_asked_goes_on(paths: PathSettings, became: list[list[str]]) -> None:
    lowering.give_way(paths, [])
    assert became == []
    assert formats(paths) == NOW


def test_an_agent_that_was_asked_lowers_both_files_and_becomes_the_other(
    paths: PathSettings, became: list[list[str]], tmp_path: Path
) -> None:
    older = tmp_path / "older"
    older.touch()
    ask(paths, str(older))
    with pytest.raises(Became):
        lowering.give_way(paths, ["--config", "/etc/x"])
    assert became == [[str(older), "agent", "--config", "/etc/x"]]
    assert formats(paths) == (1, 1)


def test_what_was_lowered_is_all_there_for_the_next_of_this_release(paths: PathSettings) -> None:
    lowering.lower_both(paths, WayBack(program="", journal=1, store=1))
    lowering.lower_both(paths, WayBack(program="", journal=1, store=1))
    journal = Journal(Path(paths.journal), make.BOOT)
    assert list(journal.attachments()) == [PLAIN]
    journal.close()
    assert sqlite_file.salvage(paths.store) == make.OBJECTS


def test_the_release_to_which_the_way_leads_does_not_follow_it(
    paths: PathSettings, became: list[list[str]]
) -> None:
    ask(paths, str(Path(sys.executable).with_name("weft")))
    lowering.give_way(paths, [])
    assert became == []
    assert formats(paths) == NOW


@pytest.mark.parametrize("content", [b"", b"{}", b'{"program": 1}', b"\0" * 9000])
def test_a_way_that_cannot_be_read_is_not_followed(
    paths: PathSettings, became: list[list[str]], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(paths, "/x")
    lowering.way_back(Path(paths.store).parent).write_bytes(content)
    lowering.give_way(paths, [])
    assert became == []
    assert "is not followed" in capsys.readouterr().err
    assert formats(paths) == NOW


def test_nobody_gives_way_to_a_release_that_would_open_containers(
    paths: PathSettings, became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(FIXTURES / f"journal-{journal_file.FORMAT}.db", paths.journal)
    ask(paths, "/bin/true")
    lowering.give_way(paths, [])
    assert became == []
    assert "egress lists" in capsys.readouterr().err
    journal = Journal(Path(paths.journal), make.BOOT)
    assert journal.fresh == "" and journal.read().egress == {make.LIST.digest: make.LIST}
    journal.close()


def test_nobody_gives_way_to_a_release_that_knows_no_bridges(
    paths: PathSettings, became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(FIXTURES / f"journal-{journal_file.FORMAT}.db", paths.journal)
    with closing(sqlite3.connect(paths.journal)) as database, database:
        database.execute("DELETE FROM egress")
    ask(paths, "/bin/true")
    lowering.give_way(paths, [])
    assert became == []
    assert "knows no bridges and would cut off 1 " in capsys.readouterr().err
    assert formats(paths) == NOW


def test_files_that_another_process_holds_are_tried_again(
    paths: PathSettings, became: list[list[str]]
) -> None:
    ask(paths, "/bin/true")
    with closing(sqlite3.connect(paths.journal, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NotReady, match="another process holds"):
            lowering.give_way(paths, [])
    assert became == []


def test_what_cannot_be_lowered_stays_and_this_release_serves_on(
    paths: PathSettings, became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(paths, "/bin/true")
    Path(paths.journal).write_bytes(b"no database at all, and longer than a header is" * 10)
    lowering.give_way(paths, [])
    assert became == []
    assert "this release serves on" in capsys.readouterr().err


def test_an_older_release_that_is_gone_is_no_reason_to_have_no_agent(
    paths: PathSettings, became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(paths, "/nowhere/bin/weft")
    lowering.give_way(paths, [])
    assert became == []
    assert "/nowhere/bin/weft cannot be started" in capsys.readouterr().err


def test_nobody_is_alone_beside_an_agent_that_may_raise_a_format(paths: PathSettings) -> None:
    with lowering.alone(paths):
        directory = os.open(Path(paths.journal).parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(directory)
    agent = os.fork()
    if agent == 0:  # it holds for as long as its process lives
        try:
            lowering.give_way(paths, [])
            with lowering.alone(paths):
                os._exit(1)
        except BlockingIOError:
            os._exit(7)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) == 7
    with lowering.alone(paths):
        pass
