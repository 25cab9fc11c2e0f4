"""The steps of an upgrade, on a node whose keeper and agents are played: what starts is what the
link leads to and what gives way on disk; launchers, link, record and files are real."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from weft.agent import journal_file, lowering
from weft.model.errors import WeftError
from weft.model.settings import PathSettings
from weft.store import sqlite_file
from weft.upgrade import course as course_room
from weft.upgrade import release as release_room
from weft.upgrade.course import Course
from weft.upgrade.found import Found, look
from weft.upgrade.preflight import View
from weft.upgrade.record import Record
from weft.upgrade.release import Formats, Release
from weft.wire.status import Status

FIXTURES = Path(__file__).parent.parent / "formats"
NOW = {"journal": journal_file.FORMAT, "store": sqlite_file.FORMAT}
OLD, NEW = "0.1.0", "0.2.0"


class Killed(BaseException):
    """The upgrade is killed here."""


class PlayedNode:
    """A node, its keeper and whichever agent runs. `broken`: versions that never serve."""

    name = "played"
    command = ("weft", "agent")
    units = None

    def __init__(self, top: Path) -> None:
        self.top = top
        self.link = top / "bin" / "weft"
        self.launcher = top / "cni" / "weft"
        self.paths = PathSettings(
            journal=str(top / "run" / "journal.db"),
            store=str(top / "state" / "store.db"),
            queue=str(top / "run" / "queue"),
        )
        for name in ("bin", "cni", "run", "state"):
            (top / name).mkdir()
        self.releases = {v: self._lay(v) for v in (OLD, NEW)}
        self.broken: set[str] = set()
        self.running = ""
        self.refused = 0
        self.link.symlink_to(self.releases[OLD].program)
        shutil.copy(self.releases[OLD].launcher, self.launcher)
        self.start()

    def _lay(self, version: str) -> Release:
        place = self.top / version
        place.mkdir()
        for name in ("weft", "launcher"):
            (place / name).write_text(f"#!/bin/sh\n# weft-launcher: {version}\nexit 0\n")
            (place / name).chmod(0o755)
        reads = NOW if version == NEW else {"journal": 1, "store": 1}
        return Release(
            version=version,
            program=str(place / "weft"),
            launcher=str(place / "launcher"),
            formats=Formats(**reads, alias=1, protocol=1, oldest_protocol=1),
        )

    # -- what a keeper and its agents do ----------------------------------------------------------

    def start(self) -> None:
        """As the keeper does, whenever no agent runs."""
        version = Path(os.readlink(self.link)).parent.name
        way = lowering.way_back(Path(self.paths.store).parent)
        if version == NEW and way.exists():
            asked = msgspec.json.decode(way.read_bytes(), type=lowering.WayBack)
            lowering.lower_both(self.paths, asked)
            version = Path(asked.program).parent.name
        wants = self.releases[version].formats
        held = look(self.paths, self.top / "none")
        if (held.journal or 1) > wants.journal or (held.store or 1) > wants.store:
            self.refused += 1
            return
        for kind, path in (("journal", self.paths.journal), ("store", self.paths.store)):
            if getattr(held, kind) != getattr(wants, kind):
                shutil.copyfile(FIXTURES / f"{kind}-{getattr(wants, kind)}.db", path)
        self.running = "" if version in self.broken else version

    def agent(self) -> int | None:
        return None

    def restart(self) -> None:
        self.running = ""
        self.start()

    def reload(self) -> bool:
        return False

    def log(self) -> str:
        return "the end of the log"

    # -- upgrades --------------------------------------------------------------------------------

    def course(self, version: str) -> Course:
        def ask() -> Status | None:
            return Status(version=self.running, node="n", ready=True) if self.running else None

        view = View(
            goal=self.releases[version],
            kernel="6.1",
            keeper=self.name,
            link=self.link,
            origin=os.readlink(self.link),
            launchers=(self.launcher,),
            searched=(),
            networks=self.top / "none",
            state=Path(self.paths.store).parent,
            paths=self.paths,
            found=Found(),
        )
        return Course(view, self, Record(view.state), ask, 0.2 if version in self.broken else 30.0)

    def is_of(self, version: str) -> bool:
        """Whether all is this release's, and nothing is on record."""
        release = self.releases[version]
        return (
            self.running == version
            and os.readlink(self.link) == release.program
            and self.launcher.read_bytes() == Path(release.launcher).read_bytes()
            and not (self.top / "state" / "upgrade").exists()
        )


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedNode:
    made = PlayedNode(tmp_path)

    def asked(program: Path, settings: Path) -> Release:
        return made.releases[program.parent.name]

    monkeypatch.setattr(release_room, "ask", asked)
    monkeypatch.setattr(course_room, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(
        course_room, "is_running", lambda _, program: made.running == Path(program).parent.name
    )
    return made


def steps(course: Course) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in course.steps]


