"""From the runtimes of a machine to the files that make them call weft, and back.

`plan` says what would be done and touches nothing; `Installation` does it, in an order that is safe
to be killed in at any point: the record, launchers, then networks, and only then are others'
configurations set aside, so that there is no moment in which runtimes have no network. Taking back
goes the other way. Doing either again finishes what was begun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from weft.cni import install
from weft.cni.installed import Aside, Installed, Record
from weft.cni.runtimes.choice import (
    TYPE,
    Choice,
    Configuration,
    choose,
    configurations,
    parse,
)
from weft.cni.runtimes.found import NETWORKS, PLUGINS, Runtime, Tree
from weft.kernel import files
from weft.model.errors import Conflict, NotFound, WeftError

FILE = "10-weft.conflist"
ASIDE = ".before-weft"
"""What the name of a configuration that was set aside ends in; no runtime reads such a file."""

Kind = Literal["launcher", "network", "aside", "directory"]
State = Literal["planned", "done", "unchanged", "waiting", "left"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing, and what became of it."""

    kind: Kind
    path: str
    state: State
    text: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime and what it takes."""

    runtime: Runtime
    choice: Choice


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would be made. `verdict`: what runtimes would take then."""

    made: tuple[str, ...] = ()
    launchers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    aside: tuple[Aside, ...] = ()
    present: frozenset[str] = frozenset()  # what is there already as it shall be
    verdict: tuple[Judged, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.aside or set(self.launchers + self.networks) - self.present)


def plugin_directories(
    tree: Tree, runtimes: Iterable[Runtime], further: Sequence[str] = ()
) -> list[str]:
    """Where the launcher belongs: everybody's, what was asked for, the usual ones that are there,
    and of each runtime's those that are there, or its first."""

    def there(directories: Iterable[str]) -> list[str]:
        return [each for each in directories if tree.at(each).is_dir()]

    def writable(directories: Iterable[str]) -> list[str]:
        return [each for each in there(directories) if not _is_read_only(tree.at(each))]

    wanted = [PLUGINS, *further, *writable(install.DIRECTORIES)]
    for runtime in runtimes:
        searched = runtime.plugins
        wanted += writable(searched) or there(searched)[:1] or searched[:1]
    return list(dict.fromkeys(wanted))


def _is_read_only(place: Path) -> bool:
    """Whether nothing can be written there at all, as below /usr of an immutable system."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def network_directories(runtimes: Iterable[Runtime], further: Sequence[str] = ()) -> list[str]:
    """Where the network belongs: everybody's, what was asked for, and each runtime's."""
    return list(dict.fromkeys([NETWORKS, *further, *(each.networks for each in runtimes)]))


def judge(
    tree: Tree,
    runtimes: Iterable[Runtime],
    present: Callable[[str], list[Configuration]] | None = None,
    launchers: Iterable[str] = (),
) -> tuple[Judged, ...]:
    """What each runtime takes; `present` and `launchers`: as if these were there."""
    look = present or (lambda directory: configurations(tree, directory))
    found = []
    for runtime in runtimes:
        there = {resolved(tree, each) for each in runtime.plugins}
        placed = {Path(each).name for each in launchers if str(Path(each).parent) in there}

        def has(name: str, runtime: Runtime = runtime, placed: set[str] = placed) -> bool:
            present = any(tree.at(f"{each}/{name}").exists() for each in runtime.plugins)
            return name in placed or present

        found.append(Judged(runtime=runtime, choice=choose(runtime, look(runtime.networks), has)))
    return tuple(found)


def plan(
    tree: Tree,
    runtimes: Sequence[Runtime],
    *,
    plugins: Sequence[str] = (),
    networks: Sequence[str] = (),
    take_over: bool = False,
) -> Plan:
    """What `weft install` would do; raises Conflict with everything that stands in its way."""
    launchers = _in_each(tree, plugin_directories(tree, runtimes, plugins), TYPE)
    lists = _in_each(tree, network_directories(runtimes, networks), FILE)
    present, obstacles = _present(tree, launchers, lists)
    if obstacles:
        raise Conflict("nothing was changed: " + "; ".join(obstacles), reason="install-refused")
    away: dict[str, None] = {}

    def then(directory: str) -> list[Configuration]:
        there = [
            each
            for each in configurations(tree, directory)
            if f"{resolved(tree, directory)}/{each.file}" not in away
        ]
        if f"{resolved(tree, directory)}/{FILE}" in {*lists} - present:
            there = [each for each in there if each.file != FILE]
            there.append(parse(FILE, install.DEFAULT_CONFLIST.decode()))
        return there

    verdict = judge(tree, runtimes, then, launchers)
    while take_over and (shadows := _shadows(tree, verdict)) - away.keys():
        away |= dict.fromkeys(sorted(shadows))
        verdict = judge(tree, runtimes, then, launchers)
    return Plan(
        made=tuple(_missing(tree, (str(Path(each).parent) for each in launchers + lists))),
        launchers=tuple(launchers),
        networks=tuple(lists),
        aside=tuple(Aside(path=each, kept=_kept(tree, each)) for each in away),
        present=frozenset(present),
        verdict=verdict,
    )


def _shadows(tree: Tree, verdict: Iterable[Judged]) -> set[str]:
    return {
        f"{resolved(tree, each.runtime.networks)}/{file}"
        for each in verdict
        for file in each.choice.shadows
    }


def resolved(tree: Tree, path: str) -> str:
    """The machine's path without symbolic links; raises Conflict where they lead out of `tree`."""
    root, real = (Path(os.path.realpath(tree.at(each))) for each in ("/", path))
    if not real.is_relative_to(root):
        raise Conflict(
            f"{tree.at(path)} leads to {real}, out of {root}; make the link relative",
            reason="install-refused",
        )
    return f"/{real.relative_to(root)}".removesuffix("/.") or "/"


