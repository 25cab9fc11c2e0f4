"""`weft upgrade`: this release, or another, takes the place of the one that runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from weft import __version__
from weft.cli.client import Client
from weft.cli.columns import coloured, plain
from weft.cli.options import Report
from weft.cli.output import as_text, complain, echo
from weft.cni.install import DIRECTORIES, find_launchers
from weft.model.errors import WeftError
from weft.model.kernel_release import require_supported
from weft.model.settings import SETTINGS_PATH, Settings
from weft.wire.api import Nothing
from weft.wire.status import Status

if TYPE_CHECKING:
    from weft.upgrade.course import Course, Step
    from weft.upgrade.found import Found
    from weft.upgrade.preflight import Check, View

NETWORKS = Path("/etc/cni/net.d")
PATIENCE = 5.0  # seconds for one answer of an agent
Outcome = Literal["upgraded", "unchanged", "planned", "refused", "undone", "failed"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report."""

    outcome: Outcome
    origin: dict[str, str]
    goal: dict[str, str]
    checks: tuple[Any, ...]
    steps: tuple[Any, ...] = ()
    message: str = ""


def upgrade(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="PROGRAM",
            help="The `weft` of another release, e.g. of an older one to go back to. Without it "
            "this very release takes over.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(min=1, max=600, help="Seconds in which the new agent must serve."),
    ] = 60.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, list the steps, change nothing.")
    ] = False,
    bin_dir: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="A further directory in which runtimes look for plugins. May be repeated.",
            show_default=False,
        ),
    ] = None,
    output: Report = None,
) -> None:
    """Let this release take the place of the one that runs on this node.

    Checks first, and refuses with nothing changed. Then replaces launchers and program and has
    the agent started anew; traffic goes on. When the new agent does not serve in time, everything
    is put back. An upgrade that was interrupted is finished by running it again.

    \b
    Examples:
      /opt/weft/0.2.0/bin/weft upgrade --dry-run
      /opt/weft/0.2.0/bin/weft upgrade
      weft upgrade --to /opt/weft/0.1.0/bin/weft      go back
    """
    require_supported(os.uname().release)
    if os.geteuid() != 0:
        raise WeftError("an upgrade replaces programs of root's", reason="not-permitted")
    from weft.upgrade.record import Record

    settings = _settings()
    record = Record(Path(settings.paths.store).parent)
    with record.held():
        course, checks = _prepared(settings, to, bin_dir or [], timeout)
        failure = _carry_out(course, checks, dry_run)
        _show(_answer(course, checks, failure, dry_run), output)
    if failure is not None:
        raise failure


def _settings() -> Settings:
    """Where things are; what is wrong with the file is a check's to say."""
    from weft.agent.places import read_settings

    try:
        return read_settings(Path(SETTINGS_PATH), required=False)
    except WeftError:
        return Settings()


def _prepared(
    settings: Settings, to: str | None, bin_dirs: list[str], timeout: float
) -> tuple[Course, list[Check]]:
    from weft.cli.machine import Machine
    from weft.cni import runtimes
    from weft.cni.placing import plugin_directories
    from weft.upgrade import keeper, preflight, release
    from weft.upgrade.course import Course
    from weft.upgrade.found import look
    from weft.upgrade.record import Record

    paths = settings.paths
    client = Client(paths.socket, patience=PATIENCE)

    def ask() -> Status | None:
        try:
            found: Status = client.call("status", Nothing())
        except WeftError:
            return None
        return found

    file = Path(SETTINGS_PATH)
    goal = release.own(file) if to is None else release.ask(Path(to), file)
    kept_by = keeper.find(Path(paths.socket).parent)
    link = Path(kept_by.command[0])
    there = plugin_directories(Machine(), runtimes.find(Machine()))
    searched = tuple(dict.fromkeys(Path(each) for each in (*DIRECTORIES, *there, *bin_dirs)))
    view = preflight.View(
        goal=goal,
        kernel=os.uname().release,
        keeper=kept_by.name,
        link=link,
        origin=os.readlink(link) if link.is_symlink() else str(link),
        launchers=tuple(find_launchers(searched)),
        searched=searched,
        networks=NETWORKS,
        state=Path(paths.store).parent,
        paths=paths,
        found=(found := look(paths)),
        lowest=_lowest(found, ask()),
    )
    course = Course(view, kept_by, Record(view.state), ask, timeout)
    return course, preflight.check(view)


def _lowest(found: Found, status: Status | None) -> int | None:
    """The oldest formats that this release can leave behind; None where it did not write them."""
    from weft.agent import journal
    from weft.agent.lowering import LOWEST
    from weft.store import sqlite_file

    if status is not None and status.version != __version__:
        return None
    knows = (found.journal or 0) <= journal.FORMAT and (found.store or 0) <= sqlite_file.FORMAT
    return LOWEST if knows else None


def _carry_out(course: Course, checks: list[Check], dry_run: bool) -> WeftError | None:
    """Do it, unless a check forbids it or there is nothing to do; the failure, if there is one."""
    bad = [each for each in checks if not each.good]
    if bad:
        return WeftError(
            "nothing was changed: " + "; ".join(each.text for each in bad),
            reason="upgrade-refused",
        )
    if dry_run:
        return None
    if course.is_done():
        course.finish()  # an upgrade may have been killed before it had a record
        return None
    standing = course.record.read()
    try:
        if standing is not None and course.view.leads_to(standing.origin) == course.goal.program:
            course.go_back(standing)
        else:
            course.run()
    except WeftError as error:
        return error
    return None


def _answer(
    course: Course, checks: list[Check], failure: WeftError | None, dry_run: bool
) -> Answer:
    view: View = course.view
    steps: list[Step] = course.steps
    outcome: Outcome = "upgraded"
    if failure is not None:
        outcome = "refused" if failure.reason == "upgrade-refused" else "failed"
        if outcome == "failed" and course.record.read() is None:
            outcome = "undone"
    elif dry_run:
        outcome = "unchanged" if course.is_done() else "planned"
        steps = [] if outcome == "unchanged" else course.plan()
    elif not steps:
        outcome = "unchanged"
    return Answer(
        outcome=outcome,
        origin={"version": course.origin_version, "program": view.origin},
        goal={"version": view.goal.version, "program": view.goal.program},
        checks=tuple(checks),
        steps=tuple(steps),
        message=failure.message if failure is not None else "",
    )


def _show(answer: Answer, output: Any) -> None:
    if output is not None:
        echo(as_text(answer, output))
        return
    say = complain if answer.outcome in ("refused", "undone", "failed") else echo
    origin = answer.origin["version"] or "unknown, no agent answers"
    say(f"weft {plain(origin)} -> {plain(answer.goal['version'])}")
    for each in answer.checks:
        mark = coloured("ok", "ok") if each.good else coloured("no", "bad")
        say(f"  {mark}  {each.name:<10} {plain(each.text)}")
    for step in answer.steps:
        took = f" ({step.seconds:.2f} s)" if step.state == "done" else ""
        word = coloured(step.state, "bad" if step.state == "failed" else "ok")
        say(f"  {step.name:<10} {word}: {plain(step.text)}{took}")
    closing = {
        "upgraded": f"weft {answer.goal['version']} serves; the traffic was not interrupted",
        "unchanged": f"nothing to do: weft {answer.goal['version']} serves already",
        "planned": "nothing was changed",
    }
    if answer.outcome in closing:
        say(closing[answer.outcome])