def test_up_and_back_in_the_order_in_which_nobody_finds_what_it_cannot_read(
    node: PlayedNode,
) -> None:
    up = node.course(NEW)
    planned = [step.name for step in up.plan()]
    up.run()
    assert [name for name, _ in steps(up)] == [*planned, "answer"]
    assert planned == ["link", "agent", "launchers"]
    assert node.is_of(NEW)
    assert node.course(NEW).is_done()
    back = node.course(OLD)
    back.run()
    assert [name for name, _ in steps(back)] == ["launchers", "agent", "link", "answer"]
    assert node.is_of(OLD)
    assert node.refused == 0


def test_an_agent_that_does_not_serve_is_replaced_by_the_one_before(node: PlayedNode) -> None:
    node.broken.add(NEW)
    with pytest.raises(WeftError, match="everything was put back") as failed:
        node.course(NEW).run()
    assert failed.value.details == "the end of the log"
    assert node.is_of(OLD)
    assert node.refused == 0


def test_an_older_agent_that_does_not_serve_is_replaced_by_the_newer(node: PlayedNode) -> None:
    node.course(NEW).run()
    node.broken.add(OLD)
    with pytest.raises(WeftError, match="everything was put back"):
        node.course(OLD).run()
    assert node.is_of(NEW)


@pytest.mark.parametrize("way", [NEW, OLD])
@pytest.mark.parametrize("finish", [True, False])
def test_killed_between_any_two_changes_the_node_has_an_agent_and_goes_on_either_way(
    node: PlayedNode, monkeypatch: pytest.MonkeyPatch, way: str, finish: bool
) -> None:
    """The upgrade is killed before each change, and the agent at once: what starts then serves."""
    origin = OLD if way == NEW else NEW
    changes: list[tuple[object, str]] = [
        (Record, "write"),
        (Record, "lead_back"),
        (PlayedNode, "restart"),
        (course_room.files, "replace_link"),
        (course_room, "place_launcher"),
        (Record, "end"),
    ]
    for owner, name in changes:
        if origin == NEW and not node.is_of(NEW):
            node.course(NEW).run()
        if origin == OLD and not node.is_of(OLD):
            node.course(OLD).run()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            patch.setattr(Course, "_give_up", reraise)
            try:
                node.course(way).run()
            except Killed:
                pass
            else:
                assert name == "lead_back", "only the way back is written down"
                continue
        node.restart()
        assert node.running, f"no agent after a kill at {name}"
        wanted = way if finish else origin
        course = node.course(wanted)
        standing = course.record.read()
        if standing is not None and standing.origin == node.releases[wanted].program:
            course.go_back(standing)
        elif not course.is_done():
            course.run()
        else:
            course.finish()
        assert node.is_of(wanted), f"{name}: {steps(course)}"
    assert node.refused == 0


def killed(*_: object, **__: object) -> None:
    raise Killed


def reraise(_: Course, __: object, failure: BaseException) -> None:
    raise failure


def test_the_link_moves_only_where_no_agent_can_raise_a_format(
    node: PlayedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.course(NEW).run()
    moved: list[str] = []
    before: Callable[..., None] = course_room.files.replace_link

    def replace_link(path: Path, target: Path) -> None:
        moved.append(node.running)
        before(path, target)

    monkeypatch.setattr(course_room.files, "replace_link", replace_link)
    node.course(OLD).run()
    assert moved == [OLD]


def test_a_release_that_cannot_start_at_all_is_helped_by_the_upgrade_itself(
    node: PlayedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer release raised the formats and is gone: nobody of it gives way."""
    node.course(NEW).run()

    def nobody() -> None:
        node.running = ""
        if os.readlink(node.link) == node.releases[OLD].program:
            PlayedNode.start(node)

    monkeypatch.setattr(node, "start", nobody)
    course = node.course(OLD)
    monkeypatch.setattr(
        course, "_serves", lambda *_: node.start() or ("" if node.running == OLD else "no")
    )
    course.run()
    assert node.is_of(OLD)
    assert node.refused == 0