def _in_each(tree: Tree, directories: Iterable[str], name: str) -> list[str]:
    return [f"{each}/{name}" for each in dict.fromkeys(resolved(tree, d) for d in directories)]


def _present(
    tree: Tree, launchers: Iterable[str], lists: Iterable[str]
) -> tuple[set[str], list[str]]:
    """Which of these are there as they shall be, and what is in the way of the others."""
    present: set[str] = set()
    obstacles: list[str] = []
    for directory in dict.fromkeys(tree.at(each).parent for each in (*launchers, *lists)):
        with _Gathered(obstacles):
            _check_writable(directory)
    for each in launchers:
        with _Gathered(obstacles):
            if install.has_launcher(tree.at(each)):
                present.add(each)
    for each in lists:
        with _Gathered(obstacles):
            edited = parse(FILE, tree.text(each)).is_ours and not install.is_former(tree.at(each))
            if edited or install.has_conflist(tree.at(each)):
                present.add(each)  # also one that was edited: it is the administrator's now
    return present, obstacles


def _check_writable(directory: Path) -> None:
    """Raise Conflict unless only root can write there, and root can; it need not be there."""
    with suppress(NotFound):
        files.check_directory(directory)
        if _is_read_only(directory):
            raise Conflict(
                f"{directory} is on a file system that cannot be written; let the runtime look "
                f"elsewhere, e.g. into {PLUGINS}"
            )


class _Gathered:
    """Gathers what would be raised, so that everything is said at once."""

    def __init__(self, obstacles: list[str]) -> None:
        self._obstacles = obstacles

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, WeftError):
            return False
        self._obstacles.append(error.message)
        return True


def _missing(tree: Tree, directories: Iterable[str]) -> Iterator[str]:
    """Directories that are not there yet, parents first."""
    seen: set[str] = set()
    for each in directories:
        for part in (*reversed(Path(each).parents), Path(each)):
            if str(part) not in seen and not tree.at(str(part)).exists():
                seen.add(str(part))
                yield str(part)


def _kept(tree: Tree, path: str) -> str:
    """The first free name for what is set aside."""
    kept, number = f"{path}{ASIDE}", 1
    while os.path.lexists(tree.at(kept)):
        kept, number = f"{path}{ASIDE}-{number}", number + 1
    return kept


