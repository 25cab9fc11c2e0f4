"""The steps of an upgrade, forwards, and back where one fails.

    to a newer release     link -> agent -> launchers
    to an older one        launchers -> link -> agent

so that a launcher is never newer than the agent it speaks to for longer than a step takes (both
ways work, but a newer agent knows more). Each step looks first whether it is done already: an
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
from weft.cni.install import place_launcher
from weft.kernel import files
from weft.lab.demo.record import File, digest
from weft.lab.demo.record import Record as UndoRecord
from weft.model.errors import NotReady, WeftError
from weft.upgrade.keeper import Keeper, is_running
from weft.upgrade.preflight import View
from weft.upgrade.record import Record, Standing
from weft.upgrade.release import Release, number_of
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
            and self.view.leads_to(self.view.origin) == self.goal.program
            and not self._launchers_to_place()
            and self._serves(self.goal.program, self.goal.version) == ""
        )

    def plan(self) -> list[Step]:
        """What `run` would do, in order."""
        texts = {
            "launchers": f"place the launcher of {self.goal.version}: "
            + ", ".join(map(str, self.view.launchers)),
            "link": f"let {self.view.link} lead to {self.goal.program}",
            "agent": f"have {self.keeper.name} start the agent of {self.goal.version}; wait at "
            f"most {self.timeout:.0f} s until it serves, else put everything back",
        }
        names = [name for name, _ in self._order()]
        return [Step(name=name, state="planned", text=texts[name]) for name in names]

    def _order(self) -> list[tuple[str, Callable[[], tuple[State, str]]]]:
        launchers = ("launchers", self._place_launchers)
        rest = [("link", self._switch_link), ("agent", self._change_agent)]
        back = self._before is not None and self.goal.number < number_of(self._before.version)
        return [launchers, *rest] if back else [*rest, launchers]

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
        self._finish()

    def go_back(self, standing: Standing) -> None:
        """Undo an upgrade that was cut short. Raises WeftError where the old agent does not
        serve; the record stays then."""
        self._take("launchers", lambda: self._put_back_launchers(standing))
        self._take("link", lambda: self._lead_to(standing.origin))
        self._take("agent", lambda: self._return_to(standing))
        self._finish()

    def _finish(self) -> None:
        """Forget the record, and files that an upgrade before this one was killed at writing."""
        for path in (*self.view.launchers, self.view.link):
            files.clear_unfinished(path)
        files.clear_link(self.view.link)
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
        standing = Standing(
            link=str(self.view.link),
            origin=self.view.origin,
            origin_version=self.origin_version,
            journal=self.view.found.journal or lowering.LOWEST,
            store=self.view.found.store or lowering.LOWEST,
            goal=self.goal.program,
            goal_version=self.goal.version,
        )
        return self.record.begin(standing, self.view.launchers)

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

    def _switch_link(self) -> tuple[State, str]:
        return self._lead_to(self.goal.program)

    def _lead_to(self, program: str) -> tuple[State, str]:
        text = f"{self.view.link} leads to {program}"
        if self.view.leads_to(os.readlink(self.view.link)) == self.view.leads_to(program):
            return "already", text
        self._note(self.view.link, os.fsencode(program))
        files.replace_link(self.view.link, Path(program))
        return "done", text

    def _change_agent(self) -> tuple[State, str]:
        text = f"weft {self.goal.version} serves"
        if self._serves(self.goal.program, self.goal.version) == "":
            return "already", text
        self._ask_to_lower(self.goal.formats.journal, self.goal.formats.store)
        self.keeper.restart()
        self._wait(self.goal.program, self.goal.version)
        return "done", text

    def _ask_to_lower(self, journal: int, store: int) -> None:
        """The agent that ends leaves its files in formats that the next one reads."""
        request = self.record.directory / lowering.request(Path(self.view.paths.store)).name
        asked = lowering.Asked(journal=journal, store=store)
        files.replace(request, msgspec.json.encode(asked), 0o600, durable=True)

    def _return_to(self, standing: Standing) -> tuple[State, str]:
        version = standing.origin_version
        text = f"weft {version or standing.origin} serves"
        if self._serves(standing.origin, version) == "":
            return "already", text
        self._ask_to_lower(standing.journal, standing.store)
        self.keeper.restart()
        if version:  # else none was serving when the upgrade began
            self._wait(standing.origin, version, lambda: self._lower(standing))
        return "done", text

    def _lower(self, standing: Standing) -> None:
        """What an agent left that did not end in good order: it may have raised the formats. One
        that runs holds its files, and they stay as they are."""
        paths = self.view.paths
        with suppress(sqlite3.Error, OSError):
            lowering.lower("journal", Path(paths.journal), standing.journal)
        with suppress(sqlite3.Error, OSError):
            lowering.lower("store", Path(paths.store), standing.store)

    def _wait(
        self, program: str, version: str, meanwhile: Callable[[], None] | None = None
    ) -> None:
        limit = self.timeout if meanwhile is None else max(self.timeout, BACK_WITHIN)
        deadline = time.monotonic() + limit
        while why := self._serves(program, version):
            if meanwhile is not None:
                meanwhile()
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the agent of weft {version} does not serve after {limit:.0f} s: {why}",
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
