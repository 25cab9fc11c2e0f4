"""The steps of an upgrade, forwards, and back where one fails.

    to a newer release     link -> units -> agent -> launchers
    to an older one        launchers -> units -> agent -> link

so that a launcher is never newer than the agent it speaks to for longer than a step takes (both
ways work, but a newer agent knows more). The link moves last on the way to a release that does not
read all that this one writes: until then who starts is of this release, and gives way
(agent.lowering). Each step looks first whether it is done already: an
upgrade that was killed is finished by running it again, and undone by upgrading to the release
from which it came. The way back always leads to the last release that was seen to serve.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from weft.agent import lowering
from weft.agent.journal import FORMAT as JOURNAL_FORMAT
from weft.cni.install import place_launcher
from weft.kernel import files
from weft.lab.demo.record import File, digest
from weft.lab.demo.record import Record as UndoRecord
from weft.model.errors import NotReady, WeftError
from weft.store.sqlite_file import FORMAT as STORE_FORMAT
from weft.upgrade.keeper import Keeper, is_running
from weft.upgrade.preflight import View
from weft.upgrade.record import Record, Standing
from weft.upgrade.refit import Refit
from weft.upgrade.release import Asked, Formats, Release, number_of
from weft.wire.status import Status

LOOK_EVERY = 0.05
STATUS_WITHIN = 20.0
BACK_WITHIN = 60.0
"""Seconds that the way back has at least, however short the way there was to be."""
_LARGEST = 16 << 20
_QUESTION = b'{"cniVersion": "1.1.0", "name": "weft", "type": "weft"}'

State = Literal["done", "already", "planned", "failed"]
Ask = Callable[[], Status | None]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step, for the report."""

    name: str
    state: State
    text: str
    seconds: float = 0.0


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A release that is to serve in the end. `version`: empty where nobody knows it; `journal`,
    `store`: the formats that it reads; `target`: of the way back, as the link led there."""

    program: str
    version: str
    journal: int
    store: int
    target: str | None = None


class Course:
    """One upgrade of one node. `ask`: the running agent's status, None where none answers."""

    def __init__(
        self, view: View, keeper: Keeper, record: Record, ask: Ask, timeout: float
    ) -> None:
        self.view = view
        self.goal: Release = view.goal
        self.keeper = keeper
        self.record = record
        self.timeout = timeout
        self.steps: list[Step] = []
        self._ask = ask
        self._undo = UndoRecord()
        self._asked = Asked(view.goal)
        self._refit = Refit(view, keeper, record, self._asked, self._note)
        self._before = ask()

    # -- looking ------------------------------------------------------------------------------

    @property
    def origin_version(self) -> str:
        """What the agent that runs says it is; empty where none answers."""
        return self._before.version if self._before is not None else ""

    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return (
            self.record.read() is None
            and not self.record.leads_back
            and self.view.leads_to(self.view.origin) == self.goal.program
            and not self._launchers_to_place()
            and not self._refit.changes(self.goal)[0]
            and self._serves(self.goal.program, self.goal.version) == ""
        )

    def plan(self) -> list[Step]:
        """What `run` would do, in order."""
        texts = {
            "launchers": f"place the launcher of {self.goal.version}: "
            + ", ".join(map(str, self.view.launchers)),
            "link": f"let {self.view.link} lead to {self.goal.program}",
            "units": self._refit.words(*self._refit.changes(self.goal)),
            "agent": f"have {self.keeper.name} start the agent of {self.goal.version}; wait at "
            f"most {self.timeout:.0f} s until it serves, else put everything back",
        }
        names = [name for name, _ in self._order()]
        return [Step(name=name, state="planned", text=texts[name]) for name in names]

    def _order(self) -> list[tuple[str, Callable[[], tuple[State, str]]]]:
        goal = self._goal
        launchers = ("launchers", self._place_launchers)
        rest = self._towards(goal)
        back = self._before is not None and self.goal.number < number_of(self._before.version)
        return [launchers, *rest] if back or self._is_older(goal) else [*rest, launchers]

    @property
    def _goal(self) -> End:
        reads = self.goal.formats
        return End(
            program=self.goal.program,
            version=self.goal.version,
            journal=reads.journal,
            store=reads.store,
        )

    def _towards(self, end: End) -> list[tuple[str, Callable[[], tuple[State, str]]]]:
        """Link, units and agent, in the order in which no agent finds files that it cannot read,
        and none of an older release units that it does not know."""
        units = [("units", lambda: self._change_units(end))] if self.keeper.units else []
        if self._is_older(end):
            return [
                *units,
                ("agent", lambda: self._give_way_to(end)),
                ("link", lambda: self._lead_to(end.target or end.program)),
            ]
        return [
            ("link", lambda: self._lead_on_to(end)),
            *units,
            ("agent", lambda: self._change_agent(end)),
        ]

    @staticmethod
    def _is_older(end: End) -> bool:
        """Whether it does not read all that an agent of this release writes."""
        return end.journal < JOURNAL_FORMAT or end.store < STORE_FORMAT

    # -- doing --------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises WeftError when it failed: then everything is as it was, or the
        message says what is not."""
        standing = self._begin()
        try:
            for name, step in self._order():
                self._take(name, step)
            self._take("answer", self._ask_through_launchers)
        except BaseException as failure:
            self._give_up(standing, failure)
            raise
        self.finish()

    def go_back(self, standing: Standing) -> None:
        """Undo an upgrade that was cut short. Raises WeftError where the old agent does not
        serve; the record stays then."""
        origin = End(
            program=self.view.leads_to(standing.origin),
            version=standing.origin_version,
            journal=standing.journal,
            store=standing.store,
            target=standing.origin,
        )
        self._take("launchers", lambda: self._put_back_launchers(standing))
        for name, step in self._towards(origin):
            self._take(name, step)
        self.finish()

    def finish(self) -> None:
        """Forget the record, and files that an upgrade before this one was killed at writing."""
        for path in (*self.view.launchers, self.view.link):
            files.clear_unfinished(path)
        files.clear_link(self.view.link)
        self._refit.finish(self.view.leads_to(os.readlink(self.view.link)))
        self.record.end()

    def _take(self, name: str, step: Callable[[], tuple[State, str]]) -> None:
        began = time.monotonic()
        try:
            state, text = step()
        except WeftError as error:
            self.steps.append(_step(name, "failed", error.message, began))
            raise
        except OSError as error:
            self.steps.append(_step(name, "failed", str(error), began))
            raise WeftError(str(error), reason="upgrade-failed") from error
        self.steps.append(_step(name, state, text, began))

    def _begin(self) -> Standing:
        """The record of the upgrade: a new one, or that of one that was cut short, whose way back
        stays what it was."""
        found = self.record.read()
        if found is not None:
            standing = msgspec.structs.replace(
                found, goal=self.goal.program, goal_version=self.goal.version
            )
            self.record.write(standing)
            return standing
        reads = self._origin_reads()
        standing = Standing(
            link=str(self.view.link),
            origin=self.view.origin,
            origin_version=self.origin_version,
            journal=reads.journal,
            store=reads.store,
            goal=self.goal.program,
            goal_version=self.goal.version,
        )
        return self.record.begin(standing, self.view.launchers)

    def _origin_reads(self) -> Formats:
        """The formats that the release reads to which the link leads. One that cannot be asked
        reads what is there, if its agent serves; else the oldest is safe."""
        origin = self._asked.at(self.view.leads_to(self.view.origin))
        if origin is not None:
            return origin.formats
        found = self.view.found
        return msgspec.structs.replace(
            self.goal.formats,
            journal=found.journal or lowering.LOWEST,
            store=found.store or lowering.LOWEST,
        )

    def _give_up(self, standing: Standing, failure: BaseException) -> None:
        """Back to where it began; raises what a person should read."""
        why = failure.message if isinstance(failure, WeftError) else repr(failure)
        try:
            self.go_back(standing)
        except WeftError as error:
            raise WeftError(
                f"the upgrade to weft {standing.goal_version} failed ({why}), and putting back "
                f"what was there failed too ({error.message}); mend that and run this again, or "
                f"`weft upgrade --to {standing.origin}` to go back",
                reason="upgrade-failed",
                details=self.keeper.log(),
            ) from failure
        if isinstance(failure, Exception):
            version = f" {standing.origin_version}" if standing.origin_version else ""
            raise WeftError(
                f"the upgrade to weft {standing.goal_version} failed: {why}; everything was put "
                f"back, and the agent of weft{version} runs",
                reason="upgrade-failed",
                details=getattr(failure, "details", ""),
            ) from failure

    # -- the steps ----------------------------------------------------------------------------

    def _launchers_to_place(self) -> list[Path]:
        wanted = files.glance(Path(self.goal.launcher), _LARGEST)
        return [p for p in self.view.launchers if files.glance(p, _LARGEST) != wanted]

    def _place_launchers(self) -> tuple[State, str]:
        todo = self._launchers_to_place()
        source = Path(self.goal.launcher)
        for path in todo:
            self._note(path, source.read_bytes())
            place_launcher(path.parent, path.name, source)
        return "done" if todo else "already", ", ".join(map(str, todo or self.view.launchers))

    def _put_back_launchers(self, standing: Standing) -> tuple[State, str]:
        changed = []
        for kept in standing.launchers:
            content = files.read(Path(kept.copy), _LARGEST)
            if files.glance(Path(kept.path), _LARGEST) != content:
                files.replace(Path(kept.path), content, kept.mode)
                changed.append(kept.path)
        every = [kept.path for kept in standing.launchers]
        return "done" if changed else "already", ", ".join(changed or every)

    def _lead_on_to(self, end: End) -> tuple[State, str]:
        self.record.lead_on()
        return self._lead_to(end.target or end.program)

    def _lead_to(self, target: str) -> tuple[State, str]:
        text = f"{self.view.link} leads to {target}"
        if self.view.leads_to(os.readlink(self.view.link)) == self.view.leads_to(target):
            return "already", text
        self._note(self.view.link, os.fsencode(target))
        files.replace_link(self.view.link, Path(target))
        return "done", text

    def _change_units(self, end: End) -> tuple[State, str]:
        changed, text = self._refit.perform(self._asked.at(end.program))
        return "done" if changed else "already", text

    def _change_agent(self, end: End) -> tuple[State, str]:
        text = f"weft {end.version or end.program} serves"
        if not self._refit.done and self._serves(end.program, end.version) == "":
            return "already", text
        self.keeper.restart()
        if end.version:  # else none was serving when the upgrade began
            self._wait(end)
        return "done", text

    def _give_way_to(self, end: End) -> tuple[State, str]:
        """Not before it serves, or nobody of this release can have the files open, the link moves
        (agent.lowering)."""
        text = f"weft {end.version or end.program} serves"
        way = lowering.WayBack(program=end.program, journal=end.journal, store=end.store)
        self.record.lead_back(way)
        if not self._refit.done and self._serves(end.program, end.version) == "":
            return "already", text
        self.keeper.restart()
        self._wait(end, lambda: self._lower(way, end))
        return "done", text

    def _lower(self, way: lowering.WayBack, end: End) -> bool:
        """What a release does for which no agent of its own can start; whether it is done. One
        that runs holds its files, and they stay as they are."""
        paths = self.view.paths
        with suppress(sqlite3.Error, OSError, WeftError), lowering.alone(paths):
            lowering.lower_both(paths, way)
            self._lead_to(end.target or end.program)
            return True
        return False

    def _wait(self, end: End, meanwhile: Callable[[], bool] | None = None) -> None:
        """Until the agent serves. What is to be done `meanwhile` is tried until it is done; that
        is enough where no agent was serving when the upgrade began."""
        limit = self.timeout if end.target is None else max(self.timeout, BACK_WITHIN)
        deadline = time.monotonic() + limit
        while why := self._serves(end.program, end.version):
            if meanwhile is not None and meanwhile():
                if not end.version:
                    return
                meanwhile = None
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the agent of weft {end.version} does not serve after {limit:.0f} s: {why}",
                    reason="upgrade-failed",
                    details=self.keeper.log(),
                )
            time.sleep(LOOK_EVERY)

    def _serves(self, program: str, version: str) -> str:
        """Why the agent of this release does not serve; empty when it does. What kept the agent
        before from being ready may keep this one too."""
        status = self._ask()
        if status is None:
            return "no agent answers"
        if version and status.version != version:
            return f"the agent that answers is of weft {status.version}"
        if not is_running(self.keeper, self.view.leads_to(program)):
            return f"the agent that answers is not that of {program}"
        known = {each.reason for each in self._before.reasons} if self._before else None
        new = [each for each in status.reasons if known is not None and each.reason not in known]
        return "; ".join(each.message for each in new)

    def _ask_through_launchers(self) -> tuple[State, str]:
        """STATUS as a runtime asks it: launcher and agent understand each other."""
        for path in self.view.launchers:
            environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(path.parent)}
            try:
                done = subprocess.run(
                    [str(path)],
                    env=environment,
                    input=_QUESTION,
                    capture_output=True,
                    timeout=STATUS_WITHIN,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise WeftError(f"{path}: {error}", reason="upgrade-failed") from error
            answer = done.stdout.decode(errors="replace")
            if done.returncode not in (0, 1) or "agent-absent" in answer:
                raise WeftError(
                    f"{path} and the agent do not understand each other: STATUS ended with "
                    f"{done.returncode} {answer.strip()[:300]}",
                    reason="upgrade-failed",
                )
        return "done", "STATUS is answered through " + ", ".join(map(str, self.view.launchers))

    def _note(self, path: Path, content: bytes) -> None:
        """On a machine of `./dev up`, `./dev down` shall know the file as its own."""
        with suppress(WeftError):
            things = [t for t in self._undo.things() if isinstance(t, File)]
            known = {t.digest for t in things if t.path == str(path)}
            if known and digest(content) not in known:
                self._undo.note(File(path=str(path), digest=digest(content)))


def _step(name: str, state: State, text: str, began: float) -> Step:
    return Step(name=name, state=state, text=text, seconds=round(time.monotonic() - began, 3))