class Installation:
    """Does a plan, or takes back what is on record. `steps` grows while it does."""

    def __init__(self, tree: Tree, record: Record) -> None:
        self._tree = tree
        self._record = record
        self.steps: list[Step] = []

    def begin(self, todo: Plan) -> None:
        """The record, then the launchers: nobody calls them yet."""
        known = self._record.read() or Installed()
        wanted = Installed(
            made=todo.made,
            launchers=tuple(each for each in todo.launchers if each not in todo.present),
            networks=tuple(each for each in todo.networks if each not in todo.present),
            aside=todo.aside,
        )
        whole = known.and_also(wanted)
        if whole != known:
            self._record.write(whole)
        for each in todo.launchers:
            place = self._tree.at(each)
            changed = install.place_launcher(place.parent, place.name)
            self._say("launcher", each, "done" if changed else "unchanged")

    def finish(self, todo: Plan) -> None:
        """The networks, then others aside: from now on runtimes call weft."""
        for each in todo.networks:
            changed = each not in todo.present and install.write_conflist(self._tree.at(each))
            self._say("network", each, "done" if changed else "unchanged")
        for aside in todo.aside:
            _move(self._tree.at(aside.path), self._tree.at(aside.kept))
            self._say("aside", aside.path, "done", f"{aside.path} is {aside.kept} now")

    def wait(self, todo: Plan) -> None:
        """What `finish` would have done, as not done."""
        for each in (*todo.networks, *(aside.path for aside in todo.aside)):
            kind: Kind = "network" if each in todo.networks else "aside"
            there = kind == "network" and each in todo.present
            self._say(kind, each, "unchanged" if there else "waiting")

    def take_back(self, done: Installed) -> None:
        """Others' configurations first, then ours, launchers, directories, the record last."""
        for aside in reversed(done.aside):
            self._put_back(aside)
        for each in reversed(done.networks):
            self._remove(
                "network", each, install.remove_conflist(self._tree.at(each)), "it was edited"
            )
        for each in reversed(done.launchers):
            place = self._tree.at(each)
            gone = install.remove_launcher(place.parent, place.name)
            self._remove("launcher", each, gone, "it is not weft's")
        for each in (*done.launchers, *done.networks):
            files.clear_unfinished(self._tree.at(each))
        for each in reversed(done.made):
            with suppress(OSError):  # others put something into it, or it is gone
                self._tree.at(each).rmdir()
                self._say("directory", each, "done")
        self._record.end()

    def others(self, done: Installed) -> list[str]:
        """Launchers and networks of weft's in the usual places that `done` does not name: they
        were there before, and stay."""
        tree = self._tree
        launchers = install.find_launchers(tree.at(each) for each in install.DIRECTORIES)
        found = [f"/{each.relative_to(tree.at('/'))}" for each in launchers]
        ours = f"{NETWORKS}/{FILE}"
        found += [ours] if install.is_conflist(tree.at(ours)) else []
        named = {*done.launchers, *done.networks}
        return [each for each in found if resolved(tree, each) not in named]

    def callers(self, done: Installed) -> list[str]:
        """Configurations that call weft and would stay, when `done` is taken back."""
        tree = self._tree
        if not done.launchers:
            return []  # the launchers that they call were there before
        directories = dict.fromkeys(str(Path(each).parent) for each in done.networks)
        found = [
            f"{directory}/{each.file}"
            for directory in directories
            for each in configurations(tree, directory)
            if each.is_ours
        ]
        return [
            each
            for each in found
            if each not in done.networks or not install.is_conflist(tree.at(each))
        ]

    def _remove(self, kind: Kind, path: str, gone: bool, why: str) -> None:
        if gone:
            self._say(kind, path, "done")
        elif os.path.lexists(self._tree.at(path)):
            self._say(kind, path, "left", f"{path}: {why}")

    def _put_back(self, aside: Aside) -> None:
        place, kept = self._tree.at(aside.path), self._tree.at(aside.kept)
        if not os.path.lexists(kept):
            return  # it was never set aside, or is back already
        if os.path.lexists(place) and not place.samefile(kept):
            text = f"{aside.kept}: there is a new {aside.path}"
            self._say("aside", aside.path, "left", text)
            return
        _move(kept, place)
        self._say("aside", aside.path, "done", f"{aside.path} is back")

    def _say(self, kind: Kind, path: str, state: State, text: str = "") -> None:
        self.steps.append(Step(kind=kind, path=path, state=state, text=text or path))


def _move(source: Path, target: Path) -> None:
    """Rename within a directory without ever replacing something; again, where it was cut short.
    Raises Conflict where others could have put something into the directory."""
    files.check_directory(source.parent)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not target.samefile(source):
            raise Conflict(f"{target} exists", reason="install-refused") from None
    source.unlink()
