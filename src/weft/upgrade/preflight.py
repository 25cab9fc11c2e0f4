"""May this release take over? Every check is made before anything is touched.

A check that fails says what to do. One that cannot tell passes and says so: the agent has the last
word, and an upgrade whose agent does not serve is undone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from weft.cni.install import MARK
from weft.kernel import files
from weft.model.errors import WeftError
from weft.model.kernel_release import unsupported
from weft.model.names import printable
from weft.model.settings import PathSettings
from weft.upgrade.found import Found, obstacles
from weft.upgrade.release import Release
from weft.wire.cni.versions import SUPPORTED

SLACK = 256 << 10
"""Octets that a directory must have free beside what is written to it."""
_SUFFIXES = (".conf", ".conflist", ".json")
_LARGEST = 16 << 20


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer."""

    name: str
    good: bool
    text: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The node as an upgrade finds it. `origin`: where `link` leads, as it is written in it."""

    goal: Release
    kernel: str
    keeper: str
    link: Path
    origin: str
    launchers: tuple[Path, ...]
    searched: tuple[Path, ...]
    networks: Path
    state: Path
    paths: PathSettings
    found: Found
    lowest: int | None = None  # the oldest format that the agent that runs can leave behind

    def leads_to(self, target: str) -> str:
        """The program that a target of the link is."""
        return os.path.normpath(self.link.parent / target)


def check(view: View) -> list[Check]:
    """All answers, in the order in which a person should read them."""
    return [answer for question in QUESTIONS for answer in question(view)]


def _kernel(view: View) -> Iterator[Check]:
    why = unsupported(view.kernel)
    yield Check(name="kernel", good=why is None, text=why or f"Linux {view.kernel}")


def _release(view: View) -> Iterator[Check]:
    launcher = files.glance(Path(view.goal.launcher), _LARGEST)
    if launcher is None:
        text = f"{view.goal.launcher} is missing: run `python3 native/compile.py`, or use a wheel"
    elif MARK not in launcher:
        text = f"{view.goal.launcher} is no launcher of weft's; install the release again"
    else:
        yield Check(name="release", good=True, text=f"weft {view.goal.version}")
        return
    yield Check(name="release", good=False, text=text)


def _program(view: View) -> Iterator[Check]:
    if not view.link.is_symlink():
        what = "is no symbolic link" if view.link.exists() else "does not exist"
        yield Check(
            name="program",
            good=False,
            text=f"{view.keeper} starts {view.link}, which {what}; let it start /usr/local/bin/"
            "weft, and that be a link to the present release's program",
        )
        return
    text = f"{view.link} leads to {view.origin}"
    if view.leads_to(view.origin) == view.goal.program:
        text += "; there is no way back, for the release was replaced in its own directory"
    yield Check(name="program", good=True, text=text)


def _launchers(view: View) -> Iterator[Check]:
    if not view.launchers:
        places = ", ".join(map(str, view.searched))
        text = f"no launcher of weft's in {places}; say where it is with --bin-dir"
        yield Check(name="launchers", good=False, text=text)
        return
    for place in {path.parent for path in view.launchers}:
        try:
            files.check_directory(place)
        except WeftError as error:
            yield Check(name="launchers", good=False, text=error.message)
            return
    yield Check(name="launchers", good=True, text=", ".join(map(str, view.launchers)))


def _settings(view: View) -> Iterator[Check]:
    text = view.goal.settings or "the settings are understood"
    yield Check(name="settings", good=not view.goal.settings, text=text)


def _state(view: View) -> Iterator[Check]:
    why = obstacles(view.found, view.goal, view.lowest)
    if why:
        text = "; ".join(why) + "; use a release that reads it"
        yield Check(name="state", good=False, text=text)
        return
    text = f"reads what is there: {view.found.words}"
    if view.found.unread:
        text += f"; cannot tell about {'; '.join(view.found.unread)}"
    yield Check(name="state", good=True, text=text)


def _networks(view: View) -> Iterator[Check]:
    """Every configuration that names a launcher of ours must be one that the release speaks."""
    types = {path.name for path in view.launchers}
    ours, bad = [], []
    for name in _names(view.networks):
        text = files.glance(view.networks / name, _LARGEST)
        versions = _versions(text or b"", types)
        if versions is not None:
            ours.append(name)
            bad += [name] if not versions & set(SUPPORTED) else []
    if bad:
        text_ = f"{', '.join(map(printable, bad))}: no cniVersion that weft speaks"
        yield Check(name="networks", good=False, text=f"{view.networks}: {text_}; correct it")
        return
    where = ", ".join(map(printable, ours)) or "no configuration names weft"
    yield Check(name="networks", good=True, text=f"{view.networks}: {where}")


def _names(directory: Path) -> list[str]:
    try:
        return sorted(n for n in os.listdir(directory) if n.endswith(_SUFFIXES))
    except OSError:
        return []


def _versions(text: bytes, types: set[str]) -> set[str] | None:
    """The CNI versions that a configuration of ours may be used in; None: it is not ours."""
    try:
        data: Any = json.loads(text)
        plugins = data.get("plugins", [data])
        if not types & {each["type"] for each in plugins}:
            return None
        several = [str(each) for each in data.get("cniVersions", ())]
        return {str(data.get("cniVersion") or "0.1.0"), *several}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def _space(view: View) -> Iterator[Check]:
    launcher = Path(view.goal.launcher)
    one = launcher.stat().st_size if launcher.exists() else 0
    kept = sum(path.stat().st_size for path in view.launchers if path.exists())
    needs = {path.parent: one for path in view.launchers} | {view.state: kept}
    short = [place for place, need in needs.items() if _lacks(place, need + SLACK)]
    if short:
        text = f"no room in {', '.join(map(str, short))}; free some"
        yield Check(name="space", good=False, text=text)
        return
    yield Check(name="space", good=True, text="enough")


def _lacks(place: Path, octets: int) -> bool:
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize < octets or (found.f_files > 0 and found.f_favail == 0)


QUESTIONS: tuple[Callable[[View], Iterator[Check]], ...] = (
    _kernel,
    _release,
    _program,
    _launchers,
    _settings,
    _state,
    _networks,
    _space,
)
